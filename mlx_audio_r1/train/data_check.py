"""What training will say about a folder of rows, before training: every fault, not only the first.

Nothing of the model is loaded but its tokenizer and config.json. An error is what `audio-r1 train` would
refuse, a warning is what it would do and nobody wants.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.audio import source_name
from mlx_audio_r1.config import ModelConfig, read_config
from mlx_audio_r1.errors import AudioError, DataError
from mlx_audio_r1.hub import cached, locate, looks_like_repo
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tokenizer import AUDIO_PATCH, Tokenizer
from mlx_audio_r1.train.data_warnings import Seen, Split, warnings_of
from mlx_audio_r1.train.examples import Example, ExampleMaker, ExampleOptions
from mlx_audio_r1.train.rows import Fault, Row, find_splits, parse_lines
from mlx_audio_r1.train.sounds import Sound, Sounds, source_key

TOKENIZER_FILES = ["*.json", "*.txt"]
SAMPLE_SEED = 0


@dataclass(frozen=True)
class CheckOptions:
    """over_long: whether rows beyond max_seq_length are refused or dropped. sample: prompts to show.
    decode: False reads the headers of sounds alone."""

    max_seq_length: int = 2_048
    over_long: str = "refuse"
    sample: int = 0
    decode: bool = True
    mask_prompt: bool = True


@dataclass(frozen=True)
class Sample:
    """One prompt and reply as the model sees them: (text, is it learnt?) in order."""

    where: str
    what: str  # prompt, reply, chosen or rejected
    pieces: tuple[tuple[str, bool], ...]


@dataclass
class Report:
    """What was found. splits: name -> numbers."""

    data: str
    context: int
    max_seq_length: int
    decoded: bool
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.errors

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ok": self.ok, **asdict(self)}


def check(
    data: str | Path,
    model: str | Path | None = None,
    options: CheckOptions | None = None,
    progress: Callable[[str, float], None] = lambda where, seconds: None,
) -> Report:
    """Read every row and, unless told otherwise, every sound. progress: (row, seconds of sound so far).

    Raises DataError where there are no rows at all, CheckpointError for the model.
    """
    options = options or CheckOptions()
    splits = find_splits(data)
    folder = _tokenizer_folder(model)
    config = read_config(folder)
    tokenizer = Tokenizer.from_folder(folder, config.eos_token_ids)
    checker = _Checker(tokenizer, config, options, progress)
    report = Report(str(data), config.context_length, options.max_seq_length, options.decode)
    for name, path in splits.items():
        split = checker.check(name, path)
        report.splits[name] = _numbers(split)
        report.errors += split.faults
        report.samples += checker.samples() if len(report.splits) == 1 else []
        report.warnings += warnings_of(split)
    report.warnings += checker.seen.across(checker.splits, Path(data))
    return report


class _Checker:
    """Goes through the splits one after the other and remembers what must not come twice."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ModelConfig,
        options: CheckOptions,
        progress: Callable[[str, float], None],
    ):
        self._tokenizer, self._options, self._progress = tokenizer, options, progress
        self._sounds = Sounds(convention=config.length_convention, decode=options.decode)
        self._maker = ExampleMaker(
            tokenizer, config, self._sounds, ExampleOptions(mask_prompt=options.mask_prompt)
        )
        self._seconds = 0.0
        self.seen = Seen()
        self.splits: list[Split] = []

    def check(self, name: str, path: Path) -> Split:
        split = Split(name, path)
        self.splits.append(split)
        self._chosen = _Reservoir(self._options.sample)
        for row in parse_lines(path):
            if isinstance(row, Fault):
                split.lines += row.kind != "file"
                split.faults.append(row)
            else:
                split.lines += 1
                self._row(split, row)
        return split

    def samples(self) -> list[Sample]:
        """The rows that were drawn, in the order of the file."""
        return [sample for row, examples in self._chosen.drawn() for sample in self._shown(row, examples)]

    def _row(self, split: Split, row: Row) -> None:
        self._progress(row.where, self._seconds)
        split.kinds[row.kind] += 1
        sounds = self._listen(split, row)
        if sounds is None:
            return
        self.seen.add(split, row, [_known_as(*pair) for pair in zip(row.sounds, sounds, strict=True)])
        try:
            examples = self._maker.all_of(row)
        except DataError as error:
            split.faults.append(Fault(row.where, "fit", str(error).removeprefix(f"{row.where}: ")))
            return
        split.add(row, examples)
        self._measure(split, row, examples)
        self._chosen.offer((row, examples))

    def _listen(self, split: Split, row: Row) -> list[Sound] | None:
        """The row's sounds; None where one cannot be read, which is noted for each of them."""
        found, bad = [], False
        for part in row.sounds:
            known = source_key(part) in split.sources
            try:
                sound = self._sounds(part)
            except AudioError as error:
                split.faults.append(Fault(row.where, "audio", str(error)))
                bad = True
                continue
            found.append(sound)
            split.clips += 1
            split.heard += sound.seconds
            if not known:
                self._seconds += sound.seconds
                split.sources[source_key(part)] = sound
                split.note_sound(row.where, _label(part), sound)
        return None if bad else found

    def _measure(self, split: Split, row: Row, examples: tuple[Example, ...]) -> None:
        split.lengths += [len(example) for example in examples]
        split.learnt.append((sum(example.learnt for example in examples), row.where))
        longest = max(map(len, examples))
        if longest > self._options.max_seq_length:
            split.over_long.append((row.where, longest))
            if self._options.over_long == "refuse":
                text = (f"{longest:,} tokens, more than max_seq_length {self._options.max_seq_length:,}: "
                        "raise --max-seq-length, or leave it out with --over-long drop")
                split.faults.append(Fault(row.where, "long", text))

    def _shown(self, row: Row, examples: tuple[Example, ...]) -> Iterator[Sample]:
        names = {"preference": ("chosen", "rejected"), "sft": ("reply",), "prompt": ("prompt",)}[row.kind]
        for name, example in zip(names, examples, strict=True):
            yield Sample(row.where, name, tuple(pieces(example, self._tokenizer)))


