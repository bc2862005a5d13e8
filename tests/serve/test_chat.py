"""/v1/chat/completions: with the openai package, as StepFun's client sends, and field by field."""

import asyncio
import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import soundfile

from mlx_audio_r1.serve.chat_request import FIELDS, parse_chat
from mlx_audio_r1.serve.media import MediaLimits
from tests.serve.conftest import (
    ENDLESS,
    GREEDY,
    PATIENCE,
    USER,
    gauge,
    idle,
    input_audio,
    load_tiny,
    wait_until,
    wav,
)

QUESTION = {"type": "text", "text": "What?"}
URL = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny_25):
    """What the same question gives without a server."""
    return tiny_25.ask(wav(1.0), "What?", temperature=0.0, max_tokens=24, thinking_budget=6)


@pytest.fixture(scope="module")
def tiny_25():
    return load_tiny()


def ask(served, content=(QUESTION,), **fields):
    content = list(content) if not isinstance(content, str) else content
    body = {"messages": [{"role": "user", "content": content}], **GREEDY, **fields}
    return served.http.post(URL, json=body)


def events(served, **body):
    """The data of every server-sent event."""
    with served.http.stream("POST", URL, json={**GREEDY, "stream": True, **body}) as response:
        lines = list(response.iter_lines())
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-2] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


# The openai package


def test_a_reply_is_that_of_the_library(client, served, expected):
    reply = client.chat.completions.create(
        model="any",
        temperature=0,
        max_tokens=24,
        extra_body={"thinking_budget": 6},
        messages=[{"role": "user", "content": [input_audio(wav(1.0)), QUESTION]}],
    )
    message = reply.choices[0].message
    assert (message.reasoning, message.content) == (expected.thinking, expected.answer)
    assert message.reasoning_content == message.reasoning
    assert reply.choices[0].finish_reason == "length" and reply.model == "tiny-fp32"
    usage, wanted = reply.usage, expected.usage
    assert usage.prompt_tokens == wanted.prompt_tokens
    assert usage.prompt_tokens_details.audio_tokens == wanted.audio_tokens == 13
    assert usage.completion_tokens_details.reasoning_tokens == wanted.reasoning_tokens
    assert usage.completion_tokens == 24 and usage.total_tokens == 24 + usage.prompt_tokens


def test_a_stream_holds_the_same_text_and_the_usage(client, expected):
    stream = client.chat.completions.create(
        model="any",
        temperature=0,
        max_tokens=24,
        extra_body={"thinking_budget": 6},
        stream=True,
        messages=[{"role": "user", "content": [input_audio(wav(1.0)), QUESTION]}],
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.content or "" for d in deltas) == expected.answer
    assert "".join(getattr(d, "reasoning", None) or "" for d in deltas) == expected.thinking
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == expected.thinking
    assert deltas[0].role == "assistant" and len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 24
    assert all(c.usage is None for c in chunks[:-1])


def test_errors_are_those_the_package_knows(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}], logprobs=True)
    assert caught.value.param == "logprobs" and "logprobs" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    assert client.models.retrieve("tiny-fp32").object == "model"
    assert [m.id for m in client.models.list()] == ["tiny-fp32"]


def test_an_earlier_reply_can_be_sent_back(client):
    messages = [{"role": "user", "content": "hello"}]
    reply = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=9)
    messages += [reply.choices[0].message.model_dump(), {"role": "user", "content": "and?"}]
    again = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=9)
    assert again.usage.prompt_tokens > reply.usage.prompt_tokens


def test_the_async_client_cancels_what_it_leaves(endless):
    async def leave():
        async with openai.AsyncOpenAI(
            base_url=f"{endless.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
        ) as client:
            stream = await client.chat.completions.create(model="x", stream=True, **ENDLESS)
            async for _ in stream:
                break
            await stream.close()

    before = gauge(endless, "cancelled_total")
    asyncio.run(leave())
    wait_until(lambda: gauge(endless, "cancelled_total") == before + 1 and idle(endless))


# StepFun's client


