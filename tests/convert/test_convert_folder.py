"""Folder to folder: names, bytes, config, card, and what is refused."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, quantize_model, save_config, save_model

from mlx_audio_r1.convert import Options, Recipe, convert
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES
from mlx_audio_r1.weights import load_model
from tests.convert.checkpoints import (
    BF16,
    FP32,
    copy_of,
    edit_config,
    folder_bytes,
    read_all,
    single_file,
    write_shard,
)

Q4 = Recipe(quantize=True)


def as_mlx_lm_does(model, recipe: Recipe, config: dict, folder):
    """quantize_model and save of mlx-lm on the same model."""
    size = 64 if recipe.quant_predicate else recipe.group_size
    mixed = None
    if recipe.quant_predicate:
        mixed = mixed_quant_predicate_builder(recipe.quant_predicate, model, size)

    def predicate(path, module):
        return not path.startswith(AUDIO_PREFIXES) and (mixed(path, module) if mixed else True)

    model, config = quantize_model(
        model, config, size, recipe.bits, mode=recipe.mode, quant_predicate=predicate
    )
    save_model(folder, model)
    save_config(config, folder / "config.json")


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(quantize=True),
        Recipe(quantize=True, bits=8, group_size=32),
        Recipe(quantize=True, bits=3, group_size=128),
        Recipe(quantize=True, mode="mxfp4"),
        Recipe(quantize=True, mode="mxfp8"),
        Recipe(quantize=True, mode="nvfp4"),
        Recipe(quant_predicate="mixed_2_6"),
        Recipe(quant_predicate="mixed_3_4"),
        Recipe(quant_predicate="mixed_3_6"),
        Recipe(quant_predicate="mixed_4_6"),
    ],
    ids=lambda r: " ".join(r.options()),
)
@pytest.mark.parametrize("source", [BF16, FP32], ids=["bf16", "fp32"])
def test_same_arrays_and_config_as_mlx_lm(tmp_path, capsys, source, recipe):
    config = json.loads((source / "config.json").read_text())
    as_mlx_lm_does(load_model(source), recipe, config, tmp_path / "theirs")
    convert(str(source), tmp_path / "ours", recipe)
    assert read_all(tmp_path / "ours") == read_all(tmp_path / "theirs")
    ours, theirs = (json.loads((tmp_path / who / "config.json").read_text()) for who in ("ours", "theirs"))
    assert ours == theirs
    assert ours["quantization"] == ours["quantization_config"]
    ours, theirs = (
        json.loads((tmp_path / who / "model.safetensors.index.json").read_text()) for who in ("ours", "theirs")
    )
    assert ours == theirs


@pytest.mark.parametrize("source", [BF16, FP32], ids=["bf16", "fp32"])
def test_without_quantisation_every_bit_survives(tmp_path, source):
    convert(str(source), tmp_path / "out")
    official, converted = read_all(source), read_all(tmp_path / "out")
    assert len(converted) == len(official) == 94
    assert converted["language_model.lm_head.weight"] == official["lm_head.weight"]
    assert converted["audio_encoder.blocks.1.mlp.2.bias"] == official["encoder.blocks.1.mlp.2.bias"]
    dtype, shape, data = official["adapter.conv.weight"]
    width = np.uint16 if dtype == "BF16" else np.uint32
    turned = np.frombuffer(data, width).reshape(shape).transpose(0, 2, 1)
    assert converted["audio_adaptor.conv.weight"] == (dtype, turned.shape, turned.tobytes())


def test_not_a_number_keeps_its_payload(tmp_path):
    """A cast through float32 would make every NaN the same NaN."""
    tensors = read_all(BF16)
    strange = np.array([0x7FC1, 0xFFA5, 0x7F81, 0x8000] * 32, np.uint16).tobytes()
    tensors["model.norm.weight"] = ("BF16", (128,), strange)
    convert(str(single_file(tmp_path / "in", tensors)), tmp_path / "out")
    assert read_all(tmp_path / "out")["language_model.model.norm.weight"][2] == strange


def test_result_loads_and_says_what_the_source_says(tmp_path):
    convert(str(FP32), tmp_path / "out")
    ids = mx.array([[1, 7, 401, 33]])
    assert mx.array_equal(load_model(tmp_path / "out")(ids), load_model(FP32)(ids))


def test_shard_size_changes_the_files_and_not_the_tensors(tmp_path):
    convert(str(BF16), tmp_path / "one", Q4)
    convert(str(BF16), tmp_path / "many", Q4, Options(shard_bytes=200_000))
    names = sorted(p.name for p in (tmp_path / "many").glob("*.safetensors"))
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors" and len(names) > 5
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == names
    assert read_all(tmp_path / "many") == read_all(tmp_path / "one")
    for layer in {n.removesuffix(".scales") for n in index["weight_map"] if n.endswith(".scales")}:
        assert len({index["weight_map"][f"{layer}.{part}"] for part in ("weight", "scales", "biases")}) == 1


def test_safetensors_own_reader_takes_the_shards(tmp_path):
    from safetensors import safe_open

    convert(str(BF16), tmp_path / "out", Q4)
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "mlx"}
        assert "language_model.lm_head.scales" in file.keys()  # noqa: SIM118


def test_twice_gives_the_same_folder(tmp_path):
    for name in ("a", "b"):
        convert(str(BF16), tmp_path / name / "out", Q4)
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "out"]


def test_dtype_casts_what_is_not_packed(tmp_path):
    convert(str(BF16), tmp_path / "out", Recipe(quantize=True, dtype="float16"))
    kinds = {name: t[0] for name, t in read_all(tmp_path / "out").items()}
    assert set(kinds.values()) == {"F16", "U32"}
    weights = mx.load(str(tmp_path / "out" / "model.safetensors"))
    own = load_model(BF16).language_model.model.norm.weight
    assert mx.array_equal(weights["language_model.model.norm.weight"], own.astype(mx.float16))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == config["text_config"]["torch_dtype"] == "float16"


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_dequantise_gives_what_mlx_lm_gives(tmp_path, mode):
    convert(str(BF16), tmp_path / "q", Recipe(quantize=True, mode=mode))
    convert(str(tmp_path / "q"), tmp_path / "back", Recipe(dequantize=True))
    expected = dict(tree_flatten(dequantize_model(load_model(tmp_path / "q")).parameters()))
    found = mx.load(str(tmp_path / "back" / "model.safetensors"))
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], expected[name]) for name in found)
    assert all(found[name].dtype == expected[name].dtype for name in found)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config == json.loads((BF16 / "config.json").read_text())


def test_dequantise_into_another_type(tmp_path):
    convert(str(BF16), tmp_path / "q", Q4)
    convert(str(tmp_path / "q"), tmp_path / "back", Recipe(dequantize=True, dtype="float32"))
    expected = dict(tree_flatten(dequantize_model(load_model(tmp_path / "q")).parameters()))
    found = mx.load(str(tmp_path / "back" / "model.safetensors"))
    assert {x.dtype for x in found.values()} == {mx.float32}
    assert all(mx.array_equal(found[name], expected[name].astype(mx.float32)) for name in found)


def test_dequantise_follows_the_bits_of_each_layer(tmp_path):
    convert(str(BF16), tmp_path / "q", Recipe(quant_predicate="mixed_2_6"))
    convert(str(tmp_path / "q"), tmp_path / "back", Recipe(dequantize=True))
    expected = dict(tree_flatten(dequantize_model(load_model(tmp_path / "q")).parameters()))
    found = mx.load(str(tmp_path / "back" / "model.safetensors"))
    assert all(mx.array_equal(found[name], expected[name]) for name in found)


def test_an_mlx_folder_is_a_source_too(tmp_path):
    convert(str(BF16), tmp_path / "plain")
    convert(str(tmp_path / "plain"), tmp_path / "via", Q4)
    convert(str(BF16), tmp_path / "direct", Q4)
    assert read_all(tmp_path / "via") == read_all(tmp_path / "direct")


def test_small_files_come_along(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "LICENSE").write_text("Apache")
    (source / "modeling_step_audio_2.py").write_text("raise SystemExit")
    (source / "notes.bin").write_text("not this")
    convert(str(source), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "generation_config.json",
                 "chat_template.jinja", "LICENSE", "modeling_step_audio_2.py"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "out" / "notes.bin").exists()


def test_card_carries_licence_base_model_and_command(tmp_path):
    from huggingface_hub import metadata_load

    source = copy_of(BF16, tmp_path / "in")
    (source / "README.md").write_text(
        "---\nlicense: apache-2.0\nbase_model: stepfun-ai/Step-Audio-R1\ntags: [speech]\n---\nhello"
    )
    convert(str(source), tmp_path / "R1-4bit", Q4)
    card = metadata_load(tmp_path / "R1-4bit" / "README.md")
    assert card == {
        "license": "apache-2.0",
        "library_name": "mlx",
        "pipeline_tag": "audio-text-to-text",
        "base_model": "stepfun-ai/Step-Audio-R1",
        "tags": ["speech", "mlx", "mlx-audio-r1", "audio", "reasoning"],
    }
    text = (tmp_path / "R1-4bit" / "README.md").read_text()
    assert "audio-r1 convert --hf-path in --mlx-path R1-4bit -q\n" in text
    assert str(tmp_path) not in text


def test_tied_head_and_narrow_adaptor_are_told_by_the_weights(tmp_path):
    tensors = read_all(BF16)
    del tensors["lm_head.weight"]
    for name, shape in (("linear1.weight", (64, 64)), ("linear1.bias", (64,)), ("linear2.weight", (128, 64))):
        tensors[f"adapter.{name}"] = ("BF16", shape, bytes(2 * int(np.prod(shape))))
    convert(str(single_file(tmp_path / "in", tensors)), tmp_path / "out", Q4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["audio_encoder_config"]["adaptor_width"] == 64
    assert config["text_config"]["tie_word_embeddings"] is True
    assert load_model(tmp_path / "out").language_model.args.tie_word_embeddings


def test_last_dimension_that_fits_no_group_is_left_alone(tmp_path):
    source = copy_of(FP32, tmp_path / "in")
    config = json.loads((source / "config.json").read_text())
    tensors = read_all(source)
    # An inner width of 96 is no multiple of 64, so every down_proj stays as it is.
    for name, (dtype, shape, data) in tensors.items():
        if "gate_proj" in name or "up_proj" in name:
            tensors[name] = (dtype, (96, shape[1]), data[: 96 * shape[1] * 4])
        if "down_proj" in name:
            tensors[name] = (dtype, (shape[0], 96), data[: 96 * shape[0] * 4])
    config["text_config"]["intermediate_size"] = 96
    folder = single_file(tmp_path / "narrow", tensors, FP32)
    edit_config(folder, **config)
    convert(str(folder), tmp_path / "out", Q4)
    found = read_all(tmp_path / "out")
    assert found["language_model.model.layers.0.mlp.down_proj.weight"][0] == "F32"
    assert "language_model.model.layers.0.mlp.gate_proj.scales" in found


def test_nothing_that_hears_is_ever_packed(tmp_path):
    convert(str(BF16), tmp_path / "out", Q4)
    audio = {n: t for n, t in read_all(tmp_path / "out").items() if n.startswith(AUDIO_PREFIXES)}
    assert len(audio) == 94 - 1 - 1 - 1 - 4 * 12
    assert {t[0] for t in audio.values()} == {"BF16"}


# What is refused, each with one line that names the culprit.


def refused(source, target, recipe=None, options=None, kind=CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        convert(str(source), target, recipe, options)
    line = str(caught.value)
    assert "\n" not in line
    assert not target.exists()
    assert not target.with_name(target.name + ".partial").exists()
    return line


def test_missing_tensor_is_named(tmp_path):
    tensors = read_all(BF16)
    del tensors["encoder.after_norm.bias"]
    line = refused(single_file(tmp_path / "in", tensors), tmp_path / "out")
    assert line == "the source lacks the tensor for audio_encoder.after_norm.bias"


def test_unknown_tensor_is_named(tmp_path):
    for name in ("model.layers.0.self_attn.q_norm.weight", "token2wav.weight"):
        tensors = {**read_all(BF16), name: ("BF16", (2,), bytes(4))}
        source = single_file(tmp_path / name, tensors)
        line = refused(source, tmp_path / "out")
        assert line == f"model.safetensors: tensor {name} is not of this model"


def test_wrong_shape_is_named(tmp_path):
    tensors = read_all(BF16)
    tensors["encoder.conv2.weight"] = ("BF16", (64, 3, 64), tensors["encoder.conv2.weight"][2])
    line = refused(single_file(tmp_path / "in", tensors), tmp_path / "out")
    assert "encoder.conv2.weight gives the shape [64, 64, 3] where config.json asks for [64, 3, 64]" in line


def test_double_tensor_is_named(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    second = read_all(source)
    last = source / "model-00003-of-00003.safetensors"
    extra = {**{n: t for n, t in second.items() if n.startswith(("model.layers.3", "lm_head", "model.norm"))}}
    for name, place in json.loads((source / "model.safetensors.index.json").read_text())["weight_map"].items():
        if place == last.name:
            extra[name] = second[name]
    extra["encoder.conv1.bias"] = second["encoder.conv1.bias"]
    write_shard(last, extra)
    assert refused(source, tmp_path / "out") == (
        f"{last.name}: tensor encoder.conv1.bias stands in model-00001-of-00003.safetensors already"
    )


def test_truncated_shard_is_named(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    shard = source / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:size])
        assert refused(source, tmp_path / "out").startswith(f"{shard.name}: ")
    shard.write_bytes(whole + b"\0")
    assert refused(source, tmp_path / "out").endswith("it is too long")


@pytest.mark.parametrize("header", [
    b"[]", b"{", b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": [1]}}',
    b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}',
    b'{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": "no", "data_offsets": [0, 4]}}',
    b'\xff\xfe',
])
def test_hostile_headers_are_one_line(tmp_path, header):
    source = copy_of(BF16, tmp_path / "in")
    (source / "model-00001-of-00003.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    assert refused(source, tmp_path / "out").startswith("model-00001-of-00003.safetensors: ")


def test_missing_shard_is_named(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    (source / "model-00002-of-00003.safetensors").unlink()
    assert "the shard model-00002-of-00003.safetensors is missing" in refused(source, tmp_path / "out")


def test_index_that_lies_is_named(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    index = source / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**places, "ghost": "model-00001-of-00003.safetensors"}}))
    assert "model-00001-of-00003.safetensors lacks ghost" in refused(source, tmp_path / "out")
    index.write_text(json.dumps({"weight_map": {**places, "ghost": "../../etc/passwd"}}))
    assert "the shard ../../etc/passwd is missing" in refused(source, tmp_path / "out")
    index.write_text("{}")
    assert "no weight_map" in refused(source, tmp_path / "out")


def test_foreign_quantisation_is_refused(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    edit_config(source, quantization_config={"quant_method": "compressed-tensors"})
    line = refused(source, tmp_path / "out", Q4)
    assert "quantised with compressed-tensors" in line and "unquantised checkpoint" in line


def test_packed_tensors_without_a_word_in_the_config_are_refused(tmp_path):
    tensors = read_all(BF16)
    for part in ("weight_packed", "weight_scale"):
        tensors[f"model.layers.0.mlp.up_proj.{part}"] = ("U8", (4, 4), bytes(16))
    line = refused(single_file(tmp_path / "in", tensors), tmp_path / "out", Q4)
    assert "model.layers.0.mlp.up_proj.weight_packed" in line


def test_quantising_twice_is_refused(tmp_path):
    convert(str(BF16), tmp_path / "q", Q4)
    assert "already quantised to 4 bits" in refused(tmp_path / "q", tmp_path / "out", Q4)
    assert "-d has nothing to do" in refused(BF16, tmp_path / "out", Recipe(dequantize=True))


@pytest.mark.parametrize("bad", [
    {"quantize": True, "bits": 7}, {"quantize": True, "group_size": 48}, {"quantize": True, "mode": "int4"},
    {"quantize": True, "mode": "mxfp4", "bits": 8}, {"quantize": True, "dequantize": True}, {"bits": 4},
    {"quant_predicate": "mixed_1_2"}, {"dtype": "int8"}, {"quant_predicate": "mixed_4_6", "mode": "nvfp4"},
])
def test_impossible_recipes_are_refused(bad):
    with pytest.raises(ConfigError):
        Recipe(**bad)


def test_a_folder_that_is_not_there(tmp_path):
    assert refused(tmp_path / "nothing", tmp_path / "out").endswith("nothing: no such folder")
    (tmp_path / "empty").mkdir()
    assert "no model*.safetensors" in refused(tmp_path / "empty", tmp_path / "out")


def test_folder_without_weights(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text((BF16 / "config.json").read_text())
    assert "no model*.safetensors" in refused(tmp_path / "in", tmp_path / "out")


def test_folder_without_config(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    (source / "config.json").unlink()
    assert "no config.json; is this a checkpoint?" in refused(source, tmp_path / "out")


def test_pickle_without_torch_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text((BF16 / "config.json").read_text())
    (tmp_path / "in" / "pytorch_model.bin").write_bytes(b"PK")
    assert 'pip install "mlx-audio-r1[torch]"' in refused(tmp_path / "in", tmp_path / "out")


# The target.


def test_finished_target_is_kept_unless_forced(tmp_path):
    convert(str(BF16), tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(CheckpointError, match="--force"):
        convert(str(BF16), tmp_path / "out", Q4)
    assert folder_bytes(tmp_path / "out") == before
    convert(str(BF16), tmp_path / "out", Q4, Options(force=True))
    assert "quantization" in json.loads((tmp_path / "out" / "config.json").read_text())
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_force_never_replaces_what_is_no_checkpoint(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="other files"):
        convert(str(BF16), tmp_path / "home", options=Options(force=True))
    with pytest.raises(CheckpointError, match="is a file"):
        convert(str(BF16), tmp_path / "home" / "letter.txt", options=Options(force=True))
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_source_is_never_replaced_by_its_own_conversion(tmp_path):
    source = copy_of(BF16, tmp_path / "in")
    with pytest.raises(CheckpointError, match="is the source"):
        convert(str(source), source, Q4, Options(force=True))


def test_empty_target_folder_is_fine(tmp_path):
    (tmp_path / "out").mkdir()
    assert convert(str(BF16), tmp_path / "out") == tmp_path / "out"
    assert (tmp_path / "out" / "config.json").exists()
