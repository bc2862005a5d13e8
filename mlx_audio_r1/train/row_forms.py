"""The spellings of a row -> Row: ms-swift and LLaMA-Factory, OpenAI's parts, prompt/chosen/rejected.

Spellings are tables below. The surprise: a newline directly in front of an `<audio>` mark is the one that
the prompt writes there anyway, so it is not doubled; everything else of a text stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.prompt import AudioPart, Message, audio_parts, parse_messages
from mlx_audio_r1.reasoning import THINK_CLOSE, THINK_OPEN
from mlx_audio_r1.train.replies import thinking_and_answer, with_reasoning

MARK = "<audio>"
MESSAGES, SOUNDS = ("messages", "conversations"), ("audios", "audio", "audio_path", "audio_paths")
REJECTED, COMPLETION = ("rejected_response", "rejected"), ("completion", "response")
ROLE, CONTENT, REASONING = ("role", "from"), ("content", "value"), ("reasoning_content", "reasoning")
ROLES = {  # spelling -> the role as prompt.render takes it
    "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "tool": "tool", "observation": "tool",
}  # fmt: skip
FOREIGN = {  # key of a row -> why a row that has it is refused, where ignoring it would change its meaning
    "images": "pictures are not seen", "image": "pictures are not seen", "videos": "films are not seen",
    "video": "films are not seen", "rejected_messages": "give the rejected reply as rejected_response",
    "rejected_audios": "both replies must be about the same sounds",
}  # fmt: skip
FOREIGN_IN_MESSAGE = {
    "tool_calls": "write the call into the content", "function_call": "write the call into the content",
    "audio": "put the path into the row's audios", "audios": "put the paths into the row's audios",
    "images": "pictures are not seen", "videos": "films are not seen", "weight": "call it loss_scale",
}  # fmt: skip
FORMS = '{"messages": [...], "audios": [...]} or {"prompt": ..., "chosen": ..., "rejected": ...}'


class Wrong(Exception):
    """What is wrong with a row: a kind of `rows.Fault`, and words that follow its place."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Turn:
    """A message, and how much its tokens weigh in the loss: None where the row does not say."""

    message: Message
    loss: float | None = None

    @property
    def role(self) -> str:
        return self.message.role

    @property
    def text(self) -> str:
        """Its texts, joined as the prompt joins them."""
        return "\n".join(part for part in self.message.parts if isinstance(part, str))


@dataclass(frozen=True)
class Row:
    """One line of a file: turns in order, and what else stood in it.

    kind: `sft` when the last turn is the assistant's, `preference` when there is a rejected reply beside
    it, `prompt` when nobody has answered yet (for RL). where: file:line, for errors.
    """

    where: str
    turns: tuple[Turn, ...]
    rejected: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        if self.rejected is not None:
            return "preference"
        return "sft" if self.turns[-1].role == "assistant" else "prompt"

    @property
    def name(self) -> str:
        """train.jsonl:12"""
        return os.path.basename(self.where)

    @property
    def answered(self) -> bool:
        return self.kind != "prompt"

    @property
    def history(self) -> tuple[Turn, ...]:
        """What stands before the reply that is learnt."""
        return self.turns[:-1] if self.answered else self.turns

    @property
    def reply(self) -> str | None:
        """The assistant's last turn; of a preference the chosen one."""
        return self.turns[-1].text if self.answered else None

    @property
    def sounds(self) -> list[AudioPart]:
        """In the order in which the prompt has them."""
        return audio_parts(turn.message for turn in self.history)

    @property
    def solution(self) -> Any:
        """What a reply is scored against: the column `solution`, or `answer`."""
        return self.columns.get("solution", self.columns.get("answer"))

    @property
    def problem_type(self) -> Any:
        return self.columns.get("problem_type", self.columns.get("type"))


def parse_row(data: Mapping[str, Any], where: str, folder: str) -> Row:
    """One JSON object -> Row. Relative paths count from `folder`. Raises Wrong."""
    columns = {key: value for key, value in data.items() if value is not None}
    _refuse(columns, FOREIGN, "")
    sounds = _sounds(_take(columns, SOUNDS))
    raw, rejected = _conversation(columns)
    turns = _turns(raw)
    turns = [replace(t, message=_resolved(t.message, folder)) for t in _place(turns, sounds)]
    row = Row(where, tuple(turns), rejected, _tools(columns), columns)
    _check(row)
    return row


# The conversation: which spelling


def _take(columns: dict[str, Any], names: Sequence[str]) -> Any:
    """Take the value under one of `names` out of `columns`; None when there is none."""
    found = [name for name in names if name in columns]
    if len(found) > 1:
        raise Wrong("form", f"has {found[0]} and {found[1]}, which mean the same: keep one")
    return columns.pop(found[0]) if found else None


def _refuse(given: Mapping[str, Any], table: Mapping[str, str], where: str) -> None:
    for key, why in table.items():
        if given.get(key):
            raise Wrong("form", f"{where}{key}: {why}")


