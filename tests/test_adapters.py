"""An adapter put on, saved, loaded, switched off; against mlx-lm's own layers and files."""

import json
import shutil

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters, parse_adapter_config
from mlx_audio_r1.adapter_files import describe_adapter, fingerprint
from mlx_audio_r1.adapters import (
    adapter_arrays,
    attach,
    detach,
    disabled,
    fill,
    load_adapter,
    resolved,
    save_adapter,
    settle,
)
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models import adapter_layers
from mlx_audio_r1.weights import load_model
from tests.helpers import random_checkpoint

SEVEN = {f"self_attn.{n}_proj" for n in "qkvo"} | {f"mlp.{n}_proj" for n in ("gate", "up", "down")}
IDS = mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])
MEL = mx.random.normal((90, 128), key=mx.random.key(5))
KINDS = {"fp32": {}, "bf16": {"dtype": mx.bfloat16}, "4 bits": {"bits": 4}, "6 bits": {"bits": 6}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("adapters") / "model")


@pytest.fixture
def build(checkpoint):
    def model(dtype=None, bits=None):
        built = load_model(checkpoint)
        if dtype:
            built.set_dtype(dtype)
        if bits:
            nn.quantize(built.language_model, group_size=32, bits=bits)
        return built.eval()

    return model


def config(kind="lora", num_layers=-1, also_trained=(), **lora):
    return AdapterConfig(kind, num_layers, LoRAParameters(**{"rank": 4, "scale": 2.0, **lora}), also_trained)


def shaken(model, seed=7):
    """The adapter of `model` moved away from its beginning, by a tenth of a normal number."""
    arrays = adapter_arrays(model)
    keys = mx.random.split(mx.random.key(seed), len(arrays))
    fill(model, {n: x + 0.1 * mx.random.normal(x.shape, key=k)
                 for (n, x), k in zip(sorted(arrays.items()), keys, strict=True)}, "test")
    return model


def outputs(model):
    """Logits and adapted audio features."""
    return model(IDS), model.encode_audio(MEL)


def same(a, b):
    return all(x.dtype == y.dtype and mx.array_equal(x, y) for x, y in zip(a, b, strict=True))


def away(a, b):
    """The largest difference, relative to the largest value."""
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(a, b, strict=True))


# ---- the configuration


def test_a_configuration_is_read_as_it_was_written():
    given = config("dora", 3, ("audio_adaptor",), dropout=0.1, keys=("self_attn.q_proj",))
    assert parse_adapter_config(json.loads(json.dumps(given.to_dict()))) == given


def test_keys_of_other_tools_are_carried_along():
    data = {**config().to_dict(), "batch_size": 4, "model": "base", "lr_schedule": None}
    read = parse_adapter_config(data)
    assert read.model == "base" and read.to_dict() == data


def test_alpha_in_place_of_scale_is_explained():
    data = config().to_dict()
    data["lora_parameters"]["alpha"] = data["lora_parameters"].pop("scale")
    with pytest.raises(ConfigError, match="has alpha where mlx-lm has scale; write scale = alpha / rank"):
        parse_adapter_config(data)


@pytest.mark.parametrize(("changes", "words"), [
    ({"fine_tune_type": "lokr"}, "fine_tune_type is 'lokr'"),
    ({"num_layers": "16"}, "num_layers is '16'"),
    ({"num_layers": -2}, "num_layers is -2"),
    ({"also_trained": "audio_adaptor"}, "also_trained is 'audio_adaptor', expected a list"),
    ({"model": 3}, "model is 3"),
    ({"lora_parameters": None}, "lora_parameters is missing"),
    ({"lora_parameters": {"rank": 0, "scale": 1}}, "rank is 0"),
    ({"lora_parameters": {"rank": True, "scale": 1}}, "rank is True"),
    ({"lora_parameters": {"rank": 2**40, "scale": 1}}, "expected a whole number, 1 to 65536"),
    ({"lora_parameters": {"rank": 8}}, "lacks scale"),
    ({"lora_parameters": {"rank": 8, "scale": float("nan")}}, "scale is nan"),
    ({"lora_parameters": {"rank": 8, "scale": 1, "dropout": 1}}, "dropout is 1"),
    ({"lora_parameters": {"rank": 8, "scale": 1, "keys": []}}, "keys is empty"),
    ({"lora_parameters": {"rank": 8, "scale": 1, "keys": [4]}}, r"keys is \[4\]"),
    ({"peft_type": "LORA"}, "audio-r1 adapters import"),
])  # fmt: skip
def test_wrong_values_are_named(changes, words):
    with pytest.raises(ConfigError, match=words):
        parse_adapter_config({**config().to_dict(), **changes})


