"""Replies to one question about one sound, side by side; the sound can be played where it is small.

A small file is put into the page (a data URI), so that the page can be sent to somebody; of a larger
one only the path is told.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_audio_r1.report.page import DASH, Html, join, tag

CLIP_BYTES = 1_000_000  # a file up to this is put into the page,
PAGE_BYTES = 20_000_000  # as long as all of them together stay below this
TYPES = {".wav": "wav", ".flac": "flac", ".mp3": "mpeg", ".ogg": "ogg", ".opus": "ogg", ".oga": "ogg",
         ".m4a": "mp4", ".mp4": "mp4", ".aac": "aac", ".webm": "webm"}  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What was answered at one time. `when` is its heading."""

    when: str
    thinking: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """A question and its replies. `where` says which row of the data it is; a sound is a file or a data URI."""

    where: str
    sounds: Sequence[Path | str]
    prompt: str
    expected: str
    replies: Sequence[Reply]


def samples(items: Sequence[Sample]) -> list[Html]:
    """A block for each sample."""
    budget = Budget(PAGE_BYTES)
    return [_sample(item, budget) for item in items]


@dataclass
class Budget:
    """Bytes of sound that may still go into the page."""

    left: int

    def take(self, path: Path) -> bytes | None:
        """The file, or None where it is missing or too large."""
        try:
            size = path.stat().st_size
            if not path.is_file() or size > min(CLIP_BYTES, self.left):
                return None
            data = path.read_bytes()
        except OSError:
            return None
        self.left -= len(data)
        return data


def _sample(item: Sample, budget: Budget) -> Html:
    sounds = (_sound(path, budget) for path in item.sounds)
    replies = join(_reply(reply, item.expected) for reply in item.replies)
    return tag("article", join((
        tag("h3", item.where or "sample"),
        *sounds,
        _labelled("Question", item.prompt),
        _labelled("Expected", item.expected),
        tag("div", replies, class_="replies"),
    )), class_="sample")  # fmt: skip


def _sound(path: Path | str, budget: Budget) -> Html:
    if isinstance(path, str):
        return _uri(path, budget)
    kind = TYPES.get(path.suffix.lower())
    data = budget.take(path) if kind else None
    name = tag("p", tag("code", path), class_="label")
    if data is None:
        return name
    return _player(f"data:audio/{kind};base64,{base64.b64encode(data).decode('ascii')}", path.name) + name


def _uri(uri: str, budget: Budget) -> Html:
    """A sound that stands in the data itself."""
    if not uri.startswith("data:audio/") or len(uri) > min(CLIP_BYTES * 4 // 3, budget.left):
        return tag("p", "a sound in the data itself", class_="label")
    budget.left -= len(uri)
    return _player(uri, "a sound in the data itself")


def _player(source: str, name: str) -> Html:
    return tag("audio", "", controls="", preload="metadata", src=source, aria_label=name)


def _reply(reply: Reply, expected: str) -> Html:
    parts = [tag("p", reply.when, class_="label")]
    if reply.thinking.strip():
        parts.append(tag("pre", reply.thinking.strip(), class_="thinking", tabindex="0"))
    parts.append(tag("pre", reply.answer.strip() or DASH))
    if same(reply.answer, expected):
        parts.append(tag("p", "as expected", class_="label match"))
    return tag("div", join(parts), class_="reply")


def _labelled(name: str, text: str) -> Html:
    words = text.strip()
    return tag("p", tag("span", f"{name}: ", class_="label") + words) if words else Html()


def same(answer: str, expected: str) -> bool:
    """Equal but for case, space and a full stop. Another answer is not called wrong: it may well be right."""
    plain = [" ".join(words.casefold().split()).rstrip(".") for words in (answer, expected)]
    return plain[0] == plain[1] != ""
