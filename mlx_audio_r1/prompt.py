"""Messages -> prompt ids, byte for byte as the official server renders them.

A turn is `<|BOT|>{role}\\n{content}<|EOT|>`; the parts of a message are joined by a newline, except
after a sound, where the newline is dropped. The surprise: the published template never closes an
assistant turn of the history (`close_history` does), and the prompt ends inside the reasoning.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.reasoning import THINK_CLOSE, THINK_OPEN
from mlx_audio_r1.tokenizer import (
    AUDIO_END,
    AUDIO_PATCH,
    AUDIO_START,
    BEGIN_TURN,
    END_TURN,
    Tokenizer,
)

THINKING_TAIL = "<think>\n"
NO_THINKING_TAIL = "<think>\n\n</think>\n"
ROLES = {"user": "human"}  # written under another name; every other role under its own
DROPPED_ROLE = "function_output"  # the published template renders nothing for it
# The words of the MMAU example; the space before the first newline is theirs.
CHOICE_REQUEST = (
    "Please choose the answer from the following options, "
    "do not provide any additional explanations or content: \n"
)


@dataclass(frozen=True)
class AudioPart:
    """A sound in a message: anything `audio.read_chunks` opens, and the rate when it is an array."""

    source: Any
    sample_rate: int | None = None


@dataclass(frozen=True)
class Message:
    """One turn; a plain text may stand for its parts."""

    role: str
    parts: tuple[str | AudioPart, ...]

    def __post_init__(self) -> None:
        if isinstance(self.parts, str):
            object.__setattr__(self, "parts", (self.parts,))


@dataclass(frozen=True)
class Special:
    """A special token, by name."""

    name: str


Segment = str | Special | AudioPart


def user_message(audio: Sequence[AudioPart], text: str, text_first: bool = False) -> Message:
    """The sounds in order, then the question; the other way round with `text_first`."""
    words = (text,) if text else ()
    return Message("user", (*words, *audio) if text_first else (*audio, *words))


def multiple_choice(question: str, options: Sequence[str]) -> str:
    """The question with lettered options, in the words of the MMAU example."""
    if isinstance(options, str) or not 2 <= len(options) <= 26 or not all(options):
        raise PromptError(f"choices {options!r}: give 2 to 26, none of them empty, separated by |")
    lines = "".join(f"{chr(65 + i)}. {option}\n" for i, option in enumerate(options))
    return f"{question}\n{CHOICE_REQUEST}{lines}" if question else f"{CHOICE_REQUEST}{lines}"


def parse_messages(messages: Iterable[Mapping[str, Any] | Message]) -> list[Message]:
    """OpenAI messages -> Message. Parts may be `text`, `audio` (path, bytes, or array with
    `sample_rate`) and `input_audio` (base64). Raises PromptError naming message and part."""
    parsed = []
    for i, message in enumerate(messages):
        if isinstance(message, Message):
            parsed.append(message)
            continue
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise PromptError(f"message {i}: expected an object with role and content")
        parsed.append(Message(message["role"], tuple(_parse_content(message.get("content"), i))))
    if not parsed:
        raise PromptError("no messages: give at least one")
    return parsed


def _parse_content(content: Any, i: int) -> Iterator[str | AudioPart]:
    if content is None:
        return
    if isinstance(content, str):
        yield content
        return
    if not isinstance(content, Sequence):
        raise PromptError(f"message {i}: content is {type(content).__name__}, expected text or parts")
    for j, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _PART_READERS:
            raise PromptError(f"message {i} part {j}: type {kind!r}; known are {', '.join(_PART_READERS)}")
        try:
            yield _PART_READERS[kind](part)
        except (KeyError, TypeError, AttributeError):
            raise PromptError(f"message {i} part {j}: a {kind} part without its value") from None


def _read_text(part: Mapping[str, Any]) -> str:
    if not isinstance(part["text"], str):
        raise TypeError
    return part["text"]


def _read_audio(part: Mapping[str, Any]) -> AudioPart:
    if part["audio"] is None:
        raise TypeError
    return AudioPart(part["audio"], part.get("sample_rate"))


def _read_input_audio(part: Mapping[str, Any]) -> AudioPart:
    data = part["input_audio"]["data"]
    encoded = data.partition(",")[2] if data.startswith("data:") else data
    try:
        return AudioPart(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError) as error:
        raise PromptError(f"input_audio: the data is not base64 ({error})") from None


_PART_READERS = {"text": _read_text, "audio": _read_audio, "input_audio": _read_input_audio}


def audio_parts(messages: Iterable[Message]) -> list[AudioPart]:
    """Every sound of the prompt, in the order in which it will be spliced in."""
    return [
        part
        for message in messages
        if message.role != DROPPED_ROLE
        for part in message.parts
        if isinstance(part, AudioPart)
    ]


def render(
    messages: Sequence[Message],
    *,
    thinking: bool = True,
    prefill: str = "",
    close_history: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[Segment]:
    """Messages -> segments. A last assistant message is continued (`prefill` follows it); else the
    assistant's turn is opened, inside the reasoning or, without `thinking`, behind an empty one."""
    segments: list[Segment] = []
    rest = list(messages)
    if tools:
        segments += [Special(BEGIN_TURN), "system\n"]
        if rest and rest[0].role == "system":
            segments += [*_content(rest.pop(0)), Special(END_TURN)]
        schemas = json.dumps(list(tools), ensure_ascii=False)
        segments += [Special(BEGIN_TURN), f"tool_json_schemas\n{schemas}", Special(END_TURN)]
    for i, message in enumerate(rest):
        segments += _turn(message, closed=close_history and i < len(rest) - 1)
    if not rest or rest[-1].role != "assistant":
        tail = THINKING_TAIL if thinking else NO_THINKING_TAIL
        segments += [Special(BEGIN_TURN), f"assistant\n{tail}"]
    return _merge([*segments, prefill])


def _turn(message: Message, closed: bool) -> list[Segment]:
    if message.role == DROPPED_ROLE:
        return []
    head = [Special(BEGIN_TURN), f"{ROLES.get(message.role, message.role)}\n", *_content(message)]
    return head if message.role == "assistant" and not closed else [*head, Special(END_TURN)]


def _content(message: Message) -> Iterator[Segment]:
    for i, part in enumerate(message.parts):
        if i and isinstance(message.parts[i - 1], str):
            yield "\n"
        yield part


def _merge(segments: Iterable[Segment]) -> list[Segment]:
    """Neighbouring texts become one, so that they are tokenised as one."""
    merged: list[Segment] = []
    for segment in segments:
        if isinstance(segment, str) and merged and isinstance(merged[-1], str):
            merged[-1] += segment
        elif segment != "":
            merged.append(segment)
    return merged


def to_ids(
    segments: Sequence[Segment], patches: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> list[int]:
    """Segments -> ids; `patches` holds, for every sound, the patch count of each of its chunks."""
    special, counts = tokenizer.special, iter(patches)
    ids: list[int] = []
    for segment in segments:
        if isinstance(segment, str):
            ids += tokenizer.encode(segment)
        elif isinstance(segment, Special):
            ids.append(special[segment.name])
        else:
            for n in next(counts):
                ids += [special[AUDIO_START], *[special[AUDIO_PATCH]] * n, special[AUDIO_END]]
    return ids


def starts_in_thinking(segments: Sequence[Segment]) -> bool:
    """True when the reply continues an open reasoning."""
    last = segments[-1] if segments else ""
    if not isinstance(last, str):
        return False
    return last.rfind(THINK_OPEN) > last.rfind(THINK_CLOSE)