# ---- putting it on


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("base", KINDS)
def test_a_fresh_adapter_changes_no_bit(build, kind, base):
    model = build(**KINDS[base])
    before = outputs(model)
    attach(model, config(kind, keys=(*SEVEN, "audio_adaptor.*", "audio_encoder.*", "lm_head")))
    assert same(outputs(model), before)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("base", KINDS)
def test_what_is_trained_is_float32_and_nothing_else_is_trained(build, kind, base):
    model = build(**KINDS[base])
    attach(model, config(kind, also_trained=("audio_adaptor",)))
    trained = dict(tree_flatten(model.trainable_parameters()))
    leaves = {"lora_a", "lora_b"} | ({"m"} if kind == "dora" else set())
    layers = {n for n in trained if not n.startswith("audio_adaptor.")}
    assert {x.dtype for x in trained.values()} == {mx.float32}
    assert len(layers) == 4 * 7 * len(leaves) and {n.rpartition(".")[2] for n in layers} == leaves
    assert set(trained) - layers == {f"audio_adaptor.{n}.{p}" for n in ("conv", "linear1", "linear2")
                                     for p in ("weight", "bias")}
    assert {name.removeprefix("language_model.") for name in trained} == set(adapter_arrays(model))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_it_computes_in_the_type_of_the_model(build, kind):
    model = build(dtype=mx.bfloat16)
    attach(model, config(kind, also_trained=("audio_encoder",)))
    assert model(IDS).dtype == mx.bfloat16
    layer = model.layers[0].mlp.up_proj
    x = mx.random.normal((2, 128)).astype(mx.bfloat16)
    gradient = mx.grad(lambda a: (layer.update({"lora_a": a}), layer(x).sum())[1])(layer.lora_a)
    assert layer(x).dtype == mx.bfloat16 and gradient.dtype == mx.float32


@pytest.mark.parametrize("bits", [None, 4])
def test_lora_is_mlx_lms_to_the_bit_in_float32(build, bits):
    model, theirs = build(bits=bits), build(bits=bits)
    attach(model, config())
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0}
    linear_to_lora_layers(theirs, -1, parameters)
    shaken(model)
    theirs.update(model.parameters())
    assert isinstance(theirs.layers[0].mlp.up_proj, LoRALinear)
    assert mx.array_equal(model(IDS), theirs(IDS))


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_dora_is_mlx_lms(build, bits):
    model, theirs = build(bits=bits), build(bits=bits)
    attach(model, config("dora"))
    linear_to_lora_layers(theirs, -1, {"rank": 4, "scale": 2.0, "dropout": 0.0}, use_dora=True)
    begun = {n: x for n, x in tree_flatten(theirs.parameters()) if n.endswith(".m")}
    ours = dict(tree_flatten(model.parameters()))
    # Both are the norm of a row of 128 or 256 float32 values; the order of summing may differ. Measured 0.
    assert all(mx.allclose(ours[n], m, rtol=1e-6, atol=0) for n, m in begun.items())
    shaken(model)
    theirs.update(model.parameters())
    assert isinstance(theirs.layers[0].mlp.up_proj, DoRALinear)
    # |W + sBA| from three sums instead of one, through four layers: measured 7e-7.
    assert away([model(IDS)], [theirs(IDS)]) < 1e-5


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("bits", [None, 4])
def test_gradients_are_mlx_lms(build, kind, bits):
    model, theirs = build(bits=bits), build(bits=bits)
    attach(model, config(kind))
    theirs.freeze()
    linear_to_lora_layers(theirs, -1, {"rank": 4, "scale": 2.0, "dropout": 0.0}, use_dora=kind == "dora")
    theirs.update(shaken(model).parameters())
    ours, others = (dict(tree_flatten(nn.value_and_grad(m, lambda m: m(IDS).square().mean())(m)[1]))
                    for m in (model, theirs))  # fmt: skip
    assert ours.keys() == others.keys()
    # Each relative to its own largest value. DoRA's norm is the difference again: measured 7e-6; LoRA: 0.
    assert max(away([x], [others[name]]) for name, x in ours.items()) < (5e-5 if kind == "dora" else 1e-9)


