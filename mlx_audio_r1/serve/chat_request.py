"""The body of /v1/chat/completions -> a request in our words, every field accounted for.

A field is read, or accepted because it changes nothing here, or refused by name; none is dropped in
silence. Beside OpenAI's fields stand those that vLLM, SGLang and StepFun's own client send. The
surprise: that client ends its messages with an unfinished assistant turn, `<think>\\n`, to be continued.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_audio_r1.prompt import NO_THINKING_TAIL, THINKING_TAIL, starts_in_thinking
from mlx_audio_r1.serve.fields import (
    Reader,
    anything,
    boolean,
    integer,
    list_of,
    mapping,
    number,
    only,
    read_fields,
    text,
    wrong,
)
from mlx_audio_r1.serve.media import (
    MediaLimits,
    Sound,
    read_audio_url,
    read_input_audio,
    read_reference,
    too_large,
)
from mlx_audio_r1.serve.problems import Problem, shown, unsupported

MAX_CHOICES = 16
MAX_MESSAGES = 2_000
MAX_PARTS = 2_000
MAX_STOPS = 16
OFFICIAL_END_TURN = 151_665  # what StepFun's client sends, whatever the vocabulary of the checkpoint
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}


def read_stop(value: Any, name: str) -> list[str]:
    """One stop string or several."""
    stops = list_of(text, MAX_STOPS)([value] if isinstance(value, str) else value, name)
    if "" in stops:
        raise wrong(name, value, "stop strings that are not empty")
    return stops


def read_effort(value: Any, name: str) -> bool:
    """reasoning_effort "none" switches reasoning off; how much there is, thinking_budget says."""
    if value != "none":
        raise unsupported(name, 'send "none", or thinking_budget in tokens')
    return False


def read_template_arguments(value: Any, name: str) -> dict[str, Any]:
    """chat_template_kwargs: whether to think."""
    readers = {"enable_thinking": boolean, "thinking": boolean}
    return read_fields(mapping(value, name), readers, f"{name}.")


def read_stream_options(value: Any, name: str) -> dict[str, Any]:
    """stream_options: usage at the end."""
    readers = {"include_usage": boolean, "include_obfuscation": anything}
    return read_fields(mapping(value, name), readers, f"{name}.")


SETTINGS: dict[str, Reader] = {  # fields of generate.Settings under their own names
    "max_tokens": integer(1, 10_000_000),
    "temperature": number(0, 10),
    "top_p": number(0, 1, above=True),
    "top_k": integer(-1, 10_000_000),
    "min_p": number(0, 1),
    "repetition_penalty": number(0.01, 10),
    "seed": integer(-(2**63), 2**64 - 1),
    "thinking_budget": integer(0, 10_000_000),
}
OURS: dict[str, Reader] = {
    "messages": list_of(mapping, MAX_MESSAGES),
    "max_completion_tokens": SETTINGS["max_tokens"],
    "n": integer(1, MAX_CHOICES),
    "stop": read_stop,
    "stop_token_ids": list_of(integer(0, 10_000_000), 64),
    "stream": boolean,
    "stream_options": read_stream_options,
    "response_format": mapping,
    "enable_thinking": boolean,
    "reasoning_effort": read_effort,
    "chat_template_kwargs": read_template_arguments,
    "continue_final_message": boolean,
    "add_generation_prompt": boolean,
    "separate_reasoning": boolean,  # SGLang's: false leaves `...</think>` in the content
    "include_reasoning": boolean,  # vLLM's: false leaves the reasoning out
}
HARMLESS: dict[str, Reader] = {  # accepted: they change nothing about the reply
    "model": text,  # one model is served, whatever it is called
    "user": anything,
    "metadata": anything,
    "safety_identifier": anything,
    "prompt_cache_key": anything,
    "prompt_cache_retention": anything,
    "skip_special_tokens": boolean,  # the tokens that end a reply are never in its text
    "spaces_between_special_tokens": boolean,
    "store": only(False),
    "service_tier": only("auto", "default"),
    "modalities": only(["text"]),
    "logprobs": only(False),
    "top_logprobs": only(0),
    "logit_bias": only({}),
    "presence_penalty": number(0, 0),
    "frequency_penalty": number(0, 0),
    "tools": only([]),
    "tool_choice": only("none", "auto"),
    "parallel_tool_calls": boolean,
    "functions": only([]),
    "best_of": only(1),
    "echo": only(False),
    "ignore_eos": only(False),
    "min_tokens": only(0),
    "include_stop_str_in_output": only(False),
}
FIELDS = {**SETTINGS, **OURS, **HARMLESS}

MESSAGE_FIELDS: dict[str, Reader] = {
    "role": text,
    "content": anything,
    "eot": boolean,  # StepFun's: false on the last message means: go on with it
    # what clients send back with an earlier reply
    "name": text,
    "id": anything,
    "refusal": only(""),
    "audio": only(),
    "annotations": only([]),
    "function_call": only(),
    "tool_calls": only([]),
    "reasoning": text,
    "reasoning_content": text,
    "reasoning_details": anything,
}


@dataclass(frozen=True)
class Turn:
    """A message whose sounds are still undecoded."""

    role: str
    parts: tuple[str | Sound, ...]


@dataclass(frozen=True)
class ChatRequest:
    """What a request asks for. The last turn, when it is the assistant's, is to be continued."""

    turns: list[Turn]
    settings: dict[str, Any] = field(default_factory=dict)
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    stream: bool = False
    include_usage: bool = False
    separate_reasoning: bool | None = None
    include_reasoning: bool = True
    response_format: Mapping[str, Any] | None = None


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises Problem."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise Problem(f"the body is not JSON ({reason[:200]})", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem("the body is not a JSON object", code="invalid_json")
    return value


