"""Reading checkpoints: official and MLX folders, and every way a folder can be wrong."""

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1 import load
from mlx_audio_r1.errors import AudioR1Error, CheckpointError
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES
from mlx_audio_r1.weights import load_model
from tests.helpers import random_checkpoint


@pytest.fixture
def copy(golden_dir, tmp_path):
    return shutil.copytree(golden_dir / "tiny-fp32", tmp_path / "model")


def shard(folder, n=1):
    return folder / f"model-0000{n}-of-00003.safetensors"


def rewrite(folder, n, change):
    """Change the tensors of one shard and keep the rest."""
    tensors = dict(mx.load(str(shard(folder, n))))
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(shard(folder, n)), tensors)


def test_convolutions_are_turned_and_nothing_else(golden_dir):
    model = load_model(golden_dir / "tiny-fp32")
    source = mx.load(str(shard(golden_dir / "tiny-fp32")))
    conv = source["encoder.conv1.weight"]
    assert mx.array_equal(model.audio_encoder.conv1.weight, conv.transpose(0, 2, 1))
    table = source["encoder.positional_embedding.weight"]
    assert mx.array_equal(model.audio_encoder.positional_embedding.weight, table)


def edit_text(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(values)
    (folder / "config.json").write_text(json.dumps(config))


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def drop_head(folder):
    rewrite(folder, 3, lambda t: t.pop("lm_head.weight"))
    edit_index(folder, lambda m: m.pop("lm_head.weight"))


def test_the_head_is_tied_only_when_the_files_hold_none_and_the_config_says_so(copy):
    drop_head(copy)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        load_model(copy)
    edit_text(copy, tie_word_embeddings=True)
    assert load_model(copy).config.text.tie_word_embeddings is True


def test_the_head_is_not_tied_even_if_the_config_says_so(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = True
    (copy / "config.json").write_text(json.dumps(config))
    assert load_model(copy).config.text.tie_word_embeddings is False


def test_the_norm_epsilon_is_read_from_the_file(copy, golden, clips):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 1e-5
    (copy / "config.json").write_text(json.dumps(config))
    logits = load(copy).logits([{"role": "system", "content": "You are helpful."},
                                {"role": "user", "content": "1+1=?"}])
    difference = mx.abs(logits - golden["text_only.logits"]).max().item()
    assert 1e-3 < difference < 0.1  # the published effect of this mistake is 0.003


def test_a_quantised_folder_loads_and_the_audio_part_stays_whole(tmp_path):
    folder = random_checkpoint(tmp_path / "model")
    model = load_model(folder)
    nn.quantize(model, 64, 4, class_predicate=lambda p, m: hasattr(m, "to_quantized")
                and not p.startswith(AUDIO_PREFIXES))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {"group_size": 64, "bits": 4, "mode": "affine"}
    (folder / "config.json").write_text(json.dumps(config))
    again = load(folder)
    assert isinstance(again.model.language_model.lm_head, nn.QuantizedLinear)
    assert type(again.model.audio_adaptor.linear1) is nn.Linear
    ids = mx.array([[1, 2, 3]])
    assert mx.array_equal(again.model(ids), model(ids))


WRONG = {
    "a missing tensor": (lambda c: rewrite(c, 2, lambda t: t.pop("model.layers.0.mlp.up_proj.weight")),
                         "up_proj.weight is in the index and in no shard"),
    "a tensor missing everywhere": (lambda c: (
        rewrite(c, 2, lambda t: t.pop("model.layers.0.mlp.up_proj.weight")),
        edit_index(c, lambda m: m.pop("model.layers.0.mlp.up_proj.weight"))), "up_proj.weight is missing"),
    "a missing head": (drop_head, "lm_head.weight is missing"),
    "an index that is a list": (lambda c: (c / "model.safetensors.index.json").write_text("[]"), "index"),
    "an index of numbers": (lambda c: (c / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": 1}}'), "index"),
    "text_config a list": (lambda c: edit(c, text_config=[1]), "text_config"),
    "eos a word": (lambda c: edit_text(c, eos_token_id="abc"), "eos_token_id"),
    "quantization a word": (lambda c: edit(c, quantization="4bit"), "quantization"),
    "unknown rope": (lambda c: edit_text(c, rope_scaling={"type": "foo"}), "cannot build"),
    "rope without factor": (lambda c: edit_text(c, rope_scaling={"type": "linear"}), "cannot build"),
    "rope a word": (lambda c: edit_text(c, rope_scaling="x"), "cannot build"),
    "epsilon not finite": (lambda c: edit_text(c, rms_norm_eps=float("nan")), "rms_norm_eps"),
    "theta zero": (lambda c: edit_text(c, rope_theta=0), "rope_theta"),
    "nested too deep": (lambda c: (c / "config.json").write_text("[" * 200_000), "config.json"),
    "a temperature in words": (lambda c: (c / "generation_config.json").write_text(
        '{"temperature": "hot"}'), "temperature"),
    "an unknown tensor": (lambda c: rewrite(c, 2, lambda t: t.update({"vision.x": mx.zeros(1)})),
                          "vision.x"),
    "an unknown layer": (lambda c: rewrite(c, 2, lambda t: t.update({"model.layers.9.x": mx.zeros(1)})),
                         "layers.9.x is not part"),
    "a wrong shape": (lambda c: rewrite(c, 3, lambda t: t.update({"model.norm.weight": mx.zeros(7)})),
                      "model.norm.weight has shape"),
    "a tensor twice": (lambda c: rewrite(c, 3, lambda t: t.update(
        {"encoder.conv1.bias": mx.zeros(64)})), "encoder.conv1.bias stands in two shards"),
    "a missing shard": (lambda c: shard(c, 2).unlink(), "model-00002-of-00003.safetensors is missing"),
    "a broken index": (lambda c: (c / "model.safetensors.index.json").write_text("{"), "index"),
    "no tokenizer": (lambda c: (c / "tokenizer.json").unlink(), "no tokenizer.json"),
    "a broken tokenizer": (lambda c: (c / "tokenizer.json").write_text("{}"), "tokenizer"),
    "a cut shard": (lambda c: cut(shard(c, 2)), "fetch it again"),
    "text for a shard": (lambda c: shard(c, 2).write_text("no"), "fetch it again"),
    "no weights": (lambda c: [p.unlink() for p in c.glob("model*")], "no model"),
    "another quantisation": (lambda c: edit(c, quantization_config={"quant_method": "compressed-tensors"}),
                             "compressed-tensors"),
}


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def edit(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_folder_gives_one_line_that_names_it(copy, fault):
    breaks, words = WRONG[fault]
    breaks(copy)
    with pytest.raises(AudioR1Error, match=words) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c", "x" * 300])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(CheckpointError, match=r"no such folder|not a folder"):
        load(name)


def test_a_vocabulary_in_separate_files_gives_the_same_ids(golden_dir, tmp_path):
    from mlx_audio_r1.tokenizer import Tokenizer

    source = json.loads((golden_dir / "tiny-fp32" / "tokenizer.json").read_text())
    added = json.loads((golden_dir / "tiny-fp32" / "added_tokens.json").read_text())
    vocab = {t: i for t, i in source["model"]["vocab"].items()}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    split, whole = Tokenizer.from_folder(tmp_path), Tokenizer.from_folder(golden_dir / "tiny-fp32")
    text = "Größe 12.5 kHz: 你好\n\n<think>\n it's  </think>\n"
    assert split.encode(text) == whole.encode(text)
    assert split.special == whole.special


def test_text_comes_back_character_by_character(tiny):
    text = "naïve 你好 🎵 end"
    stream = tiny.tokenizer.stream()
    ids = tiny.tokenizer.encode(text)
    pieces = [stream.push(i) for i in ids]
    assert "".join(pieces) + stream.finish() == text
    assert not any("\ufffd" in piece for piece in pieces)
    half = tiny.tokenizer.stream()
    assert half.push(ids[2]) == "" and half.finish() != ""
    assert np.all([isinstance(i, int) for i in ids])
