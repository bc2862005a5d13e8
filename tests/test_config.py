"""config.json in every layout, and the length arithmetic."""

import json

import mlx.core as mx
import pytest

from mlx_audio_r1.config import MAX_CHUNK_SAMPLES, mel_frames, parse_config, patch_count, read_config
from mlx_audio_r1.errors import ConfigError

TEXT = {
    "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40, "num_attention_groups": 8,
    "num_key_value_heads": 8, "intermediate_size": 27648, "vocab_size": 158720, "rms_norm_eps": 1e-5,
    "rope_theta": 1e6, "rope_scaling": None, "max_position_embeddings": 65536, "eos_token_id": 151643,
    "max_seq_len": 16384, "torch_dtype": "bfloat16",
}
AUDIO = {
    "n_mels": 128, "n_audio_ctx": 1500, "n_audio_state": 1280, "n_audio_head": 20, "n_audio_layer": 32,
    "n_codebook_size": 4096, "llm_dim": 5120, "kernel_size": 3, "adapter_stride": 2,
}
TOP = {"architectures": ["StepAudio2ForCausalLM"], "model_type": "step_audio_2", "sliding_window": 2048}
NESTED = {**TOP, "audio_encoder_config": AUDIO, "text_config": TEXT}
FLAT = {**TOP, **TEXT, "audio_encoder_config": AUDIO}


def test_nested_and_flat_layouts_say_the_same():
    nested, flat = parse_config(NESTED), parse_config(FLAT)
    assert nested.text == flat.text and nested.audio == flat.audio
    assert nested.text.rms_norm_eps == 1e-5 and nested.text.head_dim == 128
    assert nested.eos_token_ids == flat.eos_token_ids == (151643,)


def test_the_head_is_not_tied_when_the_key_is_absent():
    assert parse_config(NESTED).text.tie_word_embeddings is False


def test_mini_sizes():
    text = {**TEXT, "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "intermediate_size": 18944}
    config = parse_config({**NESTED, "text_config": text, "audio_encoder_config": {**AUDIO, "llm_dim": 3584}})
    assert (config.text.num_key_value_heads, config.text.head_dim) == (4, 128)


def changed(where: str, **values) -> dict:
    part = {k: v for k, v in {**NESTED[where], **values}.items() if v != "absent"}
    return {**NESTED, where: part}


@pytest.mark.parametrize(("data", "words"), [
    ([], "object"),
    ({**TOP, **TEXT}, "audio_encoder_config"),
    (changed("text_config", hidden_size="absent"), "hidden_size"),
    (changed("text_config", hidden_size="5120"), "hidden_size"),
    (changed("text_config", num_hidden_layers=0), "num_hidden_layers"),
    (changed("text_config", rms_norm_eps="x"), "rms_norm_eps"),
    (changed("text_config", num_attention_heads=7), "multiple"),
    (changed("audio_encoder_config", llm_dim=4096), "llm_dim"),
    (changed("audio_encoder_config", n_audio_head=3), "multiple"),
    ({**NESTED, "audio_length_convention": "other"}, "audio_length_convention"),
])
def test_wrong_values_are_named(data, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_config(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", "\xff\xfe"])
def test_a_broken_file_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_lengths_of_the_published_table(meta):
    for row in meta["length_table"]:
        n = row["samples"]
        assert mel_frames(n) == row["mel"]
        assert (patch_count(n), patch_count(n, "hf")) == (row["vllm"], row["hf"])
        assert (n <= MAX_CHUNK_SAMPLES) == row["fits"]


def test_official_sample_files_have_the_published_patch_counts():
    published = {75093: (59, 59), 160000: (125, 125), 105140: (83, 82), 254491: (199, 199),
                 160118: (126, 125), 222912: (175, 174), 400000: (313, 313), 30464: (24, 24)}
    for samples, counts in published.items():
        assert (patch_count(samples), patch_count(samples, "hf")) == counts


@pytest.mark.parametrize("convention", ["vllm", "hf"])
def test_patch_count_is_the_adaptors_length(convention, tiny, tiny_hf):
    # every T mod 8, short and long, and the longest chunk
    r1 = {"vllm": tiny, "hf": tiny_hf}[convention]
    for samples in [*range(321, 40 * 160, 160), *range(300_000, 302_000, 160), MAX_CHUNK_SAMPLES]:
        features = r1.model.encode_audio(mx.zeros((mel_frames(samples), 128)))
        assert features.shape[0] == patch_count(samples, convention), samples


def test_a_chunk_of_30_seconds_does_not_fit():
    assert (mel_frames(480_000) + 1) // 2 > 1500
    assert (mel_frames(MAX_CHUNK_SAMPLES) + 1) // 2 == 1500


def test_unknown_convention():
    with pytest.raises(ConfigError):
        patch_count(16_000, "other")


def test_golden_config_round_trips(golden_dir):
    config = read_config(golden_dir / "tiny-fp32")
    assert config.raw == json.loads((golden_dir / "tiny-fp32" / "config.json").read_text())
