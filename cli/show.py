"""A reply on the terminal: reasoning dim on stderr, answer on stdout, or one JSON object."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

NOTES = {  # finish_reason -> what to say on stderr
    "length": "the reply was cut: --max-tokens, or the end of the context",
    "budget": "the reasoning was closed at the thinking budget",
    "loop": "the model repeated itself and was stopped",
}

LONG_SECONDS = 300.0  # of sound in one context: beyond it a model tends to summarise


class ReplyPrinter:
    """Prints steps as they come and a closing line when something was cut."""

    def __init__(self, *, as_json: bool, hide_thinking: bool):
        self._as_json = as_json
        self._hide_thinking = hide_thinking
        self._last: str | None = None  # kind of the last text printed

    def step(self, kind: str, text: str) -> None:
        """One bit of the reply."""
        hidden = self._hide_thinking if kind == "thinking" else self._as_json
        if not text or hidden:
            return
        if kind == "answer" and self._last == "thinking":
            click.echo("\n", err=True)
        if kind == "thinking":
            click.secho(text, dim=True, err=True, nl=False)
        else:
            click.echo(text, nl=False)
        self._last = kind

    def finish(self, reply: Any, record: dict[str, Any]) -> None:
        """The end of the reply: its record as JSON, or the last newline and a note."""
        if self._last is not None:
            click.echo(err=self._last == "thinking")
        if self._as_json:
            click.echo(json.dumps(record, ensure_ascii=False))
        note = NOTES.get(reply.finish_reason)
        if not reply.answer:
            ended = "the model stopped inside its reasoning" if reply.thinking else "the model said nothing"
            note = f"no answer: {note or ended}; try --thinking-budget"
        if note:
            click.secho(f"[{note}]", dim=True, err=True)


def reply_record(reply: Any, files: list[str], model: str) -> dict[str, Any]:
    """The JSON object of one reply (the keys of the batch format)."""
    from mlx_audio_r1.jobs.records import reply_fields

    return {
        "files": files,
        "duration": round(reply.audio_seconds, 3),
        **reply_fields(reply),
        "model": model,
    }


def show_timings(reply: Any) -> None:
    """Counts and speeds, on stderr."""
    u, t = reply.usage, reply.timings
    written = u.reasoning_tokens + u.answer_tokens
    click.secho(
        f"[{reply.audio_seconds:.1f} s of sound in {t.encode:.2f} s; "
        f"{u.prompt_tokens} prompt tokens in {t.prefill:.2f} s; "
        f"{u.reasoning_tokens} + {u.answer_tokens} tokens at {written / max(t.decode, 1e-9):.0f} a second]",
        dim=True, err=True,
    )


def show_pieces(heard: Any, longest: float) -> None:
    """How long sounds were split, on stderr."""
    pieces = sum(len(sound) for sound in heard.patches)
    if pieces == len(heard.patches):
        return
    words = "; for every word of it: audio-r1 transcribe" if heard.seconds > LONG_SECONDS else ""
    click.secho(
        f"[{heard.seconds:.1f} s of sound, heard at once in {pieces} pieces of at most {longest:g} s{words}]",
        dim=True, err=True,
    )


def prefill_progress(done: int, total: int) -> None:
    """Prompt tokens read so far; on a terminal only, and only when it takes several steps."""
    if not sys.stderr.isatty() or total < 4096:
        return
    click.echo(f"\rreading the prompt: {done}/{total} tokens" if done < total else "\r\x1b[K",
               err=True, nl=False)