def test_no_float32_copy_of_a_bfloat16_input_is_made():
    """Beside input and output one array of their size, where mlx-lm has five: measured 32 and 96 MB."""
    linear = nn.Linear(512, 512, bias=False)
    linear.set_dtype(mx.bfloat16)
    parent = nn.Module()
    parent.layer, theirs = LoRALinear.from_base(linear).eval(), LoRALinear.from_base(linear).eval()
    adapter_layers.open_adapters(parent, seed=0)
    x = mx.random.normal((16_384, 512)).astype(mx.bfloat16)  # 16 MB
    mx.eval(x, parent.parameters(), theirs.parameters())

    def peak(layer):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(layer(x))
        return mx.get_peak_memory() - before

    assert peak(parent.layer) <= 2.1 * x.nbytes < 5 * x.nbytes < peak(theirs)


def test_dora_keeps_magnitudes_that_bfloat16_cannot_tell_from_one(build):
    model = build(dtype=mx.bfloat16)
    attach(model, config("dora", num_layers=1, keys=("mlp.up_proj",)))
    layer = model.layers[-1].mlp.up_proj
    layer.m = layer.m * 1.001  # bfloat16 has 1 and 1.0078
    assert mx.allclose(layer.gain(), mx.full((256,), 0.001), rtol=1e-3, atol=0)


def test_the_same_seed_gives_the_same_bits(build):
    def begun(seed, **lora):
        model = build()
        mx.random.seed(0 if seed else 99)  # of no influence
        attach(model, config(**lora), seed)
        return adapter_arrays(model)

    first, again, other, alone = begun(1), begun(1), begun(2), begun(1, keys=("self_attn.v_proj",))
    assert all(mx.array_equal(x, again[n]) for n, x in first.items())
    assert all(not mx.array_equal(x, other[n]) for n, x in first.items() if n.endswith("lora_a"))
    assert all(mx.array_equal(x, first[n]) for n, x in alone.items())
    values = first["model.layers.0.mlp.down_proj.lora_a"]
    assert values.shape == (256, 4)
    assert 0.9 / 16 < values.abs().max().item() <= 1 / 16  # uniform within 1 / sqrt(256)


# ---- which layers


def adapted_names(model):
    return {name for name, _ in adapter_layers.adapted(model)}


def test_without_keys_every_linear_of_the_last_layers_is_adapted(build):
    model = build()
    written = attach(model, config(num_layers=2))
    assert set(written.lora_parameters.keys) == SEVEN
    assert adapted_names(model) == {f"language_model.model.layers.{i}.{key}" for i in (2, 3) for key in SEVEN}


@pytest.mark.parametrize(("keys", "num_layers", "expected"), [
    (("self_attn.v_proj",), 1, {"language_model.model.layers.3.self_attn.v_proj"}),
    (("self_attn.v_proj",), 99, {f"language_model.model.layers.{i}.self_attn.v_proj" for i in range(4)}),
    (("*.v_proj", "model.layers.3.self_attn.v_proj"), 1, {"language_model.model.layers.3.self_attn.v_proj"}),
    (("model.layers.1.mlp.up_proj",), 1, {"language_model.model.layers.1.mlp.up_proj"}),
    (("language_model.model.layers.1.mlp.up_proj",), 1, {"language_model.model.layers.1.mlp.up_proj"}),
    (("audio_adaptor.linear1",), -1, {"audio_adaptor.linear1"}),
    (("audio_adaptor.*",), -1, {"audio_adaptor.linear1", "audio_adaptor.linear2"}),
    (("audio_encoder.blocks.*.mlp.2",), -1, {"audio_encoder.blocks.0.mlp.2", "audio_encoder.blocks.1.mlp.2"}),
    (("audio_encoder.blocks.1.attn.*",), 0,
     {f"audio_encoder.blocks.1.attn.{n}" for n in ("query", "key", "value", "out")}),
    (("lm_head",), -1, {"language_model.lm_head"}),
])  # fmt: skip
def test_keys_choose_layers(build, keys, num_layers, expected):
    model = build()
    written = attach(model, config(num_layers=num_layers, keys=keys))
    assert adapted_names(model) == expected
    again = build()
    assert attach(again, written) == written and adapted_names(again) == expected
    assert resolved(model, written) == written  # of an adapted model the same


