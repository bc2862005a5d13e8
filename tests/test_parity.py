"""Numbers of an independent PyTorch reference (tests/golden), reproduced.

Tolerances: the reference's own float32 noise floor is 4e-5 in the log-mel; two float32 stacks that sum
in another order agree to about 1e-5 in features and 1.5e-4 in logits of size 30, so the limits below
are three to six times that. A mistake shows 0.003 or more.
"""

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.mel import mel_filters
from mlx_audio_r1.prompt import AudioPart

LOG_MEL, FEATURES, LOGITS, BF16_RELATIVE = 1e-4, 5e-5, 5e-4, 0.03
CLIPS = ["s0_50", "s3_21", "s25", "s29_9", "quiet"]
QUESTION = "What do you hear?\nA. tone\nB. noise\n"


def distance(a, b) -> float:
    assert a.shape == b.shape
    return mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max().item()


def messages_of(name: str, clips) -> list[dict]:
    """The messages behind a golden prompt."""
    def sound(clip: str) -> dict:
        return {"type": "audio", "audio": np.array(clips[clip]), "sample_rate": 16_000}

    if name == "text_only":
        return [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "1+1=?"}]
    if name.startswith("batch_25_3"):
        parts = [sound("s25"), sound("s3_21"), {"type": "text", "text": "Transcribe."}]
        return [{"role": "system", "content": "你是一个语音助手。"}, {"role": "user", "content": parts}]
    parts = [{"type": "text", "text": QUESTION}, sound(name.split(".")[0])]
    return [{"role": "user", "content": parts}]


def test_filter_bank(frontend):
    assert distance(mel_filters(), frontend["mel_filters"]) < 1e-7


@pytest.mark.parametrize("clip", CLIPS)
def test_log_mel(clip, tiny, clips, frontend):
    assert distance(tiny.log_mel(clips[clip]), frontend[f"{clip}.log_mel"]) < LOG_MEL


def test_log_mel_of_silence_is_exact(tiny, frontend):
    assert distance(tiny.log_mel(np.zeros(16_000)), frontend["silence_1s.log_mel"]) == 0


@pytest.mark.parametrize("convention", ["vllm", "hf"])
@pytest.mark.parametrize("clip", CLIPS)
def test_audio_features(clip, convention, tiny, tiny_hf, clips, golden):
    r1 = {"vllm": tiny, "hf": tiny_hf}[convention]
    assert distance(r1.encode_audio(clips[clip]), golden[f"{clip}.{convention}.adapter"]) < FEATURES


def test_encoder_before_the_adaptor(tiny, clips, golden):
    for clip in CLIPS:
        mel = tiny.log_mel(clips[clip])[None]
        encoded = tiny.model.audio_encoder(mel)[0]
        assert distance(encoded, golden[f"{clip}.vllm.encoder"]) < FEATURES


PROMPTS = ["s0_50.vllm", "s3_21.vllm", "s25.vllm", "s29_9.vllm", "s0_50.hf", "s3_21.hf", "text_only"]


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_ids_logits_and_greedy_tokens(name, tiny, tiny_hf, clips, golden):
    r1 = tiny_hf if name.endswith(".hf") else tiny
    key = name if name == "text_only" else f"{name}.prompt"
    messages = messages_of(name, clips)
    assert r1.prompt_ids(messages) == golden[f"{key}.ids"].tolist()
    assert distance(r1.logits(messages), golden[f"{key}.logits"]) < LOGITS
    assert greedy(r1, messages, 32) == golden[f"{key}.greedy"].tolist()


def test_two_chunk_prompt_ids_are_those_of_the_server(tiny, clips, golden):
    # Its features come from the server's padded batch, which is not reproduced; the ids are.
    ids = tiny.prompt_ids(messages_of("batch_25_3.vllm", clips))
    assert ids == golden["batch_25_3.vllm.prompt.ids"].tolist()


def test_features_do_not_depend_on_what_is_encoded_beside_them(tiny, clips):
    alone = tiny.encode_audio(clips["s3_21"])
    parts = [AudioPart(np.array(clips[c]), 16_000) for c in ("s25", "s3_21", "quiet")]
    assert distance(tiny.listen(parts).features[1], alone) == 0


def test_bf16_checkpoint_is_within_three_percent(golden_dir, clips):
    from mlx_audio_r1 import load

    r1 = load(golden_dir / "tiny-bf16")
    golden = mx.load(str(golden_dir / "bf16.safetensors"))
    for clip in ("s0_50", "s3_21"):
        got = r1.encode_audio(clips[clip])
        assert got.dtype == mx.bfloat16
        assert relative(got, golden[f"{clip}.vllm.adapter"]) < BF16_RELATIVE
        logits = r1.logits(messages_of(clip, clips))
        assert relative(logits, golden[f"{clip}.vllm.prompt.logits"]) < BF16_RELATIVE


def relative(a, b) -> float:
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    return (mx.linalg.norm(a - b) / mx.linalg.norm(b)).item()


def greedy(r1, messages, n: int) -> list[int]:
    """n greedy tokens that ignore every stop id, as the goldens were made."""
    stops, r1.tokenizer.stop_ids = r1.tokenizer.stop_ids, frozenset()
    try:
        return r1.reply(messages, temperature=0.0, max_tokens=n).token_ids
    finally:
        r1.tokenizer.stop_ids = stops


