"""Windows and their answers -> a transcript that says where it may be thin.

A model that hears too much at once writes a summary in place of the words. It shows in the words a
minute of sound: a window far below the others of the run, or below what anybody who speaks says, is
noted. Music and long pauses above the threshold of silence look the same, so it is a note only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from mlx_audio_r1.config import ModelConfig, patch_count
from mlx_audio_r1.generate import ANSWER_RESERVE
from mlx_audio_r1.jobs.asking import KINDS, Asking
from mlx_audio_r1.jobs.hearing import Cutting
from mlx_audio_r1.jobs.run import Heard, Outcome
from mlx_audio_r1.jobs.subtitles import Segment, Transcript
from mlx_audio_r1.jobs.words import count_words, glue

TEXT_SECONDS = 120.0  # default window where only the text counts
CUE_SECONDS = 25.0  # default window where its times are shown: one piece of the encoder
OVERLAP_SECONDS = 5.0  # heard twice where a window cannot end in a pause
FEWEST_WORDS = 30.0  # a minute; slow speech has about 100
SHARE_OF_MEDIAN = 0.3
JUDGED_SECONDS = 20.0  # a shorter window may hold few words
SPOKEN_TOKENS = 8.0  # tokens of text for a second of sound, at most
PROMPT_TOKENS = 512
PATCHES_PER_SECOND = 12.5
NOTES_SHOWN = 5


def longest_window(config: ModelConfig, piece: float) -> float:
    """Seconds of sound that fit the context together with their words."""
    per_second = (patch_count(int(piece * 16_000)) + 2) / piece + SPOKEN_TOKENS
    return max(piece, (config.context_length - PROMPT_TOKENS) / per_second)


def with_room(settings: Mapping[str, Any], window: float | None) -> dict[str, Any]:
    """Settings in which a window that runs away is stopped; those who reason are left alone."""
    bounded = window is not None and not settings.get("thinking") and "max_tokens" not in settings
    cap = {"max_tokens": int(window * SPOKEN_TOKENS) + ANSWER_RESERVE} if bounded and window else {}
    return {**cap, **settings}


def cutting(
    config: ModelConfig,
    kind: str,
    piece: float,
    *,
    window: float | None = TEXT_SECONDS,
    overlap: float = OVERLAP_SECONDS,
    limit: float | None = None,
) -> Cutting:
    """How recordings are cut for a kind of job: whole for a question, in windows for a transcript.
    window: None, or more than fits, becomes what fits the context."""
    if not KINDS[kind].spoken:
        return Cutting(piece, limit=limit, fits=config.context_length / PATCHES_PER_SECOND)
    fits = longest_window(config, piece)
    longest = fits if window is None else min(window, fits)
    return Cutting(min(piece, longest), longest, overlap, limit)


def transcript(outcome: Outcome, asking: Asking, model: str, rates: Sequence[float] = ()) -> Transcript:
    """The transcript of a recording that was heard. rates: words a minute of others of the same run."""
    recording = outcome.recording
    assert recording is not None
    segments = tuple(_segment(heard) for heard in outcome.heard)
    return Transcript(
        file=recording.item.path,
        model=model,
        task=asking.kind,
        language=asking.language,
        duration=recording.duration,
        silence_skipped=recording.silence_skipped,
        text=glue([segment.text for segment in segments]),
        segments=segments,
        notes=(*recording.notes, *thin(segments, rates), *cut_short(segments)),
    )


def _segment(heard: Heard) -> Segment:
    minutes = sum(end - start for start, end in heard.pieces) / 60
    return Segment(
        start=round(heard.pieces[0][0] + heard.overlap, 3),
        end=heard.pieces[-1][1],
        text=heard.text,
        pieces=heard.pieces,
        words_per_minute=count_words(heard.reply.answer) / max(minutes, 1e-9),
        finish_reason=heard.reply.finish_reason,
        thinking=heard.reply.thinking,
    )


def seconds_heard(segment: Segment) -> float:
    """Sound in a segment, its overlap included."""
    return sum(end - start for start, end in segment.pieces)


def judged_rates(segments: Sequence[Segment]) -> list[float]:
    """Words a minute of the segments that are long enough to say something."""
    return [s.words_per_minute for s in segments if seconds_heard(s) >= JUDGED_SECONDS]


def thin(segments: Sequence[Segment], rates: Sequence[float] = ()) -> list[str]:
    """Notes on segments with far fewer words than there is sound, or than others have."""
    own = judged_rates(segments)
    if not own:
        return []
    usual = median([*rates, *own])
    few = max(FEWEST_WORDS, SHARE_OF_MEDIAN * usual)
    return [
        f"{s.start:.0f}-{s.end:.0f} s: {s.words_per_minute:.0f} words a minute of sound (median {usual:.0f}): "
        "perhaps a summary, or no speech; try a shorter --chunk-duration"
        for s in segments
        if seconds_heard(s) >= JUDGED_SECONDS and s.words_per_minute < few
    ]


def cut_short(segments: Sequence[Segment]) -> list[str]:
    """Notes on segments whose text did not end by itself."""
    reasons = {"length": "cut at --max-tokens", "loop": "stopped because it repeated itself"}
    return [
        f"{s.start:.0f}-{s.end:.0f} s: the text was {reasons[s.finish_reason]}"
        for s in segments
        if s.finish_reason in reasons
    ]


def summary(done: Transcript, written: str = "") -> Iterator[str]:
    """What to say about a transcript: where it is, how dense, what was skipped, what is doubtful."""
    heard = sum(seconds_heard(segment) for segment in done.segments)
    words = count_words(done.text)
    parts = [f"{words} words"]
    if heard:
        parts.append(f"{words / heard * 60:.0f} a minute of sound")
        parts.append(f"{len(done.segments)} window{'s' if len(done.segments) > 1 else ''}")
    if done.silence_skipped >= 0.5:
        parts.append(f"{done.silence_skipped:.1f} s of silence skipped")
    yield f"{done.file}{f' -> {written}' if written else ''}: {', '.join(parts)}"
    for note in done.notes[:NOTES_SHOWN]:
        yield f"  {note}"
    if len(done.notes) > NOTES_SHOWN:
        yield f"  and {len(done.notes) - NOTES_SHOWN} more such notes; -f json has them all"
