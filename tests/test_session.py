"""The Python API: what people write in three lines, and what stays stable beside it."""

import dataclasses
import io
import json
import re
import shutil
import wave
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1 import AudioR1, load
from mlx_audio_r1.errors import AudioError, PromptError
from mlx_audio_r1.prompt import AudioPart

RATE = 16_000
GREEDY = {"temperature": 0.0, "max_tokens": 24, "thinking_budget": 8}


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return np.repeat((0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[:, None], channels, axis=1)


def wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((tone(seconds)[:, 0] * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def test_a_sound_may_be_a_path_bytes_a_file_or_an_array(tiny, tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(wav(1.0))
    samples = np.frombuffer(wav(1.0)[44:], "<i2")
    forms = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), (samples, RATE),
             AudioPart(samples, RATE)]
    replies = [tiny.ask(form, "What?", **GREEDY).token_ids for form in forms]
    assert all(reply == replies[0] for reply in replies)


def test_a_reply_counts_what_it_did(tiny):
    reply = tiny.ask([(tone(1.0), RATE), (tone(2.0), RATE)], "What?", **GREEDY)
    assert reply.usage.audio_tokens == 13 + 25 and reply.audio_seconds == 3.0
    assert reply.usage.reasoning_tokens + reply.usage.answer_tokens == len(reply.token_ids) == 24
    assert reply.usage.prompt_tokens > 38 and reply.finish_reason == "length"
    assert reply.timings.encode > 0 and reply.timings.prefill > 0 and reply.timings.decode > 0
    assert json.dumps(dataclasses.asdict(reply))


def test_the_stream_and_the_reply_hold_the_same_text(tiny):
    stream = tiny.stream(tiny.question((tone(1.0), RATE), "What?"), **GREEDY)
    steps = list(stream)
    reply = stream.reply()
    assert "".join(s.text for s in steps if s.kind == "thinking") == reply.thinking
    assert "".join(s.text for s in steps if s.kind == "answer") == reply.answer
    assert [s.finish_reason for s in steps if s.finish_reason] == [reply.finish_reason]


def test_a_reply_can_be_taken_without_iterating(tiny):
    stream = tiny.stream(tiny.question((tone(1.0), RATE), "What?"), **GREEDY)
    assert stream.reply() == dataclasses.replace(
        tiny.ask((tone(1.0), RATE), "What?", **GREEDY), timings=stream.reply().timings
    )


def test_a_stream_that_was_left_goes_on_where_it_was(tiny):
    whole = tiny.ask((tone(1.0), RATE), "What?", **GREEDY)
    stream = tiny.stream(tiny.question((tone(1.0), RATE), "What?"), **GREEDY)
    for _ in stream:
        break
    reply = stream.reply()
    assert (reply.token_ids, reply.thinking, reply.answer) == (whole.token_ids, whole.thinking, whole.answer)
    assert list(stream) == [] and stream.reply().token_ids == whole.token_ids


def test_integers_and_half_floats_are_the_same_sound(tiny):
    waveform = tone(1.0)[:, 0]
    pcm = (waveform * 32767).astype(np.int16)
    from_float = tiny.log_mel(pcm.astype(np.float32) / 32768)
    assert mx.array_equal(tiny.log_mel(pcm), from_float)
    assert tiny.encode_audio(mx.array(waveform).astype(mx.bfloat16)).shape == (13, 128)
    for wrong in (np.full(16_000, np.nan), np.zeros(0), tone(31.0)[:, 0]):
        with pytest.raises(AudioError):
            tiny.log_mel(wrong)


def test_choices_and_order_of_text_and_sound(tiny):
    sound = (tone(1.0), np.int64(RATE))
    with pytest.raises(PromptError, match="choices"):
        tiny.question(sound, "Which?", choices="yes|no")
    with pytest.raises(PromptError, match="choices"):
        tiny.question(sound, "Which?", choices=["a", ""])
    before, behind = (tiny.question(sound, "Q", text_first=first)[0].parts for first in (True, False))
    assert before == behind[::-1] and before[0] == "Q"


def test_text_that_is_not_utf8_is_one_line(tiny):
    with pytest.raises(PromptError, match="UTF-8"):
        tiny.ask((tone(1.0), RATE), "\udcff", **GREEDY)


def test_openai_parts_and_ask_agree(tiny):
    import base64

    data = base64.b64encode(wav(1.0)).decode()
    parts = [{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
             {"type": "text", "text": "What?"}]
    assert tiny.prompt_ids([{"role": "user", "content": parts}]) == tiny.prompt_ids(
        tiny.question(wav(1.0), "What?")
    )


def test_shapes_of_the_small_steps(tiny):
    waveform = tone(1.0)[:, 0]
    assert tiny.log_mel(waveform).shape == (102, 128)
    assert tiny.encode_audio(waveform).shape == (13, 128)
    assert tiny.encode_audio(mx.array(waveform)).shape == (13, 128)
    messages = tiny.question((waveform, RATE), "What?")
    assert tiny.logits(messages).shape == (len(tiny.prompt_ids(messages)), 512)


def test_a_long_waveform_is_cut_as_a_file_is(golden_dir):
    r1 = load(golden_dir / "tiny-fp32")
    waveform = tone(60.0)[:, 0]
    whole = r1.encode_audio(waveform)
    assert whole.shape[0] == 313 + 313 + 125
    second = r1.encode_audio(waveform[25 * RATE : 50 * RATE])
    assert mx.array_equal(whole[313:626], second)


def test_chunks_may_be_up_to_29_98_seconds(golden_dir):
    assert load(golden_dir / "tiny-fp32", chunk_seconds=29.98).encode_audio(tone(29.98)[:, 0]).shape[0] == 375
    with pytest.raises(PromptError, match=r"29\.98"):
        load(golden_dir / "tiny-fp32", chunk_seconds=30)


@pytest.fixture
def small_context(golden_dir, tmp_path) -> AudioR1:
    folder = shutil.copytree(golden_dir / "tiny-fp32", tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1000
    (folder / "config.json").write_text(json.dumps(config))
    return load(folder)


def test_what_does_not_fit_is_refused_with_the_seconds_that_do(small_context):
    for sounds in ([200.0], [50.0, 50.0]):
        with pytest.raises(PromptError, match="at most") as caught:
            small_context.ask([(tone(s), RATE) for s in sounds], "What?")
        fits = int(re.search(r"at most (\d+) seconds", str(caught.value))[1])
        assert 60 <= fits < 80  # 1000 tokens at 12.6 a second, less the question and room for a reply
        assert small_context.ask((tone(fits), RATE), "What?", **GREEDY).usage.audio_tokens > 700


def test_max_tokens_never_leaves_the_context(small_context):
    reply = small_context.reply([{"role": "user", "content": "x" * 900}], temperature=0.0)
    assert reply.finish_reason in ("length", "loop", "stop")
    assert reply.usage.prompt_tokens + len(reply.token_ids) <= 1000


def test_stereo_is_averaged_and_rates_are_resampled(tiny):
    left = tone(1.0)[:, 0]
    stereo = np.stack([left, -left], axis=1)
    silent = tiny.ask((stereo, RATE), "What?", **GREEDY)
    assert silent.token_ids == tiny.ask((np.zeros(RATE, np.float32), RATE), "What?", **GREEDY).token_ids
    assert tiny.ask((tone(1.0, 48_000, 2), 48_000), "What?", **GREEDY).usage.audio_tokens == 13


def test_nothing_to_answer_is_said(tiny):
    with pytest.raises(PromptError, match="nothing to answer"):
        tiny.ask()
    with pytest.raises(AudioError):
        tiny.ask("no-such-file.wav", "What?")


def test_the_python_of_the_readme_runs(capsys, monkeypatch):
    root = Path(__file__).parent.parent
    readme = (root / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", readme, re.S)
    code = code.replace('"clip.wav"', repr(str(root / "mlx_audio_r1" / "nano" / "sample.wav")))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