def _conversation(columns: dict[str, Any]) -> tuple[list[Any], str | None]:
    """(messages as they are, rejected reply); what was used is taken out of `columns`."""
    messages, prompt = _take(columns, MESSAGES), columns.pop("prompt", None)
    if messages is not None and prompt is not None:
        raise Wrong("form", "has messages and a prompt: keep one")
    if messages is None and prompt is None:
        raise Wrong("form", f"has neither messages nor a prompt; a row looks like {FORMS}")
    if prompt is not None:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        completion = _take(columns, COMPLETION)
    else:
        completion = None
    if not isinstance(messages, list) or not messages:
        raise Wrong("form", f"messages are {_shown(messages)}, expected a list with at least one")
    system = columns.pop("system", None)
    head = [{"role": "system", "content": system}] if system else []
    first = messages[0] if isinstance(messages[0], Mapping) else {}
    if head and "system" in (first.get("role"), first.get("from")):
        raise Wrong("form", "has a system column and a system message: keep one")
    return _with_replies([*head, *messages], completion, columns)


def _with_replies(
    messages: list[Any], completion: Any, columns: dict[str, Any]
) -> tuple[list[Any], str | None]:
    """Add a reply that stands in a column of its own, and read the rejected one."""
    chosen, rejected = columns.pop("chosen", None), _take(columns, REJECTED)
    if completion is not None and chosen is not None:
        raise Wrong("form", "has chosen and a completion: keep one")
    if chosen is not None and rejected is None:
        raise Wrong("form", "has chosen but nothing rejected; leave chosen out or give both")
    own = chosen if chosen is not None else completion
    if own is not None:
        messages = [*messages, {"role": "assistant", "content": _reply(own)}]
    return messages, None if rejected is None else _reply(rejected)


def _reply(value: Any) -> str:
    """A reply as text, as a message, or as a list of one message."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        turn = _turns([value])[0]
        if turn.role != "assistant":
            raise Wrong("form", f"a reply has the role {turn.role}, expected assistant")
        return turn.text
    if not isinstance(value, str):
        raise Wrong("form", f"a reply is {_shown(value)}, expected text or one assistant message")
    return _text(value)


def _tools(columns: dict[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The schemas of `tools`: a list, or a list written as text."""
    tools = columns.pop("tools", None)
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise Wrong("form", "tools is text that is not JSON") from None
    tools = tools or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Wrong("form", "tools is not a list of objects")
    return tuple(tools)


# Messages


def _turns(raw: Sequence[Any]) -> list[Turn]:
    messages = [_plain(message, i) for i, message in enumerate(raw)]
    try:
        parsed = parse_messages([plain for plain, _ in messages])
    except PromptError as error:
        raise Wrong("form", str(error)) from None
    return [Turn(message, loss) for message, (_, loss) in zip(parsed, messages, strict=True)]


def _plain(message: Any, i: int) -> tuple[dict[str, Any], float | None]:
    """A message under OpenAI's keys, and its loss weight."""
    at = f"message {i}"
    if not isinstance(message, Mapping):
        raise Wrong("form", f"{at} is {_shown(message)}, expected an object with role and content")
    given = {key: value for key, value in message.items() if value is not None}
    _refuse(given, FOREIGN_IN_MESSAGE, f"{at}: ")
    spelled, content = _take(given, ROLE), _take(given, CONTENT)
    role = ROLES.get(spelled) if isinstance(spelled, str) else None
    if role is None:
        raise Wrong("form", f"{at}: role {_shown(spelled)}; known are {', '.join(ROLES)}")
    if content is None and role != "assistant":
        raise Wrong("form", f"{at}: no content")
    content = _with_own_reasoning(content, _take(given, REASONING), role, at)
    return {"role": role, "content": _as_parts(content)}, _loss(given, role, at)


def _with_own_reasoning(content: Any, reasoning: Any, role: str, at: str) -> Any:
    """Reasoning that has a field of its own, put in front of the content."""
    if not reasoning:
        return content
    if role != "assistant" or not isinstance(reasoning, str) or not isinstance(content, str):
        raise Wrong("form", f"{at}: reasoning goes with an assistant's message, as text beside text")
    if THINK_CLOSE in content or THINK_OPEN in content:
        raise Wrong("form", f"{at}: has reasoning twice, in its own field and in the content: keep one")
    return with_reasoning(reasoning, content)


def _as_parts(content: Any) -> Any:
    """Texts checked; a sound without a source stands for the next of the row's sounds, like a mark."""
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list):
        return content
    return [_as_part(part) for part in content]