@pytest.mark.parametrize(("changes", "words"), [
    ({"keys": ("q_proj",)}, r"no linear is called q_proj; within a decoder layer there are mlp\.down_proj"),
    ({"keys": ("audio_adaptor.conv",)}, "audio_adaptor.conv is a Conv1d.*also_trained"),
    ({"keys": ("model.embed_tokens",)}, "model.embed_tokens is a Embedding.*also_trained"),
    ({"keys": ("audio_adaptor.linear9",)}, "no linear is called audio_adaptor.linear9"),
    ({"also_trained": ("audio_adapter",)}, "no module is called audio_adapter"),
    ({"also_trained": ("audio_adaptor.conv.weight",)}, "no module is called audio_adaptor.conv.weight"),
    ({"also_trained": ("audio_adaptor", "audio_adaptor.conv")}, "audio_adaptor.conv lies within audio_adaptor"),
    ({"also_trained": ("audio_adaptor",), "keys": ("audio_adaptor.linear1",)}, "lies within audio_adaptor"),
])  # fmt: skip
def test_names_that_fit_nothing_are_refused_before_anything_changes(build, changes, words):
    model = build()
    before = outputs(model)
    with pytest.raises(ConfigError, match=words):
        attach(model, config(**changes))
    assert same(outputs(model), before) and tree_flatten(model.trainable_parameters())


def test_a_second_adapter_is_refused(build):
    model = build()
    attach(model, config())
    with pytest.raises(ConfigError, match="carries an adapter already"):
        attach(model, config())


def test_full_trains_the_decoder_and_what_is_named(build):
    model = build(dtype=mx.bfloat16)
    attach(model, AdapterConfig("full", also_trained=("audio_adaptor",)))
    trained = dict(tree_flatten(model.trainable_parameters()))
    everything = {name for name, _ in tree_flatten(model.parameters())}
    assert set(trained) == {n for n in everything if not n.startswith("audio_encoder.")}
    assert {x.dtype for x in trained.values()} == {mx.float32}


def test_full_of_some_layers_is_mlx_lms(build):
    model = build()
    attach(model, AdapterConfig("full", 2))
    assert {n.split(".")[3] for n, _ in tree_flatten(model.trainable_parameters())} == {"2", "3"}


@pytest.mark.parametrize("given", [AdapterConfig("full"), AdapterConfig("full", 1),
                                   AdapterConfig(also_trained=("lm_head",))])  # fmt: skip
def test_a_quantised_layer_is_never_trained_as_a_whole(build, given):
    with pytest.raises(ConfigError, match="is quantised and cannot be trained as a whole: use lora or dora"):
        attach(build(bits=4), given)


def test_dropout_acts_in_training_alone(build, tmp_path):
    model = build()
    written = attach(model, config(dropout=0.5))
    save_adapter(tmp_path, shaken(model), written)
    loaded = build()
    load_adapter(loaded, tmp_path)
    assert mx.array_equal(loaded(IDS), model(IDS)) and mx.array_equal(loaded(IDS), loaded(IDS))
    model.train()
    mx.random.seed(1)
    assert not mx.array_equal(model(IDS), model(IDS))


# ---- files


