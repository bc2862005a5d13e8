"""The one place where jobs meet the engine: requests in, replies out, in whatever order they finish."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.many import Conversations
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.reply import Reply
from mlx_audio_r1.session import AudioR1

READY_REPLIES = 2  # replies kept waiting for a row; more sounds than that are not encoded ahead


@dataclass(frozen=True)
class Request:
    """Something to answer. samples: the numbers of the replies wanted. options: as of Conversations.submit."""

    key: Hashable
    messages: Sequence[Message]
    samples: Sequence[int] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """Nothing to answer; comes out as it went in, so that what is ready need not wait."""

    value: Any


@dataclass(frozen=True)
class Answer:
    """A reply, or why there is none: then for all samples of the request."""

    key: Any
    sample: int | None
    reply: Reply | AudioR1Error


def answer(
    r1: AudioR1,
    requests: Iterable[Request | Passed],
    *,
    max_rows: int,
    is_ready: Callable[[], bool] = lambda: True,
) -> Iterator[Answer | Passed]:
    """Answer every request, `max_rows` replies at a time.

    is_ready: would the next request come at once? While replies are in the making, others are not
    waited for.
    """
    coming = iter(requests)
    ended = False
    with Conversations(r1, max_rows=max_rows) as many:
        desk, engine = _Desk(many), many.engine
        while not ended or engine.busy:
            while not ended and engine.waiting < READY_REPLIES and (is_ready() or not engine.busy):
                request = next(coming, None)
                ended = request is None
                if isinstance(request, Passed):
                    yield request
                elif request is not None:
                    yield from desk.submit(request)
            yield from desk.step()


class _Desk:
    """Knows whose the engine's replies are."""

    def __init__(self, many: Conversations):
        self._many = many
        self._open: dict[int, tuple[Hashable, set[int]]] = {}  # engine's id -> key, samples to come

    def submit(self, request: Request) -> Iterator[Answer]:
        """Queue a request; a refusal is its answer."""
        most = max(request.samples) + 1
        try:
            id_ = self._many.submit(request.messages, most, **request.options)
        except AudioR1Error as error:
            yield Answer(request.key, None, error)
            return
        self._open[id_] = (request.key, set(request.samples))
        for sample in set(range(most)) - set(request.samples):
            self._many.cancel(id_, sample)

    def step(self) -> Iterator[Answer]:
        """One token for every row; the replies it completes."""
        for event in self._many.step():
            if not event.finish_reason:
                continue
            key, left = self._open[event.request]
            yield Answer(key, event.sample, self._many.reply(event))
            left.discard(event.sample)
            if not left:
                del self._open[event.request]
                self._many.forget(event.request)