def stepfun(messages, **options):
    """The payload StepFun's own client makes of its examples: every key it sends, in its order."""
    last = messages[-1]
    go_on = not last.get("eot", True)
    return {
        **options,
        "messages": messages,
        "model": "Step-Audio-R1",
        "skip_special_tokens": False,
        "continue_final_message": go_on,
        "add_generation_prompt": not go_on,
    }


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": 24, "temperature": 0.0, "repetition_penalty": 1.0, "stop_token_ids": [151665]},
        {"max_tokens": 24, "temperature": 0.0, "repetition_penalty": 1.07, "stop_token_ids": [151665]},
        {"max_tokens": 24, "temperature": 0.0, "top_p": 0.9, "stop_token_ids": [151665]},
    ],
)
def test_stepfuns_examples(served, tiny_25, sampling):
    content = [{"type": "text", "text": "Which?\nA. a\nB. b\n"}, input_audio(wav(2.0))]
    messages = [
        {"role": "system", "content": "你是一个语音助手"},
        {"role": "human", "content": content},
        {"role": "assistant", "content": "<think>\n", "eot": False},
    ]
    chunks = events(served, **{**stepfun(messages, **sampling), "thinking_budget": 6})
    library = {k: v for k, v in sampling.items() if k != "stop_token_ids"}
    wanted = tiny_25.reply(messages[:2], thinking_budget=6, **library)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == wanted.answer
    assert "".join(c["choices"][0]["delta"].get("reasoning", "") for c in chunks) == wanted.thinking


def rendered(body):
    """The roles and texts a body becomes."""
    return [(turn.role, turn.parts) for turn in parse_chat(body, MediaLimits()).turns]


OPEN = ("assistant", ("<think>\n",))


@pytest.mark.parametrize(
    ("last", "flags", "turns"),
    [
        ([], {}, [OPEN]),
        ([], {"add_generation_prompt": True, "continue_final_message": False}, [OPEN]),
        ([], {"enable_thinking": False}, [("assistant", ("<think>\n\n</think>\n",))]),
        ([], {"chat_template_kwargs": {"enable_thinking": False}}, [("assistant", ("<think>\n\n</think>\n",))]),
        ([], {"reasoning_effort": "none"}, [("assistant", ("<think>\n\n</think>\n",))]),
        ([{"role": "assistant", "content": "<think>\n"}], {}, [OPEN]),
        ([{"role": "assistant", "content": "<think>\n", "eot": False}], {}, [OPEN]),
        (
            [{"role": "assistant", "content": "Yes"}],
            {"continue_final_message": True},
            [("assistant", ("Yes",))],
        ),
        (
            [{"role": "assistant", "content": "Yes"}],
            {"add_generation_prompt": False},
            [("assistant", ("Yes",))],
        ),
        ([{"role": "assistant", "content": "Yes", "eot": False}], {}, [("assistant", ("Yes",))]),
        ([{"role": "assistant", "content": "Yes"}], {}, [("assistant", ("Yes",)), OPEN]),
        ([{"role": "assistant", "content": None}], {"add_generation_prompt": True}, [OPEN]),
        ([{"role": "assistant", "content": "<think>\n"}], {"add_generation_prompt": True}, [OPEN, OPEN]),
    ],
)
def test_how_a_last_assistant_message_is_read(last, flags, turns):
    assert rendered({"messages": [USER, *last], **flags}) == [("user", ("hi",)), *turns]


def test_human_is_user_and_developer_is_system(served):
    replies = [
        served.http.post(
            URL, json={"messages": [{"role": a, "content": "x"}, {"role": b, "content": "y"}], **GREEDY}
        )
        for a, b in (("system", "user"), ("developer", "human"))
    ]
    assert replies[0].json()["choices"] == replies[1].json()["choices"]


# Sounds


def encoded(format, subtype=None):
    t = np.arange(16_000) / 16_000
    buffer = io.BytesIO()
    soundfile.write(buffer, (0.3 * np.sin(2764 * t)).astype("f4"), 16_000, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("wav", encoded("WAV")),
        ("flac", encoded("FLAC")),
        ("ogg", encoded("OGG")),
        ("opus", encoded("OGG", "OPUS")),
        ("mp3", encoded("MP3")),
        ("wav", encoded("MP3")),  # the bytes decide
    ],
)
def test_formats(served, name, data):
    reply = ask(served, [input_audio(data, name), QUESTION]).json()
    assert 13 <= reply["usage"]["prompt_tokens_details"]["audio_tokens"] <= 15


def test_a_data_url_is_the_same_sound(served):
    data = base64.b64encode(wav(1.0)).decode()
    plain = ask(served, [input_audio(wav(1.0)), QUESTION]).json()
    for part in (
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}},
        {"type": "audio", "audio": f"data:audio/wav;base64,{data}"},
        {"type": "input_audio", "input_audio": {"data": f"data:;base64,{data}"}},
    ):
        assert ask(served, [part, QUESTION]).json()["choices"] == plain["choices"]


