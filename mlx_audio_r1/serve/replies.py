"""Replies in OpenAI's words: completions, chunks of a stream, usage."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.generate import Step
from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.serve.rows import Done

BETWEEN = f"\n{THINK_CLOSE}\n\n"  # where reasoning and answer share one text


def to_json(value: Any) -> bytes:
    """UTF-8 JSON; half a surrogate pair is written as its escape."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Style:
    """How reasoning is told: in fields of its own, inside the content, or not at all."""

    separate: bool = True
    include: bool = True


@dataclass
class Choice:
    """One of the n replies, while it grows."""

    index: int
    style: Style
    thinking: str = ""
    answer: str = ""
    done: Done | None = None
    _crossed: bool = field(default=False, repr=False)

    def push(self, step: Step) -> dict[str, Any] | None:
        """Take a step in and give the delta a stream sends for it, if any."""
        if step.kind == "thinking":
            self.thinking += step.text
            if not self.style.include:
                return None
            if self.style.separate:
                return {"reasoning": step.text, "reasoning_content": step.text}
            return {"content": step.text}
        self.answer += step.text
        return {"content": self._closing() + step.text}

    def _closing(self) -> str:
        first, self._crossed = not self._crossed, True
        inline = self.style.include and not self.style.separate
        return BETWEEN if first and inline and self.thinking else ""

    def message(self) -> dict[str, Any]:
        """The message of a completion that is not streamed."""
        content, reasoning = self.answer, None
        if self.style.include and self.thinking:
            if self.style.separate:
                reasoning = self.thinking
            else:
                content = self.thinking + (BETWEEN + self.answer if self.answer else "")
        return {"role": "assistant", "content": content, "refusal": None,
                "reasoning": reasoning, "reasoning_content": reasoning}

    def ending(self) -> dict[str, Any]:
        """Why it ended."""
        if self.done is None:
            return {"finish_reason": None, "stop_reason": None}
        return {"finish_reason": self.done.finish_reason, "stop_reason": self.done.stop_reason}


class Completion:
    """The n choices of one request, streamed or whole."""

    def __init__(self, model: str, n: int, style: Style, include_usage: bool = False):
        self.choices = [Choice(i, style) for i in range(n)]
        self._include_usage = include_usage
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self) -> dict[str, Any]:
        """chat.completion."""
        choices = [
            {"index": c.index, "message": c.message(), "logprobs": None, **c.ending()} for c in self.choices
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(self._done())}

    def opening(self) -> list[dict[str, Any]]:
        """The first chunk of every choice."""
        return [self._chunk(c, {"role": "assistant", "content": ""}) for c in self.choices]

    def chunk(self, index: int, step: Step) -> dict[str, Any] | None:
        """The chunk for a step, if it has one."""
        delta = self.choices[index].push(step)
        return None if delta is None else self._chunk(self.choices[index], delta)

    def closing(self, index: int, done: Done) -> dict[str, Any]:
        """The last chunk of a choice."""
        self.choices[index].done = done
        return self._chunk(self.choices[index], {})

    def usage_chunk(self) -> list[dict[str, Any]]:
        """What comes after all choices, when it was asked for."""
        if not self._include_usage:
            return []
        return [{**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(self._done())}]

    def _chunk(self, choice: Choice, delta: dict[str, Any]) -> dict[str, Any]:
        entry = {"index": choice.index, "delta": delta, "logprobs": None, **choice.ending()}
        rest = {"usage": None} if self._include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [entry], **rest}

    def _done(self) -> list[Done]:
        return [c.done for c in self.choices if c.done is not None]


def usage(done: Sequence[Done]) -> dict[str, Any]:
    """Tokens of all choices; the prompt is counted once."""
    first = done[0]
    reasoning = sum(d.reasoning_tokens for d in done)
    written = reasoning + sum(d.answer_tokens for d in done)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": first.prompt_tokens + written,
        "prompt_tokens_details": {"audio_tokens": first.audio_tokens, "cached_tokens": first.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }
