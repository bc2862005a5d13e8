"""/v1/audio/transcriptions: a form -> pieces to transcribe -> json, text, verbose_json, srt or vtt.

The times are those of the pieces the encoder gets, to the sample; nothing is known about single words
and nothing is made up, so `timestamp_granularities` can be `segment` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.audio import Chunk
from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.prompt import NO_THINKING_TAIL, THINKING_TAIL, AudioPart, Message
from mlx_audio_r1.serve.fields import Reader, boolean, integer, number, read_fields, text, wrong
from mlx_audio_r1.serve.problems import Problem, unsupported
from mlx_audio_r1.serve.replies import to_json
from mlx_audio_r1.serve.rows import Done

REQUEST = "Transcribe the speech word for word. Write only the words that are spoken."
MAX_TEXT = 2_000  # characters of prompt and language


@dataclass(frozen=True)
class Segment:
    """One piece: seconds in the file, and what was said in it."""

    start: float
    end: float
    text: str
    done: Done


@dataclass(frozen=True)
class TranscriptionRequest:
    """The fields beside the file."""

    response_format: str
    language: str | None
    prompt: str
    settings: dict[str, Any]


def _choice(*names: str) -> Reader:
    def read(value: Any, name: str) -> str:
        if value not in names:
            raise wrong(name, value, "one of " + ", ".join(names))
        return str(value)

    return read


def _short(value: Any, name: str) -> str:
    given: str = text(value, name)
    if len(given) > MAX_TEXT:
        raise wrong(name, given, f"at most {MAX_TEXT} characters")
    return given


def _parsed(read: Reader, parse: Callable[[str], Any], expected: str) -> Reader:
    """A reader of a form field, where everything is text."""

    def read_text(value: Any, name: str) -> Any:
        try:
            return read(parse(value), name)
        except ValueError:
            raise wrong(name, value, expected) from None

    return read_text


def _truth(value: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[value.lower()]


def _boolean(value: Any, name: str) -> bool:
    try:
        return bool(boolean(_truth(value), name))
    except KeyError:
        raise wrong(name, value, "true or false") from None


def _no_stream(value: Any, name: str) -> bool:
    if _boolean(value, name):
        raise unsupported(name, "send false; a transcript comes when it is whole")
    return False


def _segment_only(value: Any, name: str) -> str:
    if value != "segment":
        raise unsupported(name, "send segment; the model gives no times of words")
    return str(value)


FIELDS: dict[str, Reader] = {
    "model": text,
    "language": _short,
    "prompt": _short,
    "response_format": _choice("json", "text", "verbose_json", "srt", "vtt"),
    "temperature": _parsed(number(0, 10), float, "a number"),
    "seed": _parsed(integer(0, 2**64 - 1), int, "a whole number"),
    "max_tokens": _parsed(integer(1, 10_000_000), int, "a whole number"),
    "thinking_budget": _parsed(integer(0, 10_000_000), int, "a whole number"),
    "enable_thinking": _boolean,
    "stream": _no_stream,
    "timestamp_granularities": _segment_only,
    "timestamp_granularities[]": _segment_only,
    "chunking_strategy": _choice("auto"),
    "user": text,
}
SETTINGS = ("temperature", "seed", "max_tokens", "thinking_budget")


def parse_transcription(form: Mapping[str, str]) -> TranscriptionRequest:
    """Form fields (the file aside) -> request. Raises Problem naming the field."""
    given = read_fields({name: value for name, value in form.items() if value != ""}, FIELDS)
    settings = {name: given[name] for name in SETTINGS if name in given}
    return TranscriptionRequest(
        response_format=given.get("response_format", "json"),
        language=given.get("language"),
        prompt=given.get("prompt", ""),
        settings={"temperature": 0.0, "thinking": given.get("enable_thinking", False), **settings},
    )


def messages_for(chunk: Chunk, request: TranscriptionRequest) -> tuple[Message, ...]:
    """What is asked about one piece."""
    words = [REQUEST]
    if request.language:
        words.append(f"The language is {request.language}.")
    if request.prompt:
        words.append(f"Context: {request.prompt}")
    tail = THINKING_TAIL if request.settings["thinking"] else NO_THINKING_TAIL
    sound = AudioPart(chunk.waveform, SAMPLE_RATE)
    return Message("user", (sound, " ".join(words))), Message("assistant", (tail,))


def _json(segments: Sequence[Segment], request: TranscriptionRequest) -> bytes:
    read = sum(s.done.prompt_tokens for s in segments)
    heard = sum(s.done.audio_tokens for s in segments)
    written = sum(s.done.reasoning_tokens + s.done.answer_tokens for s in segments)
    usage = {"type": "tokens", "input_tokens": read, "output_tokens": written, "total_tokens": read + written,
             "input_token_details": {"audio_tokens": heard, "text_tokens": read - heard}}
    return to_json({"text": _text_of(segments), "usage": usage})


def _verbose(segments: Sequence[Segment], request: TranscriptionRequest) -> bytes:
    rows = [{"id": i, "start": s.start, "end": s.end, "text": s.text} for i, s in enumerate(segments)]
    return to_json({
        "task": "transcribe", "language": request.language, "duration": segments[-1].end,
        "text": _text_of(segments), "segments": rows, "times": "pieces",
    })


def _plain(segments: Sequence[Segment], request: TranscriptionRequest) -> bytes:
    return f"{_text_of(segments)}\n".encode()


def _srt(segments: Sequence[Segment], request: TranscriptionRequest) -> bytes:
    cues = [
        f"{i}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{_cue(s.text)}\n\n"
        for i, s in enumerate(segments, 1)
    ]
    return "".join(cues).encode()


def _vtt(segments: Sequence[Segment], request: TranscriptionRequest) -> bytes:
    cues = [f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{_cue(s.text)}\n\n" for s in segments]
    return ("WEBVTT\n\n" + "".join(cues)).encode()


WRITERS: dict[str, tuple[str, Callable[[Sequence[Segment], TranscriptionRequest], bytes]]] = {
    "json": ("application/json", _json),
    "verbose_json": ("application/json", _verbose),
    "text": ("text/plain; charset=utf-8", _plain),
    "srt": ("application/x-subrip; charset=utf-8", _srt),
    "vtt": ("text/vtt; charset=utf-8", _vtt),
}


def _text_of(segments: Sequence[Segment]) -> str:
    return " ".join(s.text for s in segments if s.text)


def _cue(words: str) -> str:
    """A cue is one block: a blank line, or an arrow, would end or change it."""
    lines = [line for line in words.splitlines() if line.strip()]
    return "\n".join(lines).replace("-->", "->")


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1_000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1_000:02d}{mark}{milliseconds % 1_000:03d}"


def missing_file() -> Problem:
    """A form without its one file."""
    return Problem("file is missing: send the sound as the form field file, with a filename",
                   param="file", code="missing_parameter")