def test_parts_keep_their_order(served, tiny_25):
    parts = [QUESTION, input_audio(wav(1.0)), {"type": "text", "text": "or"}, input_audio(wav(2.0, hertz=300))]
    reply = ask(served, parts).json()
    wanted = tiny_25.reply(
        [{"role": "user", "content": parts}], temperature=0.0, max_tokens=24, thinking_budget=6
    )
    assert reply["choices"][0]["message"]["content"] == wanted.answer
    assert reply["usage"]["prompt_tokens_details"]["audio_tokens"] == 13 + 25


def test_a_long_sound_is_cut_as_the_library_cuts_it(served, tiny_25):
    sound = wav(26.0, rate=22_050)
    reply = ask(served, [input_audio(sound), QUESTION], max_tokens=2).json()
    wanted = tiny_25.prompt_ids(tiny_25.question(sound, "What?"))
    assert reply["usage"]["prompt_tokens"] == len(wanted)
    assert reply["usage"]["prompt_tokens_details"]["audio_tokens"] == 313 + 13


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        (input_audio(b"no sound at all, just text"), 400, "invalid_audio"),
        (input_audio(wav(1.0)[:44]), 400, "invalid_audio"),
        (input_audio(b""), 400, "invalid_audio"),
        (input_audio(bytes(5000)), 400, "invalid_audio"),
        (input_audio(wav(1.0), "xyz"), 400, "invalid_value"),
        ({"type": "input_audio", "input_audio": {"data": "%%%", "format": "wav"}}, 400, "invalid_base64"),
        ({"type": "input_audio", "input_audio": {"data": "abc", "format": "wav"}}, 400, "invalid_base64"),
        ({"type": "input_audio", "input_audio": {"data": "äöü", "format": "wav"}}, 400, "invalid_base64"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, 400, "missing_parameter"),
        ({"type": "input_audio"}, 400, "missing_parameter"),
        ({"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:9/a.wav"}}, 400, "url_not_allowed"),
        ({"type": "audio_url", "audio_url": {"url": "HTTPS://example.org/a.wav"}}, 400, "url_not_allowed"),
        ({"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}, 400, "local_media_not_allowed"),
        ({"type": "audio", "audio": "/etc/passwd"}, 400, "local_media_not_allowed"),
        ({"type": "image_url", "image_url": {"url": "data:"}}, 400, "unsupported_content_type"),
    ],
)
def test_sounds_that_are_refused(served, part, status, code):
    response = ask(served, [part, QUESTION])
    assert response.status_code == status and response.json()["error"]["code"] == code
    assert "[0]" in response.json()["error"]["param"]


# Fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"foo": 1}}, "stream_options.foo"),
        ({"seed": 1.5}, "seed"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"stop_token_ids": [-7]}, "stop_token_ids[0]"),
        ({"chat_template_kwargs": {"foo": 1}}, "chat_template_kwargs.foo"),
        ({"nonsense": 1}, "nonsense"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, "enable_thinking"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "foo": 1}]}, "messages[0].foo"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": [input_audio(wav(0.1))]}]}, "messages[0].content"),
    ],
)
def test_a_field_that_is_refused_is_named(served, fields, param):
    body = {"messages": [USER], "max_tokens": 4, **fields}
    response = served.http.post(URL, content=json.dumps(body), headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["param"] == param


def test_harmless_fields_change_nothing(served):
    harmless = {
        "user": "me",
        "metadata": {"a": 1},
        "store": False,
        "service_tier": "auto",
        "n": 1,
        "logit_bias": {},
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "tools": [],
        "tool_choice": "none",
        "logprobs": False,
        "skip_special_tokens": False,
        "modalities": ["text"],
        "seed": None,
        "stop": None,
        "top_k": -1,
        "stop_token_ids": [151665, 400],
        "separate_reasoning": True,
    }
    assert harmless.keys() <= FIELDS.keys()
    assert ask(served, **harmless).json()["choices"] == ask(served).json()["choices"]


def test_a_prompt_that_does_not_fit_is_refused_before_it_is_read(served):
    response = ask(served, "x" * 70_000)
    error = response.json()["error"]
    assert (
        response.status_code == 400
        and error["code"] == "context_length_exceeded"
        and "context" in error["message"]
    )


def test_several_choices(served):
    choices = ask(served, n=3).json()["choices"]
    assert [c["index"] for c in choices] == [0, 1, 2]
    assert choices[0]["message"] == choices[1]["message"] == choices[2]["message"]  # greedy
    reply = ask(served, n=3, temperature=1.0, seed=5, max_tokens=48).json()
    again = ask(served, n=3, temperature=1.0, seed=5, max_tokens=48).json()
    assert reply["choices"] == again["choices"] and reply["usage"]["completion_tokens"] > 24
    assert len({c["message"]["reasoning"] for c in reply["choices"]}) == 3
    chunks = events(served, messages=[USER], n=2)
    assert sorted(c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]) == [0, 1]