def _as_part(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return {"type": "text", "text": _text(part)} if isinstance(part, str) else part
    if part.get("type") == "audio" and part.get("audio") is None:
        path = part.get("path")  # transformers' spelling
        return {"type": "text", "text": MARK} if path is None else {"type": "audio", "audio": path}
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        _text(part["text"])
    return part


def _loss(given: Mapping[str, Any], role: str, at: str) -> float | None:
    """`loss` and `loss_scale` -> one weight."""
    flag, scale = given.get("loss"), given.get("loss_scale")
    if flag is not None and flag not in (True, False):
        raise Wrong("form", f"{at}: loss is {_shown(flag)}, expected true or false")
    if scale is not None and not _is_weight(scale):
        raise Wrong("form", f"{at}: loss_scale is {_shown(scale)}, expected a number from 0 up")
    if flag is None and scale is None:
        return None
    weight = 0.0 if flag is False or flag == 0 else 1.0 if scale is None else float(scale)
    if weight and role != "assistant":
        raise Wrong("form", f"{at}: a {role}'s turn is not learnt by itself; take its loss away")
    return weight


def _is_weight(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong("form", "a text has half a character (a lone surrogate): write it as UTF-8 again") from None
    return text


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:50]}..."


# Sounds


def _sounds(given: Any) -> list[AudioPart]:
    values = [] if given is None else given if isinstance(given, list) else [given]
    return [AudioPart(value["path"] if _is_hub_audio(value) else value) for value in values]


def _is_hub_audio(value: Any) -> bool:
    """{"path": ..., "bytes": null}, as `datasets` writes a sound."""
    return isinstance(value, Mapping) and isinstance(value.get("path"), str) and value.get("bytes") is None


def _place(turns: list[Turn], sounds: list[AudioPart]) -> list[Turn]:
    """Put the sounds where the marks stand; a mark in an assistant's turn is text."""
    left = iter(sounds)
    marks = sum(part.count(MARK) for turn in turns for part in _marked(turn))
    if marks != len(sounds):
        told = sum(turn.text.count(MARK) for turn in turns if turn.role == "assistant")
        hint = f" ({told} more in the assistant's words, where it is text)" if told else ""
        raise Wrong("marks", f"{len(sounds)} sounds in audios but {marks} {MARK} marks{hint}: one mark a sound")
    return [turn if turn.role == "assistant" else _with_sounds(turn, left) for turn in turns]


def _marked(turn: Turn) -> list[str]:
    return [] if turn.role == "assistant" else [part for part in turn.message.parts if isinstance(part, str)]


def _with_sounds(turn: Turn, sounds: Any) -> Turn:
    parts: list[str | AudioPart] = []
    for part in turn.message.parts:
        if not isinstance(part, str) or MARK not in part:
            parts.append(part)
            continue
        *before, last = part.split(MARK)
        for text in before:
            parts += [text.removesuffix("\n"), next(sounds)]
        parts.append(last)
    kept = tuple(part for part in parts if part != "")
    return replace(turn, message=Message(turn.role, kept))


def _resolved(message: Message, folder: str) -> Message:
    parts = tuple(_source(p, folder) if isinstance(p, AudioPart) else p for p in message.parts)
    return Message(message.role, parts)


def _source(part: AudioPart, folder: str) -> AudioPart:
    """A path counts from `folder`; a data URI is decoded."""
    source = part.source
    if isinstance(source, bytes):
        return part
    if not isinstance(source, str) or not source:
        raise Wrong("form", f"a sound is {_shown(source)}, expected a path")
    if source.startswith("data:"):
        try:
            return AudioPart(base64.b64decode(source.partition(",")[2], validate=True))
        except (binascii.Error, ValueError):
            raise Wrong("form", "a sound's data URI is not base64") from None
    return AudioPart(source if "://" in source else os.path.join(folder or ".", source), part.sample_rate)


# What a row must be


def _check(row: Row) -> None:
    for i, turn in enumerate(row.turns):
        if turn.role == "assistant" and any(isinstance(p, AudioPart) for p in turn.message.parts):
            raise Wrong("form", f"message {i}: a sound in an assistant's turn; the model writes text alone")
        if turn.role == "user" and not any(turn.message.parts):
            raise Wrong("empty", f"message {i}: a user's turn without words or sound")
    if row.rejected is not None and row.turns[-1].role != "assistant":
        raise Wrong("form", "has a rejected reply but no chosen one: add the assistant's turn")
    if all(turn.role in ("assistant", "system") for turn in row.turns):
        raise Wrong("form", "nobody asks anything: add a user's turn")
    if row.answered:
        _check_replies(row)


def _check_replies(row: Row) -> None:
    if row.history[-1].role == "assistant":
        raise Wrong("form", "ends in two assistant's turns: join them, or put a user's turn between")
    named = {"answer": row.reply} if row.rejected is None else {"chosen reply": row.reply,
                                                                "rejected reply": row.rejected}
    for name, reply in named.items():
        thinking, answer = thinking_and_answer(reply or "")
        if not answer:
            why = f"nothing behind its reasoning (is {THINK_CLOSE} missing?)" if thinking else "it is empty"
            raise Wrong("empty", f"the {name} cannot be learnt: {why}")
    if row.rejected is not None and (
        any(turn.loss for turn in row.turns[:-1]) or row.turns[-1].loss not in (None, 1.0)
    ):
        raise Wrong("form", "loss and loss_scale mean nothing in a preference: take them away")
