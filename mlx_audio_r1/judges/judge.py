"""Who judges a reply, beside the rules: a server, a model on this machine, or people with a file.

    "https://host/v1"    any server that speaks OpenAI's chat completions
    "mlx:owner/name"     a language model through mlx_lm
    "file"               judge_requests.jsonl is written, judge_responses.jsonl is read

What a judge said is kept under a hash of judge, parameters and prompt, so nothing is asked twice. The
surprise: a judge may say None, "not yet", and then the phase stops with a line that says how many wait.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlx_audio_r1.errors import JudgeError
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.judges.url import UrlJudge, told

CACHE, REQUESTS, RESPONSES = "judge_cache.jsonl", "judge_requests.jsonl", "judge_responses.jsonl"
LOCAL = "mlx:"


class Judge(Protocol):
    """name and params: whatever changes what it says."""

    @property
    def name(self) -> str: ...

    @property
    def params(self) -> Mapping[str, Any]: ...

    def ask(self, prompts: Sequence[str]) -> Iterator[str | None]:
        """Its reply to each, in order, as it comes; None where there is none yet. Raises JudgeError."""
        ...


def key_of(judge: Judge, prompt: str) -> str:
    """Hex sha256 of all that a reply depends on."""
    text = json.dumps([judge.name, dict(judge.params), prompt], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Cached:
    """A judge that remembers in a JSONL file; what a kill tore is asked again."""

    def __init__(self, judge: Judge, path: Path):
        self._judge, self._path = judge, path
        self.name, self.params = judge.name, judge.params
        self._known = {row["key"]: str(row["reply"]) for row in rows_of(path) if {"key", "reply"} <= row.keys()}

    def ask(self, prompts: Sequence[str]) -> Iterator[str | None]:
        keys = [key_of(self._judge, prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        replies = self._judge.ask(list(new.values()))
        unseen = iter(list(new))
        for key in keys:
            while key in new:
                made, reply = next(unseen), next(replies)
                del new[made]
                if reply is not None:
                    self._remember(made, reply)
            yield self._known.get(key)

    def _remember(self, key: str, reply: str) -> None:
        append(self._path, {"key": key, "judge": self.name, "reply": reply})
        self._known[key] = reply


@dataclass
class FileJudge:
    """People, or a program of theirs: requests {id, prompt, expects}, and {params} where there are any;
    responses {id, response} with what is expected as text or object, or {id} and the object's fields."""

    folder: Path
    expects: Any = ""  # what a response looks like, told with every request
    name: str = "file"
    params: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, prompts: Sequence[str]) -> Iterator[str | None]:
        asked = {row.get("id") for row in rows_of(self.folder / REQUESTS)}
        answers = {str(row["id"]): _response(row) for row in rows_of(self.folder / RESPONSES) if "id" in row}
        for prompt in prompts:
            key = key_of(self, prompt)
            if key not in asked:
                params = {"params": dict(self.params)} if self.params else {}
                append(self.folder / REQUESTS, {"id": key, "prompt": prompt, "expects": self.expects, **params})
                asked.add(key)
            yield answers.get(key)


class LocalJudge:
    """A language model through mlx_lm, loaded when it is first asked; always its likeliest reply, so that one
    rater speaks for all."""

    def __init__(self, model: str, max_tokens: int = 512, system: str = ""):
        self.name, self.params = LOCAL + model, {"max_tokens": max_tokens, **told(system, 0)}
        self._path, self._max_tokens = model, max_tokens
        self._before = [{"role": "system", "content": system}] if system else []
        self._loaded: tuple[Any, Any] | None = None

    def ask(self, prompts: Sequence[str]) -> Iterator[str | None]:
        for prompt in prompts:
            yield self._reply(prompt)

    def _reply(self, prompt: str) -> str:
        from mlx_lm import generate

        model, tokenizer = self._loaded = self._loaded or self._load()
        messages = [*self._before, {"role": "user", "content": prompt}]
        asked: Any = "\n\n".join(message["content"] for message in messages)
        if getattr(tokenizer, "chat_template", None):
            asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return str(generate(model, tokenizer, prompt=asked, max_tokens=self._max_tokens))

    def _load(self) -> tuple[Any, Any]:
        from mlx_lm import load

        try:
            return load(self._path)[:2]
        except (OSError, ValueError, KeyError) as error:
            why = str(error).partition("\n")[0]
            raise JudgeError(f"judge {self.name}: mlx_lm cannot load it ({why}); give a folder or a "
                                "repository of mlx-community") from None  # fmt: skip


@dataclass(frozen=True)
class JudgeConfig:
    """kind: see the module. model: what a server calls it. timeout: seconds a request. system, params,
    rater: as `UrlJudge` has them; a local model knows max_tokens and the system words alone."""

    kind: str
    model: str = ""
    max_tokens: int = 512
    timeout: float = 120.0
    retries: int = 4
    system: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    rater: int = 0


def open_judge(config: JudgeConfig, folder: Path, api_key: str | None = None, expects: Any = "") -> Judge:
    """The judge of a configuration, cached in `folder` where it is no file. Raises JudgeError."""
    if config.kind == "file":
        return FileJudge(folder, expects, params={**config.params, **told(config.system, config.rater)})
    if config.kind.startswith(LOCAL) and config.kind != LOCAL:
        most = int(config.params.get("max_tokens") or config.max_tokens)
        return Cached(LocalJudge(config.kind.removeprefix(LOCAL), most, config.system), folder / CACHE)
    if config.kind.startswith(("http://", "https://")):
        judge = UrlJudge(
            config.kind, config.model, api_key, config.max_tokens, config.timeout, config.retries,
            system=config.system, params=config.params, rater=config.rater,
        )  # fmt: skip
        return Cached(judge, folder / CACHE)
    raise JudgeError(f"judge {config.kind!r}: give a URL, mlx:MODEL or file")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, which may be missing; what is no object is passed over."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def append(path: Path, row: Mapping[str, Any]) -> None:
    """A line at the end of a file, behind a torn one too. Raises DiskError."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            torn = file.tell() > 0 and not _ends_whole(file)
            file.write((("\n" if torn else "") + json.dumps(row, ensure_ascii=False) + "\n").encode())


def _ends_whole(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")


def _response(row: Mapping[str, Any]) -> str:
    said = row.get("response", {name: value for name, value in row.items() if name != "id"})
    return said if isinstance(said, str) else json.dumps(said)
