"""A transcript -> txt, srt, vtt, tsv or json, byte for byte in mlx_whisper's layout.

The times are those of the stretches the model heard, to the frame; nothing is known about single words,
and nothing is made up. JSON says so: "times": "pieces".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Segment:
    """What was said between two times (seconds); `pieces` are the stretches that were heard."""

    start: float
    end: float
    text: str
    pieces: Spans
    words_per_minute: float
    finish_reason: str
    thinking: str = ""


@dataclass(frozen=True)
class Transcript:
    """Everything known about one recording. Seconds throughout."""

    file: str
    model: str
    task: str
    language: str | None
    duration: float
    silence_skipped: float
    text: str
    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()


def txt(transcript: Transcript) -> str:
    """The text, a line for each segment."""
    return "".join(f"{' '.join(s.text.split())}\n" for s in _spoken(transcript))


def srt(transcript: Transcript) -> str:
    """SubRip."""
    return "".join(
        f"{i}\n{clock(s.start, ',', True)} --> {clock(s.end, ',', True)}\n{_cue(s.text)}\n\n"
        for i, s in enumerate(_spoken(transcript), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(s.start)} --> {clock(s.end)}\n{_cue(s.text)}\n\n" for s in _spoken(transcript)
    )


def tsv(transcript: Transcript) -> str:
    """Start and end in milliseconds, and the text, with a header line."""
    return "start\tend\ttext\n" + "".join(
        f"{round(s.start * 1000)}\t{round(s.end * 1000)}\t{' '.join(s.text.split())}\n"
        for s in _spoken(transcript)
    )


def as_json(transcript: Transcript) -> str:
    """One object: `text`, `segments` and `language` as mlx_whisper has them, and what else is known."""
    return json.dumps(as_record(transcript), ensure_ascii=False, indent=2) + "\n"


def as_record(transcript: Transcript) -> dict[str, Any]:
    """The object that `as_json` writes."""
    return {
        "text": transcript.text,
        "language": transcript.language,
        "task": transcript.task,
        "file": transcript.file,
        "model": transcript.model,
        "duration": round(transcript.duration, 3),
        "silence_skipped": round(transcript.silence_skipped, 2),
        "times": "pieces",
        "notes": list(transcript.notes),
        "segments": [_segment_record(i, s) for i, s in enumerate(transcript.segments)],
    }


def _segment_record(i: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": i,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "pieces": [{"start": start, "end": end} for start, end in segment.pieces],
        "words_per_minute": round(segment.words_per_minute, 1),
        "finish_reason": segment.finish_reason,
        **({"think": segment.thinking} if segment.thinking else {}),
    }


def clock(seconds: float, mark: str = ".", hours_always: bool = False) -> str:
    """Seconds -> [hh:]mm:ss.mmm."""
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    front = f"{hours:02d}:" if hours or hours_always else ""
    return f"{front}{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _spoken(transcript: Transcript) -> list[Segment]:
    return [segment for segment in transcript.segments if segment.text.strip()]


def _cue(text: str) -> str:
    """A blank line or an arrow would end the cue."""
    return re.sub(r"\n\s*\n", "\n", text.strip().replace("\r", "")).replace("-->", "->")


WRITERS: Mapping[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "vtt": vtt,
    "srt": srt,
    "tsv": tsv,
    "json": as_json,
}
