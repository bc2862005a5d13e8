"""The one place where jobs meet the model: requests in, replies out, in whatever order they finish."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.session import AudioR1, Reply


@dataclass(frozen=True)
class Request:
    """Something to answer. options: fields of `Settings`."""

    key: Hashable
    messages: Sequence[Message]
    options: Mapping[str, Any]
    prefill: str = ""


@dataclass(frozen=True)
class Passed:
    """Nothing to answer; comes out as it went in, so that what is ready need not wait."""

    value: Any


Answer = tuple[Hashable, Reply | AudioR1Error]


def answer(
    r1: AudioR1, requests: Iterable[Request | Passed], max_concurrency: int = 1
) -> Iterator[Answer | Passed]:
    """Answer every request; a refused one gives its error in place of a reply."""
    for request in requests:
        if isinstance(request, Passed):
            yield request
            continue
        try:
            yield request.key, r1.reply(
                request.messages, prefill_response=request.prefill, **request.options
            )
        except AudioR1Error as error:
            yield request.key, error