@pytest.mark.parametrize("given", [
    config(), config("dora", 2, ("audio_adaptor",)),
    config(keys=("self_attn.q_proj", "audio_encoder.*", "lm_head")),
    AdapterConfig("full"), AdapterConfig("full", 1, also_trained=("audio_encoder",)),
], ids=["lora", "dora and adaptor", "encoder and head", "full", "full of one layer and encoder"])  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_what_is_saved_loads_to_the_same_bits(build, tmp_path, given, training):
    model = build()
    written = attach(model, given)
    save_adapter(tmp_path / "a", shaken(model), written)
    again = build()
    assert load_adapter(again, tmp_path / "a", training=training) == written
    assert same(outputs(again), outputs(model))
    assert bool(tree_flatten(again.trainable_parameters())) is training and again.training is False


def test_parts_trained_as_a_whole_come_back_in_the_type_of_the_base(build, tmp_path):
    model = build(dtype=mx.bfloat16)
    written = attach(model, config(also_trained=("audio_adaptor",)))
    save_adapter(tmp_path, shaken(model), written)
    again = build(dtype=mx.bfloat16)
    load_adapter(again, tmp_path)
    assert again.audio_adaptor.conv.weight.dtype == mx.bfloat16
    assert again.layers[0].mlp.up_proj.lora_a.dtype == mx.float32


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lm_loads_an_adapter_of_the_decoder(build, tmp_path, kind):
    model = build()
    written = attach(model, config(kind, 3, keys=("self_attn.*", "model.layers.0.mlp.up_proj", "lm_head")))
    save_adapter(tmp_path, shaken(model), written)
    theirs = load_adapters(build().language_model, str(tmp_path))
    assert away([theirs(IDS)], [model(IDS)]) < (1e-5 if kind == "dora" else 1e-9)  # LoRA: the same bits


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("num_layers", [2, -1, 99])
def test_an_adapter_of_mlx_lm_loads(build, tmp_path, kind, num_layers):
    base = build()
    theirs, parameters = base.language_model, {"rank": 4, "scale": 2.0, "dropout": 0.0}
    theirs.freeze()
    if kind == "full":  # as mlx_lm.lora does
        for layer in theirs.layers[-max(num_layers, 0):]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(theirs, num_layers, parameters, use_dora=kind == "dora")
    theirs.update(tree_map(lambda x: x + 0.1 * mx.random.normal(x.shape), theirs.trainable_parameters()))
    trained = dict(tree_flatten(theirs.trainable_parameters()))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), trained)
    (tmp_path / "adapter_config.json").write_text(json.dumps({
        "fine_tune_type": kind, "num_layers": num_layers, "adapter_path": "adapters", "model": "base",
        "lora_parameters": None if kind == "full" else parameters, "batch_size": 4, "lr_schedule": None,
    }))
    model = build()
    assert load_adapter(model, tmp_path).extra["batch_size"] == 4
    assert away([model(IDS)], [theirs(IDS)]) < 1e-5  # DoRA's norm again; the others give the same bits


def test_names_that_begin_at_the_whole_model_are_read_too(build, tmp_path):
    model = build()
    written = attach(model, config())
    save_adapter(tmp_path, shaken(model), written)
    path = tmp_path / "adapters.safetensors"
    arrays = {f"language_model.{n}": x for n, x in mx.load(str(path)).items()}
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays)
    again = build()
    load_adapter(again, tmp_path)
    assert same(outputs(again), outputs(model))


def test_a_numbered_file_of_a_run_is_an_adapter_too(build, tmp_path):
    model = build()
    written = attach(model, config())
    save_adapter(tmp_path, model, written)
    save_adapter(tmp_path, shaken(model), written, filename="0000100_adapters.safetensors")
    again = build()
    load_adapter(again, tmp_path / "0000100_adapters.safetensors")
    assert same(outputs(again), outputs(model))


def test_a_checkpoint_of_a_run_is_an_adapter_too(build, tmp_path):
    """As train/state.py writes them: names from the whole model, no configuration of their own."""
    model = build()
    save_adapter(tmp_path, model, attach(model, config()))
    step = tmp_path / "checkpoints" / "0000100"
    step.mkdir(parents=True)
    arrays = dict(tree_flatten(shaken(model).trainable_parameters()))
    mx.save_safetensors(str(step / "adapters.safetensors"), arrays)
    again = build()
    load_adapter(again, step)
    assert same(outputs(again), outputs(model))


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory):
    """A sound adapter to break copies of."""
    model = load_model(checkpoint)
    written = attach(model, config(also_trained=("audio_adaptor",)))
    return save_adapter(tmp_path_factory.mktemp("sound") / "adapters", model, written)