def pieces(example: Example, tokenizer: Tokenizer) -> Iterator[tuple[str, bool]]:
    """(text, is it learnt?) of an example, its patches counted instead of written out."""
    tokens = zip(example.ids.tolist(), (example.weights > 0).tolist(), strict=True)
    for learnt, group in groupby(tokens, key=lambda pair: pair[1]):
        text = tokenizer.decode([token for token, _ in group])
        yield re.sub(f"(?:{AUDIO_PATCH}){{2,}}", _counted, text), learnt


def _counted(run: re.Match[str]) -> str:
    return f"{AUDIO_PATCH}*{len(run[0]) // len(AUDIO_PATCH)}"


def _label(part: AudioPart) -> str:
    return source_name(part.source)


def _known_as(part: AudioPart, sound: Sound) -> tuple[str, str]:
    """(what tells this sound from others, what to call it)."""
    return sound.digest or source_key(part), _label(part)


class _Reservoir:
    """`size` things of a stream of unknown length, each as likely as any other; the same ones every time."""

    def __init__(self, size: int):
        self._size, self._offered = size, 0
        self._held: list[tuple[int, Any]] = []
        self._rng = random.Random(SAMPLE_SEED)

    def offer(self, thing: Any) -> None:
        self._offered += 1
        if len(self._held) < self._size:
            self._held.append((self._offered, thing))
        elif (at := self._rng.randrange(self._offered)) < self._size:
            self._held[at] = self._offered, thing

    def drawn(self) -> list[Any]:
        return [thing for _, thing in sorted(self._held, key=lambda pair: pair[0])]


def _numbers(split: Split) -> dict[str, Any]:
    """What the report says of one split."""
    digests = {sound.digest or source for source, sound in split.sources.items()}
    return {
        "file": str(split.path),
        "lines": split.lines,
        "rows": {kind: split.kinds[kind] for kind in ("sft", "preference", "prompt")},
        "clips": split.clips,
        "files": len(split.sources),
        "distinct_sounds": len(digests),
        "hours": round(sum(sound.seconds for sound in split.sources.values()) / 3600, 4),
        "hours_heard": round(split.heard / 3600, 4),
        "longer_than_a_chunk": sum(len(sound.chunks) > 1 for sound in split.sources.values()),
        "text_only_rows": split.text_only,
        "tokens": _spread(split.lengths),
        "learnt_tokens": sum(count for count, _ in split.learnt),
        "with_reasoning": split.reasoning[True],
        "without_reasoning": split.reasoning[False],
        "over_long": [{"where": where, "tokens": tokens} for where, tokens in split.over_long],
        "errors": dict(Counter(fault.kind for fault in split.faults)),
    }


def _spread(lengths: list[int]) -> dict[str, int]:
    if not lengths:
        return {}
    middle, high = np.percentile(lengths, [50, 95], method="higher").tolist()
    return {"min": min(lengths), "median": middle, "p95": high, "max": max(lengths), "total": sum(lengths)}


def _tokenizer_folder(model: str | Path | None) -> Path:
    """The folder of a checkpoint; of a repository that was never fetched, its small files alone."""
    name = "" if model is None else str(model)
    if not looks_like_repo(name) or Path(name).expanduser().exists():
        return locate(model)
    from huggingface_hub import snapshot_download

    from mlx_audio_r1.hub_errors import hub_errors

    with hub_errors(name):
        return cached(name) or Path(snapshot_download(name, allow_patterns=TOKENIZER_FILES))
