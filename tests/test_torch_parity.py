"""Against PyTorch itself, at sizes and seeds of its own: transformers' Qwen2AudioEncoder with our
weights renamed, and Qwen2ForCausalLM. Needs the [torch] extra; run with `make test-torch`."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.step_audio_r1 import Model

pytestmark = pytest.mark.torch

CONFIG = {
    "audio_encoder_config": {
        "n_mels": 128, "n_audio_ctx": 1500, "n_audio_state": 96, "n_audio_head": 3, "n_audio_layer": 3,
        "llm_dim": 160,
    },
    "text_config": {
        "vocab_size": 300, "hidden_size": 160, "intermediate_size": 224, "num_hidden_layers": 3,
        "num_attention_heads": 10, "num_key_value_heads": 5, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "max_position_embeddings": 4096,
    },
}
# Two float32 stacks that sum in another order; measured 3e-6 here, values are of size 1 to 3.
TOLERANCE = 3e-5


@pytest.fixture(scope="module", params=[11, 12])
def model(request):
    mx.random.seed(request.param)
    built = Model(parse_config(CONFIG).with_shapes(adaptor_width=64, tied=False))
    built.update(tree_map(lambda p: mx.random.normal(p.shape) * max(p.shape[-1], 16) ** -0.5,
                          built.parameters()))
    mx.eval(built.parameters())
    return built


def to_torch(array):
    import torch

    return torch.from_numpy(np.array(array))


ENCODER_NAMES = (  # ours -> transformers'
    ("positional_embedding.", "embed_positions."), ("after_norm.", "layer_norm."), ("blocks.", "layers."),
    ("attn_ln.", "self_attn_layer_norm."), ("mlp_ln.", "final_layer_norm."),
    ("attn.query.", "self_attn.q_proj."), ("attn.key.", "self_attn.k_proj."),
    ("attn.value.", "self_attn.v_proj."), ("attn.out.", "self_attn.out_proj."),
    ("mlp.0.", "fc1."), ("mlp.2.", "fc2."),
)


def renamed(name: str) -> str:
    for ours, theirs in ENCODER_NAMES:
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("frames", [3000])
def test_encoder_equals_qwen2_audio(model, frames):
    torch = pytest.importorskip("torch")
    from transformers import Qwen2AudioEncoderConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

    audio = CONFIG["audio_encoder_config"]
    theirs = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(
        num_mel_bins=128, encoder_layers=audio["n_audio_layer"], d_model=audio["n_audio_state"],
        encoder_attention_heads=audio["n_audio_head"], encoder_ffn_dim=4 * audio["n_audio_state"],
        max_source_positions=1500, attn_implementation="eager",
    )).eval()
    state = {}
    for name, array in tree_flatten(model.audio_encoder.parameters()):
        tensor = to_torch(array)
        state[renamed(name)] = tensor.permute(0, 2, 1) if "conv" in name and tensor.ndim == 3 else tensor
    theirs.load_state_dict(state, strict=True)
    mel = np.random.default_rng(5).standard_normal((frames, 128)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(mel.T[None].copy())).last_hidden_state[0].numpy()
    got = np.array(model.audio_encoder(mx.array(mel)[None])[0])
    assert np.abs(got - expected).max() < TOLERANCE


def test_decoder_equals_qwen2(model):
    torch = pytest.importorskip("torch")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    text = {k: v for k, v in CONFIG["text_config"].items() if k != "rope_theta"}
    theirs = Qwen2ForCausalLM(Qwen2Config(
        **text, hidden_act="silu", tie_word_embeddings=False, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, attn_implementation="eager",
    )).eval()
    state = {n: to_torch(a) for n, a in tree_flatten(model.language_model.parameters())}
    theirs.load_state_dict(state, strict=True)
    embeddings = np.random.default_rng(6).standard_normal((1, 70, 160)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.from_numpy(embeddings)).logits[0].numpy()
    ids = mx.zeros((1, 70), mx.int32)
    got = np.array(model(ids, input_embeddings=mx.array(embeddings))[0])
    assert np.abs(got - expected).max() < TOLERANCE * max(1, np.abs(expected).max())


def test_goldens_of_another_seed(tmp_path):
    """The whole reference run again with another seed, and our numbers against it."""
    pytest.importorskip("torch")
    import subprocess
    import sys
    from pathlib import Path

    from mlx_audio_r1 import load
    from tests.test_parity import FEATURES, LOG_MEL, LOGITS, distance, greedy, messages_of

    script = Path(__file__).parent / "golden" / "make_golden.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path), "--seed", "7"], check=True,
                   capture_output=True)
    pcm = mx.load(str(tmp_path / "audio.safetensors"))
    clips = {name: x.astype(mx.float32) / 32768 for name, x in pcm.items()}
    reference = mx.load(str(tmp_path / "fp32.safetensors"))
    mels = mx.load(str(tmp_path / "frontend.safetensors"))
    r1 = load(tmp_path / "tiny-fp32", chunk_seconds=29.98)
    for clip, waveform in clips.items():
        assert distance(r1.log_mel(waveform), mels[f"{clip}.log_mel"]) < LOG_MEL
        assert distance(r1.encode_audio(waveform), reference[f"{clip}.vllm.adapter"]) < FEATURES
    margins = json.loads((tmp_path / "meta.json").read_text())["prompts"]
    for name in ("s0_50.vllm", "s3_21.vllm", "s25.vllm", "s29_9.vllm"):
        messages = messages_of(name, clips)
        assert distance(r1.logits(messages), reference[f"{name}.prompt.logits"]) < LOGITS
        # equal greedy tokens can be asked for only where no two logits are closer than the tolerance
        if margins[f"{name}.prompt"]["fp32"]["smallest_margin"] > 2 * LOGITS:
            assert greedy(r1, messages, 32) == reference[f"{name}.prompt.greedy"].tolist()