def test_stop_strings_end_the_answer_in_streams_too(served):
    answer = ask(served, "hello").json()["choices"][0]["message"]["content"]
    stop = answer[3:6]
    body = ask(served, "hello", stop=[stop, "never"]).json()["choices"][0]
    assert body["message"]["content"] == answer[: answer.index(stop)]
    assert (body["finish_reason"], body["stop_reason"]) == ("stop", stop)
    chunks = events(served, messages=[{"role": "user", "content": "hello"}], stop=stop)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == body["message"]["content"]


def test_stop_ids_end_a_reply(served, tiny_25):
    ids = tiny_25.reply(
        [{"role": "user", "content": "hello"}], temperature=0.0, max_tokens=24, thinking_budget=6
    ).token_ids
    wanted = next(i for i in range(16, 24) if ids[i] not in ids[:i])
    body = ask(served, "hello", stop_token_ids=[ids[wanted]]).json()
    assert body["usage"]["completion_tokens"] == wanted + 1
    assert (body["choices"][0]["finish_reason"], body["choices"][0]["stop_reason"]) == ("stop", ids[wanted])


def test_the_second_question_about_a_sound_reads_it_from_the_cache(served):
    sound = input_audio(wav(3.0, hertz=200))
    first = ask(served, [sound, {"type": "text", "text": "Who?"}]).json()["usage"]
    second = ask(served, [sound, {"type": "text", "text": "Where?"}]).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert (
        second["prompt_tokens_details"]["cached_tokens"] > second["prompt_tokens_details"]["audio_tokens"] == 38
    )


def test_reasoning_can_be_left_out_or_in_the_content(served):
    plain = ask(served).json()["choices"][0]["message"]
    hidden = ask(served, include_reasoning=False).json()["choices"][0]["message"]
    inline = ask(served, separate_reasoning=False).json()["choices"][0]["message"]
    assert hidden == {**plain, "reasoning": None, "reasoning_content": None}
    assert inline["content"] == f"{plain['reasoning']}\n</think>\n\n{plain['content']}"
    chunks = events(served, messages=[{"role": "user", "content": [QUESTION]}], separate_reasoning=False)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == inline["content"]


# Structured answers

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 99}, "kind": {"enum": ["x", "yy"]}},
    "required": ["age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("thinking", [{}, {"enable_thinking": False}])
@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_json_of_the_schema(served, thinking, stream):
    format = {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}
    fields = {"response_format": format, "max_tokens": 200, "temperature": 1.0, "seed": 3, **thinking}
    if stream:
        chunks = events(served, messages=[USER], **fields)
        content = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    else:
        choice = ask(served, "hi", **fields).json()["choices"][0]
        content = choice["message"]["content"]
        assert choice["finish_reason"] == "stop" and bool(choice["message"]["reasoning"]) == (not thinking)
    value = json.loads(content)
    assert value.keys() == {"age", "kind"} and value["age"] <= 99 and value["kind"] in ("x", "yy")


def test_a_reply_that_thinks_on_and_on_still_ends_in_json(served):
    choice = ask(
        served,
        "hi",
        response_format={"type": "json_schema", "json_schema": {"schema": PERSON}},
        thinking_budget=None,
        max_tokens=150,
        temperature=0,
    ).json()["choices"][0]
    assert choice["finish_reason"] == "length" or json.loads(choice["message"]["content"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"not": {}},
        {"type": "object", "properties": 5},
        {"enum": ["x" * 200_000]},
    ],
)
def test_schemas_that_cannot_be_held(served, schema):
    response = ask(served, response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert response.status_code == 400 and response.json()["error"]["code"] == "invalid_schema"


def test_without_the_library_the_format_is_refused_by_name(served, monkeypatch):
    import mlx_audio_r1.serve.structured as structured

    monkeypatch.setattr(structured, "find_spec", lambda name: None)
    error = ask(served, response_format={"type": "json_object"}).json()["error"]
    assert error["param"] == "response_format" and "mlx-audio-r1[structured]" in error["message"]


# Many at once


def test_thirty_two_clients_get_what_one_gets(served, expected):
    def one(_):
        return ask(served, [input_audio(wav(1.0)), QUESTION]).json()["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(32) as clients:
        replies = list(clients.map(one, range(32)))
    assert replies == [expected.answer] * 32