def rewrite(folder, change):
    path = folder / "adapters.safetensors"
    arrays = mx.load(str(path))
    mx.eval(arrays)
    change(arrays)
    path.unlink()
    mx.save_safetensors(str(path), arrays)


Q = "model.layers.0.self_attn.q_proj.lora_a"
BREAKS = {
    "no such folder": (shutil.rmtree, "no such folder"),
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "no adapter_config.json; give"),
    "a checkpoint": (lambda f: (f / "adapter_config.json").rename(f / "config.json"), "which --model takes"),
    "no weights": (lambda f: (f / "adapters.safetensors").unlink(), "no adapters.safetensors; the adapter"),
    "broken json": (lambda f: (f / "adapter_config.json").write_text("{"), "not readable as JSON"),
    "a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "expected an object"),
    "cut short": (lambda f: (f / "adapters.safetensors").write_bytes(
        (f / "adapters.safetensors").read_bytes()[:-100]), "cut short"),
    "cut in the header": (lambda f: (f / "adapters.safetensors").write_bytes(
        (f / "adapters.safetensors").read_bytes()[:50]), "not a safetensors file"),
    "empty": (lambda f: (f / "adapters.safetensors").write_bytes(b""), "not a safetensors file"),
    "a header that is a list": (lambda f: (f / "adapters.safetensors").write_bytes(
        b"\2\0\0\0\0\0\0\0[]"), "broken"),
    "no tensor at all": (lambda f: rewrite(f, dict.clear), "empty"),
    "a tensor is missing": (lambda f: rewrite(f, lambda a: a.pop(Q)), f"tensor {Q} is missing"),
    "a foreign tensor": (lambda f: rewrite(f, lambda a: a.update(other=mx.zeros(3))), "tensor other belongs"),
    "another size": (lambda f: rewrite(f, lambda a: a.update({Q: mx.zeros((64, 4))})),
                     r"has shape \(64, 4\), this model needs \(128, 4\); is the adapter of another model"),
    "twice": (lambda f: rewrite(f, lambda a: a.update({f"language_model.{Q}": a[Q]})), "stands there twice"),
    "integers": (lambda f: rewrite(f, lambda a: a.update({Q: a[Q].astype(mx.int32)})), "floating point"),
    "a whole part is missing": (lambda f: rewrite(f, lambda a: a.pop("audio_adaptor.conv.bias")),
                                "tensor audio_adaptor.conv.bias is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_adapter_gives_one_line_and_leaves_the_model_alone(build, saved, tmp_path, name):
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    damage, words = BREAKS[name]
    damage(folder)
    model = build()
    before = outputs(model)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_adapter(model, folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert same(outputs(model), before) and not adapted_names(model)
    load_adapter(model, saved)  # and it takes a sound one


def test_a_file_is_no_adapter(build, tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_adapter(build(), tmp_path / "a.txt")


def test_a_folder_is_never_half_old_and_half_new(build, tmp_path, monkeypatch):
    model = build()
    save_adapter(tmp_path, model, attach(model, config()))
    detach(model)
    other = attach(model, config(rank=8))
    monkeypatch.setattr("mlx_audio_r1.adapter_files.write_arrays", lambda *_: 1 / 0)  # it ends here
    with pytest.raises(ZeroDivisionError):
        save_adapter(tmp_path, model, other)
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        load_adapter(build(), tmp_path)


def test_the_fingerprint_is_that_of_the_content(saved, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    assert fingerprint(copy) == fingerprint(saved)
    rewrite(copy, lambda a: a.update({Q: a[Q] + 1e-7}))
    changed = fingerprint(copy)
    assert changed != fingerprint(saved)
    data = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**data, "model": "other"}))
    assert fingerprint(copy) not in (changed, fingerprint(saved))


def test_an_adapter_is_described_from_its_header(saved):
    told = describe_adapter(saved)
    # 4 layers: rank 4 x (in + out) of q, o (128 + 128), k, v (128 + 32), gate, up, down (128 + 256)
    lora = 4 * 4 * (2 * 256 + 2 * 160 + 3 * 384)
    adaptor = 3 * 64 * 64 + 64 + 64 * 2048 + 2048 + 2048 * 128 + 128
    assert told["parameters"] == lora + adaptor
    assert told["kind"] == "lora" and told["rank"] == 4 and told["layers"] == "all"
    assert told["also_trained"] == "audio_adaptor"


# ---- in use

OFF = {
    "lora": config(keys=(*SEVEN, "audio_adaptor.linear1", "lm_head")),
    "dora": config("dora"),
    "adaptor and encoder": config(also_trained=("audio_adaptor", "audio_encoder")),
    "full": AdapterConfig("full", also_trained=("audio_adaptor",)),
}


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_switched_off_it_is_the_base_to_the_bit(build, name, dtype):
    model = build(dtype=dtype)
    base = outputs(model)
    attach(model, OFF[name])
    tuned = outputs(shaken(model))
    assert not mx.array_equal(tuned[0], base[0]) or not mx.array_equal(tuned[1], base[1])
    with disabled(model):
        assert same(outputs(model), base) and model.adapter_off
        with disabled(model):
            assert same(outputs(model), base)
        assert same(outputs(model), base)
    assert same(outputs(model), tuned) and not model.adapter_off
    with pytest.raises(ZeroDivisionError), disabled(model), disabled(model):
        raise ZeroDivisionError
    assert same(outputs(model), tuned)
    model.train()
    with disabled(model):
        assert same(outputs(model), base)


def test_a_full_fine_tune_loaded_to_be_used_lets_go_of_the_base(build, tmp_path):
    model = build()
    save_adapter(tmp_path, model, attach(model, AdapterConfig("full")))
    loaded = build()
    load_adapter(loaded, tmp_path)
    for use in (detach, lambda m: disabled(m).__enter__()):
        with pytest.raises(CheckpointError, match="training=True"):
            use(loaded)


@pytest.mark.parametrize("name", OFF)
def test_taken_off_it_is_the_base_to_the_bit(build, name):
    model = build(dtype=mx.bfloat16)
    base, names = outputs(model), [n for n, _ in tree_flatten(model.parameters())]
    attach(model, OFF[name])
    detach(shaken(model))
    assert same(outputs(model), base) and [n for n, _ in tree_flatten(model.parameters())] == names
    attach(model, OFF[name])


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("base", KINDS)
def test_settled_it_gives_the_same_bits(build, kind, base):
    model = build(**KINDS[base])
    plain = build(**KINDS[base])
    plain_base = outputs(plain)
    attach(model, config(kind, keys=(*SEVEN, "audio_adaptor.linear1")))
    before = outputs(shaken(model))
    settle(model)
    assert same(outputs(model), before)
    with disabled(model):
        assert same(outputs(model), plain_base)
    shaken(model, seed=8)  # new arrays undo it
    assert not same(outputs(model), before)
    settle(model)
    model.train()  # and so does training
    model.layers[0].mlp.up_proj.lora_b = mx.zeros((4, 256))
    changed = model(IDS)
    model.eval()
    assert mx.array_equal(model(IDS), changed)


def test_a_step_moves_the_adapter_and_nothing_else(build):
    import mlx.optimizers as optim

    model = build(bits=4)
    attach(model, config("dora", also_trained=("audio_adaptor",)))
    model.train()
    before = dict(tree_flatten(model.parameters()))

    def loss(m):
        return m(IDS).square().mean() + m.encode_audio(MEL).square().mean()

    optimizer = optim.AdamW(learning_rate=1e-3)
    for _ in range(2):  # after the first, B is no longer zero and A gets a gradient
        _, gradients = nn.value_and_grad(model, loss)(model)
        optimizer.update(model, gradients)
    trained = {n for n, _ in tree_flatten(model.trainable_parameters())}
    moved = {n for n, x in tree_flatten(model.parameters()) if not mx.array_equal(x, before[n])}
    assert moved == trained
