"""What is asked about a recording: the kinds of job, their words, and how they decode by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.prompt import AudioPart, Message, multiple_choice, user_message


@dataclass(frozen=True)
class Kind:
    """words: the request, when no other is given. spoken: its answer is a transcript, so recordings are
    heard in windows. defaults: fields of `Settings` that differ from the checkpoint's own."""

    words: str
    spoken: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


# The wording is ours: the authors publish none for transcripts. They suggest none of the reasoning there.
_LITERAL = {"temperature": 0.0, "thinking": False}
_CAPTION = {"max_tokens": 1_024, "temperature": 0.5, "top_p": 0.9}
KINDS: Mapping[str, Kind] = {
    "ask": Kind(""),
    "caption": Kind("Describe what you hear.", defaults=_CAPTION),
    "transcribe": Kind("Transcribe the speech word for word. Write only the words that are spoken.",
                       True, _LITERAL),
    "translate": Kind("Translate the speech into English. Write only the translation.", True, _LITERAL),
}


@dataclass(frozen=True)
class Asking:
    """One request for many recordings. settings: fields of `Settings` that were given."""

    kind: str = "ask"
    prompt: str = ""
    system_prompt: str | None = None
    choices: Sequence[str] | None = None
    language: str | None = None
    context: str | None = None
    prefill: str = ""
    num_samples: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PromptError(f"task {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.choices and KINDS[self.kind].spoken:
            raise PromptError(f"choices do not go with the task {self.kind}")

    def text(self, prompt: str | None = None) -> str:
        """The question as it is asked, for a recording that may bring its own."""
        words = prompt or self.prompt or KINDS[self.kind].words
        if self.language:
            words += f" The language is {self.language}."
        if self.context:
            words += f" For context: {self.context}"
        return multiple_choice(words, self.choices) if self.choices else words

    def messages(self, waveforms: Sequence[Any], prompt: str | None = None) -> list[Message]:
        """The messages for one clip; each of its pieces is a sound of its own, as the authors' client
        sends them."""
        system = [Message("system", (self.system_prompt,))] if self.system_prompt else []
        return [*system, user_message([AudioPart(w, 16_000) for w in waveforms], self.text(prompt))]

    def options(self) -> dict[str, Any]:
        """Fields of `Settings`."""
        return {**KINDS[self.kind].defaults, **self.settings}
