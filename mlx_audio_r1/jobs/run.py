"""Many recordings through one model: each gives an outcome as soon as it is done, in any order.

A thread decodes the next files while the model works. A recording in windows is done when all of them
are answered; a bad one costs an outcome with its error, never the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.footprint import prompt_tokens
from mlx_audio_r1.generate import ANSWER_RESERVE, Timings
from mlx_audio_r1.jobs.ahead import Ahead
from mlx_audio_r1.jobs.answers import Answer, Passed, Request, answer
from mlx_audio_r1.jobs.asking import KINDS, Asking
from mlx_audio_r1.jobs.hearing import Broken, Clip, Cutting, Recording, cost, hear
from mlx_audio_r1.jobs.records import Record, reply_fields
from mlx_audio_r1.jobs.sources import Item
from mlx_audio_r1.jobs.words import glue, join
from mlx_audio_r1.prompt_cache import PromptCache
from mlx_audio_r1.reply import Reply, Usage
from mlx_audio_r1.session import AudioR1

AHEAD_SECONDS = 1_200.0  # of decoded sound that may wait: 77 MB
CACHE_BYTES = 1 << 30  # what is kept of sounds that are asked about more than once


@dataclass(frozen=True, eq=False)
class Heard:
    """A clip and what the model made of it. text: the answer, without what the clip before has too."""

    pieces: tuple[tuple[float, float], ...]
    overlap: float
    reply: Reply
    text: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one recording (or one sample of it): what was heard, or an error."""

    item: Item
    sample: int | None
    recording: Recording | None = None
    heard: tuple[Heard, ...] = ()
    error: AudioR1Error | None = None


@dataclass(eq=False)
class _Open:
    """A recording of which clips are still with the model."""

    recording: Recording
    left: set[int]  # samples that are not complete
    clips: dict[int, Clip] = field(default_factory=dict)  # without their waveforms
    replies: dict[int, dict[int, Reply]] = field(default_factory=dict)  # sample -> clip -> reply


def outcomes(
    r1: AudioR1,
    items: Sequence[Item],
    asking: Asking,
    cutting: Cutting,
    *,
    samples: Mapping[str, Sequence[int]] | None = None,
    max_rows: int = 8,
    room: int | None = None,
    on_part: Callable[[Recording, float], None] = lambda recording, share: None,
) -> Iterator[Outcome]:
    """Ask about every recording. samples: which of `asking.num_samples` are wanted of an id; all of
    them where it is not named. room: tokens of a prompt and its reply that memory has place for; a reply
    is kept within it. on_part: is told of every reply, and what share of its recording it is."""
    if len({item.path for item in items}) < len(items) and r1.prompt_cache is None:
        r1.prompt_cache = PromptCache(r1.name, CACHE_BYTES)  # several questions about one file
    wanted = samples or {}
    by_id = {item.id: tuple(wanted.get(item.id, range(asking.num_samples))) for item in items}
    job = _Job(asking, by_id, partial(_within, room, r1.defaults.max_tokens), on_part)
    with closing(Ahead(hear(list(items), cutting), cost, AHEAD_SECONDS)) as clips:
        requests = chain.from_iterable(job.requests(clip) for clip in clips)
        for answered in answer(r1, requests, max_rows=max_rows, is_ready=clips.is_ready):
            yield from answered.value if isinstance(answered, Passed) else job.take(answered)


class _Job:
    def __init__(
        self,
        asking: Asking,
        samples: Mapping[str, tuple[int, ...]],
        within: Callable[[dict[str, Any], float], dict[str, Any]],
        on_part: Callable[[Recording, float], None],
    ):
        self._asking = asking
        self._samples = samples
        self._within = within
        self._on_part = on_part
        self._open: dict[str, _Open] = {}
        self._failed: set[str] = set()

    def requests(self, clip: Clip | Broken) -> Iterator[Request | Passed]:
        """What to ask about a clip."""
        item = clip.item if isinstance(clip, Broken) else clip.recording.item
        if item.id in self._failed:
            return
        if isinstance(clip, Broken):
            yield Passed([self._fail(item, clip.error)])
        elif not clip.pieces:
            yield Passed([Outcome(item, sample, clip.recording) for sample in self._samples[item.id]])
        else:
            opened = self._open.setdefault(item.id, _Open(clip.recording, set(self._samples[item.id])))
            opened.clips[clip.index] = Clip(clip.recording, clip.index, clip.pieces, (), clip.overlap)
            messages = self._asking.messages(clip.waveforms, item.prompt)
            options = self._within(self._asking.options(), clip.seconds)
            options["prefill_response"] = self._asking.prefill
            yield Request((item.id, clip.index), messages, self._samples[item.id], options)

    def take(self, answer: Answer) -> Iterator[Outcome]:
        """An answer, and what it completes."""
        id_, index = answer.key
        opened = self._open.get(id_)
        if opened is None:
            return  # another clip of it has failed
        if isinstance(answer.reply, AudioR1Error):
            yield self._fail(opened.recording.item, answer.reply)
            return
        sample = answer.sample
        replies = opened.replies.setdefault(sample, {})
        replies[index] = answer.reply
        self._on_part(opened.recording, 1 / opened.recording.clips / len(self._samples[id_]))
        if len(replies) == opened.recording.clips:
            yield self._complete(opened, sample)

    def _complete(self, opened: _Open, sample: int) -> Outcome:
        clips = [opened.clips[i] for i in range(opened.recording.clips)]
        by_index = opened.replies.pop(sample)
        replies = [by_index[i] for i in range(len(clips))]
        opened.left.discard(sample)
        if not opened.left:
            del self._open[opened.recording.item.id]
        texts = join([r.answer for r in replies], [c.overlap for c in clips])
        heard = tuple(
            Heard(c.pieces, c.overlap, r, t) for c, r, t in zip(clips, replies, texts, strict=True)
        )
        return Outcome(opened.recording.item, sample, opened.recording, heard)

    def _fail(self, item: Item, error: AudioR1Error) -> Outcome:
        self._failed.add(item.id)
        self._open.pop(item.id, None)
        return Outcome(item, None, error=error)


def _within(room: int | None, default: int, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Options whose reply to so many seconds of sound fits the room; what cannot is left to the engine,
    which refuses it."""
    if room is None or "max_tokens" in options:
        return options
    left = room - prompt_tokens(seconds)
    return options if left < ANSWER_RESERVE else {**options, "max_tokens": min(default, left)}


def whole_reply(heard: Sequence[Heard]) -> Reply:
    """The replies to all clips of a recording as one."""
    replies = [h.reply for h in heard]
    if len(replies) == 1:
        return replies[0]
    return Reply(
        thinking="\n\n".join(r.thinking for r in replies if r.thinking),
        answer=glue([h.text for h in heard]),
        finish_reason=next((r.finish_reason for r in replies if r.finish_reason != "stop"), "stop"),
        usage=Usage(*(sum(getattr(r.usage, name) for r in replies) for name in Usage.__dataclass_fields__)),
        timings=Timings(
            *(sum(getattr(r.timings, name) for r in replies) for name in Timings.__dataclass_fields__)
        ),
        audio_seconds=sum(r.audio_seconds for r in replies),
        token_ids=[token for r in replies for token in r.token_ids],
    )


def record(outcome: Outcome, asking: Asking, model: str) -> Record:
    """The line of an outcome in the output file."""
    item, sample = outcome.item, outcome.sample
    head: Record = {"id": item.id, "file": item.path}
    if sample is not None and asking.num_samples > 1:
        head["sample"] = sample
    tail: Record = {"model": model, **({"columns": dict(item.columns)} if item.columns else {})}
    if outcome.error is not None:
        error = {"class": type(outcome.error).__name__, "message": str(outcome.error)}
        return {**head, "error": error, **tail}
    assert outcome.recording is not None
    notes = {"notes": list(outcome.recording.notes)} if outcome.recording.notes else {}
    return {
        **head,
        "duration": round(outcome.recording.duration, 3),
        "prompt": asking.text(item.prompt),
        **_heard_fields(outcome, KINDS[asking.kind].spoken),
        **notes,
        **tail,
    }


def _heard_fields(outcome: Outcome, spoken: bool) -> Record:
    reply = whole_reply(outcome.heard)
    assert outcome.recording is not None
    texts = {"text": reply.answer, "silence_skipped": outcome.recording.silence_skipped} if spoken else {}
    pieces = [
        {"start": start, "end": end}
        for heard in outcome.heard
        for start, end in ([(heard.pieces[0][0], heard.pieces[-1][1])] if spoken else heard.pieces)
    ]
    if spoken:
        for piece, heard in zip(pieces, outcome.heard, strict=True):
            piece["text"] = heard.text
    return {"pieces": pieces, **reply_fields(reply), **texts}
