"""The folder of a run: what makes it this run and no other, and who may work in it.

    run.json          what was asked, and how
    items.jsonl       the items, with places of sounds counted from here
    results.jsonl     begins with whatever rows depend on; another head is refused

The surprise: where sounds and adapters lie does not matter, what is in them does; a folder and its data may be
moved together. A model must have the same name and the same weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1 import __version__, adapter_files
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import profile_of
from mlx_audio_r1.evaluate.choosing import Source
from mlx_audio_r1.evaluate.results import ITEMS, RESULTS, RUN, ResultFile
from mlx_audio_r1.evaluate.running import Running, settings_of
from mlx_audio_r1.files import disk_errors, locked, write_file
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.prompt_cache import fingerprint
from mlx_audio_r1.record_file import line_of
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json

LOCK = ".lock"


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Raises EvaluationError where another run is at work in the folder."""
    path = out / LOCK
    with disk_errors(path):
        out.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not locked(file):
            raise EvaluationError(f"{out}: another run is at work in it; wait for it, or choose another -o")
        yield


def run_file(r1: AudioR1, sources: Sequence[Source], out: Path, running: Running) -> ResultFile:
    """results.jsonl, with run.json and items.jsonl beside it."""
    head = _head(r1, sources, running)
    file = ResultFile(out, head)
    if running.retry_failed:
        drop_errors(out)
        file = ResultFile(out, head)
    items = [stored(item, out) for source in sources for item in source.items]
    told = _told(head, sources, running, str(r1.adapter_path or ""))
    write_file(out / ITEMS, "".join(line_of(item_to_json(item)) for item in items))
    write_file(out / RUN, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return file


def _head(r1: AudioR1, sources: Sequence[Source], running: Running) -> dict[str, Any]:
    """Whatever rows depend on: a folder has rows of one such head."""
    head: dict[str, Any] = {
        "model": r1.name,
        "weights": fingerprint(r1.name, dated=False)[:16],
        "adapter": adapter_files.fingerprint(r1.adapter_path)[:16] if r1.adapter_path else "",
        "seed": running.seed,
        "answer_tokens": running.answer_tokens,
    }
    for source in sources:
        for name, value in effective(r1, source.items[0], running).items():
            head[f"{source.bench} {name}"] = value
    return {**head, "items": digest_of([item for source in sources for item in source.items])}


def effective(r1: AudioR1, item: Item, running: Running) -> dict[str, Any]:
    """The settings as they act: those of the checkpoint too, which nobody gave."""
    settings = asdict(replace(r1.defaults, **settings_of(item, running)))
    return {name: value for name, value in settings.items() if name in _ACTING}


_ACTING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "thinking",
           "thinking_budget", "kv_bits", "kv_group_size", "quantized_kv_start")  # fmt: skip


def _told(
    head: Mapping[str, Any], sources: Sequence[Source], running: Running, adapter: str
) -> dict[str, Any]:
    """run.json: the head, and what else people want to know of it."""
    benches = {
        source.bench: {
            "items": len(source.items), "of": source.of or len(source.items), "reasons": list(source.reasons),
            "version": source.items[0].version, "profile": profile_of(source.items[0]),
            "option_style": source.items[0].option_style, "settings": dict(running.settings),
        } for source in sources
    }  # fmt: skip
    asked = {"samples": running.samples, "budgets": running.lengths, "controls": list(running.controls),
             "control_budget": running.control_budget, "grounding": running.grounding}  # fmt: skip
    return {**head, **asked, "bench": benches, "adapter_path": adapter, "audio_r1": __version__}


def digest_of(items: Iterable[Item]) -> str:
    """Hex sha256, shortened, of all that is asked and compared with; where sounds lie does not matter."""
    digest = hashlib.sha256()
    for item in items:
        line = item_to_json(_with_sources(item, lambda source: Path(source).name))
        digest.update(json.dumps(line, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def stored(item: Item, out: Path) -> Item:
    """The item as items.jsonl of the run has it: places counted from there where they have a root in common."""
    here = os.path.realpath(out)

    def place(source: str) -> str:
        path = os.path.abspath(source)
        near = os.path.commonpath([path, here]) != os.path.sep if path[:1] == here[:1] else False
        return os.path.relpath(path, here) if near else path

    return _with_sources(item, place)


def _with_sources(item: Item, change: Callable[[str], str]) -> Item:
    turns = tuple(Turn(t.role, tuple(AudioPart(change(str(p.source))) if isinstance(p, AudioPart) else p
                                     for p in t.parts)) for t in item.turns)  # fmt: skip
    return replace(item, turns=turns)


def drop_errors(out: Path) -> None:
    """Rows with an error leave the file, so that they are made again. Raises DiskError."""
    path = out / RESULTS
    if not path.exists():
        return
    with disk_errors(path):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    write_file(path, "".join(line for line in lines[:1] + [x for x in lines[1:] if not _is_error(x)]))


def _is_error(line: str) -> bool:
    try:
        return bool(json.loads(line).get("error"))
    except (ValueError, AttributeError):
        return False


def read_run(out: Path) -> dict[str, Any]:
    """run.json. Raises EvaluationError."""
    try:
        found = json.loads((out / RUN).read_text(encoding="utf-8"))
        return dict(found)
    except (OSError, ValueError, TypeError):
        raise EvaluationError(f"{out / RUN}: cannot be read; give a folder of audio-r1 eval run") from None