def parse_chat(body: Mapping[str, Any], limits: MediaLimits, thinking_default: bool = True) -> ChatRequest:
    """A body -> ChatRequest. Raises Problem that names the field."""
    values = read_fields(body, FIELDS)
    if not values.get("messages"):
        raise Problem("messages is missing or empty", param="messages", code="missing_parameter")
    if "stream_options" in values and not values.get("stream"):
        raise Problem("stream_options goes with stream: true", param="stream_options", code="invalid_value")
    thinking = _thinking(values, thinking_default)
    turns = [_turn(message, f"messages[{i}]", limits) for i, message in enumerate(values["messages"])]
    _check_upload(turns, limits)
    return ChatRequest(
        turns=_open_reply(turns, values, thinking),
        settings=_settings(values, thinking),
        n=values.get("n", 1),
        stop=tuple(values.get("stop", ())),
        stop_token_ids=frozenset(values.get("stop_token_ids", ())) - {OFFICIAL_END_TURN},
        stream=values.get("stream", False),
        include_usage=values.get("stream_options", {}).get("include_usage", False),
        separate_reasoning=values.get("separate_reasoning"),
        include_reasoning=values.get("include_reasoning", True),
        response_format=values.get("response_format"),
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _settings(values: Mapping[str, Any], thinking: bool) -> dict[str, Any]:
    chosen = {name: values[name] for name in SETTINGS if name in values}
    if "max_completion_tokens" in values:
        chosen["max_tokens"] = values["max_completion_tokens"]
    if "top_k" in chosen:
        chosen["top_k"] = max(0, chosen["top_k"])  # vLLM writes "off" as -1
    if "seed" in chosen:
        chosen["seed"] %= 2**64
    return {**chosen, "thinking": thinking}


def _thinking(values: Mapping[str, Any], default: bool) -> bool:
    arguments = values.get("chat_template_kwargs", {})
    given = [arguments.get("enable_thinking"), arguments.get("thinking"), values.get("enable_thinking"),
             values.get("reasoning_effort")]
    said = {value for value in given if value is not None}
    if len(said) > 1:
        raise Problem("enable_thinking is given twice and differently", param="enable_thinking",
                      code="invalid_value")
    return said.pop() if said else default


def _turn(message: Mapping[str, Any], name: str, limits: MediaLimits) -> Turn:
    values = read_fields(message, MESSAGE_FIELDS, f"{name}.")
    role = values.get("role")
    if role not in ROLES:
        raise wrong(f"{name}.role", role, "one of " + ", ".join(ROLES))
    content = values.get("content")
    if content is None:
        if role != "assistant":
            raise Problem(f"{name}.content is missing", param=f"{name}.content", code="missing_parameter")
        return Turn(ROLES[role], ())
    if isinstance(content, str):
        return Turn(ROLES[role], (text(content, f"{name}.content"),))
    parts = list_of(lambda part, where: _part(part, where, limits), MAX_PARTS)(content, f"{name}.content")
    if role == "assistant" and any(isinstance(part, Sound) for part in parts):
        raise Problem(f"{name}.content: an assistant message holds text alone", param=f"{name}.content",
                      code="invalid_value")
    return Turn(ROLES[role], tuple(parts))


def _text_part(value: Any, name: str, limits: MediaLimits) -> str:
    return str(text(value, name))


PARTS: dict[str, tuple[str, Callable[[Any, str, MediaLimits], str | Sound]]] = {  # type -> field, reader
    "text": ("text", _text_part),
    "input_audio": ("input_audio", read_input_audio),
    "audio_url": ("audio_url", read_audio_url),
    "audio": ("audio", read_reference),
}


def _part(value: Any, name: str, limits: MediaLimits) -> str | Sound:
    part = mapping(value, name)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in PARTS:
        raise Problem(f"{name}.type is {shown(kind)}: expected one of {', '.join(PARTS)}",
                      param=f"{name}.type", code="unsupported_content_type")
    key, read = PARTS[kind]
    readers: dict[str, Reader] = {"type": anything, key: lambda v, where: read(v, where, limits),
                                  "uuid": anything, "cache_control": anything}
    values = read_fields(part, readers, f"{name}.")
    if key not in values:
        raise Problem(f"{name}.{key} is missing", param=f"{name}.{key}", code="missing_parameter")
    found: str | Sound = values[key]
    return found


def _check_upload(turns: Sequence[Turn], limits: MediaLimits) -> None:
    sizes = (len(part.data) for turn in turns for part in turn.parts if isinstance(part, Sound))
    if sum(sizes) > limits.upload_bytes:
        raise too_large(limits)


def _open_reply(turns: list[Turn], values: Mapping[str, Any], thinking: bool) -> list[Turn]:
    """Turns that end where the reply begins: a last assistant turn to continue, or a new one."""
    last = turns[-1]
    empty = last.role == "assistant" and not last.parts
    if empty:  # content null: not said yet
        turns = turns[:-1]
    if not turns:
        raise Problem("messages holds nothing to answer", param="messages", code="invalid_value")
    if not _continues(turns[-1], values["messages"][-1], values, empty):
        return [*turns, Turn("assistant", (THINKING_TAIL if thinking else NO_THINKING_TAIL,))]
    return turns


def _continues(last: Turn, message: Mapping[str, Any], values: Mapping[str, Any], empty: bool) -> bool:
    """Whether the reply goes on with the last message. Said by two flags as in vLLM, or by `eot`;
    unsaid, a message that ends inside its reasoning is continued."""
    go_on, open_new = values.get("continue_final_message"), values.get("add_generation_prompt")
    assistant = last.role == "assistant" and not empty
    if go_on and open_new:
        raise Problem("continue_final_message and add_generation_prompt exclude each other",
                      param="add_generation_prompt", code="invalid_value")
    if go_on and not assistant:
        raise Problem("continue_final_message: the last message is not the assistant's",
                      param="continue_final_message", code="invalid_value")
    if not assistant:
        if open_new is False:
            raise unsupported("add_generation_prompt", "send true, or a last assistant message")
        return False
    if go_on is None and open_new is None:
        eot = message.get("eot")
        return starts_in_thinking(list(last.parts[-1:])) if eot is None else not eot
    return bool(go_on) or open_new is False
