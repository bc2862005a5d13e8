"""Linears side by side, and the decoder that uses them: same names, same memory, same numbers up to rounding.

Tolerances: of the largest logit, three layers differ by 5e-7 in float32 and, where every step rounds to
bfloat16, by 0.016, for the bias is added to a rounded product; the limits are ten and three times that. A
missing bias shows as 0.6, a rope base off by a tenth as 0.002.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache, make_prompt_cache

from mlx_audio_r1 import adapters, load
from mlx_audio_r1.adapter_config import AdapterConfig
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.models.kv_cache import RowCache
from mlx_audio_r1.models.packed import GATE_UP, QKV, pack, whole
from mlx_audio_r1.models.shared_prefix import Segment
from mlx_audio_r1.models.step_audio_r1 import Model
from tests.metalsim.simulate import Simulation
from tests.train.tiny import tiny_model

CLOSE, CLOSE_BF16 = 5e-6, 5e-2
PROMPT, NEXT = mx.array([[5, 7, 11, 13, 2, 3]]), [17, 19, 23]
QUANTISED: dict[str, dict[str, Any]] = {
    "4 bit": {"group_size": 32, "bits": 4}, "8 bit": {"group_size": 32, "bits": 8},
    "3 bit": {"group_size": 32, "bits": 3}, "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
}
KINDS = [pytest.param(kind, marks=[] if kind in ("float32", "bfloat16", "4 bit", "mxfp4") else pytest.mark.long)
         for kind in ("float32", "bfloat16", *QUANTISED)]


def model_of(kind: str = "float32") -> Model:
    model = tiny_model(layers=3)
    if kind == "bfloat16":
        model.set_dtype(mx.bfloat16)
    elif kind in QUANTISED:
        nn.quantize(model.language_model, **QUANTISED[kind])
    mx.eval(model.parameters())
    return model.eval()


def packed_model(kind: str = "float32") -> Model:
    model = model_of(kind)
    pack(model.language_model.model)
    return model


def decoded(model: Model, cache: Any = None) -> mx.array:
    """Logits of a prompt and of some tokens behind it."""
    cache = cache or make_prompt_cache(model.language_model)
    parts = [model(PROMPT, cache=cache), *(model(mx.array([[token]]), cache=cache) for token in NEXT)]
    logits = mx.concatenate(parts, axis=1)
    mx.eval(logits)
    return logits


def apart(a: mx.array, b: mx.array) -> float:
    """The largest difference, of the largest value."""
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    return (mx.abs(a - b).max() / mx.abs(b).max()).item()


def tolerance(kind: str) -> float:
    return CLOSE_BF16 if kind == "bfloat16" else CLOSE


# ---- linears side by side


@pytest.mark.parametrize("kind", KINDS)
def test_one_product_gives_what_each_linear_gives(kind: str) -> None:
    model = packed_model(kind)
    dtype = mx.bfloat16 if kind == "bfloat16" else mx.float32
    x = mx.random.normal((2, 3, 64), key=mx.random.key(1)).astype(dtype)
    for layer in model.layers:
        for owner, names in ((layer.self_attn, QKV), (layer.mlp, GATE_UP)):
            each = mx.concatenate([owner[name](x) for name in names], axis=-1)
            assert apart(whole(owner)(x), each) <= tolerance(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_values_are_as_they_were(kind: str, tmp_path: Any) -> None:
    plain, packed = (dict(tree_flatten(m.parameters())) for m in (model_of(kind), packed_model(kind)))
    mx.save_safetensors(str(tmp_path / "m.safetensors"), packed)
    saved = mx.load(str(tmp_path / "m.safetensors"))
    assert list(plain) == list(packed)
    for name, x in plain.items():
        assert x.dtype == packed[name].dtype and mx.array_equal(x, packed[name]), name
        assert mx.array_equal(x, saved[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_switch_off_every_bit_is_as_before(simulation: Simulation, kind: str) -> None:
    for switch in ("off", ""):
        with configured(switch):
            assert mx.array_equal(decoded(packed_model(kind)), decoded(model_of(kind)))
    assert simulation.launches == []


def wide_decoder() -> Any:
    """2 layers of 22 MB."""
    from mlx_lm.models import qwen2

    from mlx_audio_r1.models.decoder import open_decoder

    return open_decoder(qwen2.Model(qwen2.ModelArgs(
        model_type="qwen2", hidden_size=512, num_hidden_layers=2, intermediate_size=2816, vocab_size=8,
        num_attention_heads=8, num_key_value_heads=2, rms_norm_eps=1e-6,
    )))


def test_memory_holds_one_pack_twice_at_most_and_nothing_twice_behind_it() -> None:
    model = wide_decoder()
    mx.eval(model.parameters())
    mx.clear_cache()
    before, largest = mx.get_active_memory(), model.layers[0].mlp.gate_proj.weight.nbytes * 2
    mx.reset_peak_memory()
    pack(model.model)
    slack = 1 << 16  # sizes are rounded up to pages
    assert abs(mx.get_peak_memory() - before - largest) < slack
    assert abs(mx.get_active_memory() - before) < slack
    assert mx.get_cache_memory() < slack


# ---- what a pack notices


@pytest.fixture
def attention() -> Any:
    return packed_model().layers[1].self_attn


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda a: setattr(a.k_proj, "weight", a.k_proj.weight + 1),
    "bias": lambda a: a.update({"v_proj": {"bias": mx.zeros(32)}}),
    "cast": lambda a: a.set_dtype(mx.float16),
    "mapped": lambda a: a.update(tree_map(lambda x: x + 0, a.parameters())),
    "removed": lambda a: a.k_proj.pop("bias"),
    "quantised": lambda a: nn.quantize(a, 32, 4),
    "replaced": lambda a: setattr(a, "q_proj", nn.Linear(64, 64)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_it_and_it_lets_go_of_the_old(attention: Any, change: str) -> None:
    assert whole(attention) is not None
    CHANGES[change](attention)
    assert whole(attention) is None
    assert attention._pack is None


def test_what_has_changed_is_decoded_as_it_is_now(simulation: Simulation) -> None:
    models = packed_model(), model_of()
    for model in models:
        proj = model.layers[1].self_attn.k_proj
        proj.weight = proj.weight[::-1]
    with configured("off"):
        plain = decoded(models[1])
    with configured("on"):
        assert apart(decoded(models[0]), plain) < CLOSE
        pack(models[0].language_model.model)
        assert whole(models[0].layers[1].self_attn) is not None
        assert apart(decoded(models[0]), plain) < CLOSE


def test_a_copy_of_the_model_has_packs_of_its_own() -> None:
    model = packed_model()
    twin = copy.deepcopy(model)
    assert whole(twin.layers[0].mlp) is not None
    twin.layers[0].mlp.up_proj.weight = mx.zeros((96, 64))
    assert whole(twin.layers[0].mlp) is None and whole(model.layers[0].mlp) is not None


def test_linears_that_do_not_go_together_stay_apart() -> None:
    model = model_of()
    odd = model.layers[0]
    odd.self_attn.v_proj = nn.QuantizedLinear.from_linear(odd.self_attn.v_proj, 32, 8)
    odd.mlp.gate_proj = nn.QuantizedLinear.from_linear(odd.mlp.gate_proj, 32, 4)
    odd.mlp.up_proj = nn.QuantizedLinear.from_linear(odd.mlp.up_proj, 32, 8)
    model.layers[1].self_attn.rope.scale = 0.5
    pack(model.language_model.model)
    assert whole(odd.self_attn) is None and whole(odd.mlp) is None
    assert whole(model.layers[1].self_attn) is None and whole(model.layers[1].mlp) is not None
    assert whole(model.layers[2].self_attn) is not None


# ---- decoding


def rows_of(model: Model) -> list[Any]:
    """A batch of two rows: one has read the prompt, the other its first four tokens."""
    caches = []
    for n in (6, 4):
        cache = make_prompt_cache(model.language_model)
        mx.eval(model(PROMPT[:, :n], cache=cache))
        caches.append(cache)
    return [RowCache.merge([RowCache(own=Segment.of(c)) for c in layer]) for layer in zip(*caches, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_give_the_logits_of_plain_operations(simulation: Simulation, kind: str) -> None:
    with configured("off"):
        plain = decoded(model_of(kind))
    with configured("on"):
        assert apart(decoded(packed_model(kind)), plain) < tolerance(kind)
    assert {launch.kernel for launch in simulation.launches} == {"add_rms_norm", "qkv_rope"}


CACHES: dict[str, Callable[[], Any]] = {
    "exact": KVCache, "8 bit": lambda: QuantizedKVCache(group_size=32, bits=8),
    "rotating": lambda: RotatingKVCache(max_size=8, keep=2),
}


@pytest.mark.parametrize("cache", CACHES)
def test_with_every_cache_of_one_stream(simulation: Simulation, cache: str) -> None:
    """A value that differs by a rounding may fall to the neighbouring code: hence the limit of the 8 bits."""
    model = tiny_model(layers=3, heads=2, kv_heads=1).eval()  # heads of 32, which quantise
    with configured("off"):
        plain = decoded(model, [CACHES[cache]() for _ in range(3)])
    pack(model.language_model.model)
    with configured("on"):
        got = decoded(model, [CACHES[cache]() for _ in range(3)])
    assert simulation.count("qkv_rope") >= 3 * (1 + len(NEXT))
    assert apart(got, plain) < (1e-3 if cache == "8 bit" else CLOSE)


def test_in_a_batch_of_rows_of_different_lengths(simulation: Simulation) -> None:
    model, tokens = packed_model(), mx.array([[17], [19]])
    with configured("off"):
        plain = model(tokens, cache=rows_of(model))
        mx.eval(plain)
    with configured("on"):
        got = model(tokens, cache=rows_of(model))
        mx.eval(got)
    assert apart(got, plain) < CLOSE
    assert apart(got[1:], model(mx.array([[5, 7, 11, 13, 19]]))[:, -1:]) < CLOSE


def test_another_norm_in_its_place_is_asked(simulation: Simulation) -> None:
    model, plain = packed_model(), model_of()
    for each in (model, plain):
        each.language_model.model.norm = nn.LayerNorm(64)
        each.layers[1].post_attention_layernorm = nn.Identity()
    with configured("off"):
        want = decoded(plain)
    with configured("on"):
        assert apart(decoded(model), want) < CLOSE
    assert simulation.count("add_rms_norm") > 0


@pytest.mark.parametrize("where", ["without a cache", "training", "without Metal"])
def test_elsewhere_it_is_the_plain_code_to_the_bit(where: str, simulation: Simulation,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = packed_model(), model_of()
    if where == "without Metal":
        monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    if where == "training":
        model.train()
    with configured("on"):
        if where == "without a cache":
            assert mx.array_equal(model(PROMPT), plain(PROMPT))
        else:
            assert mx.array_equal(decoded(model), decoded(plain.train(model.training)))
    assert simulation.launches == []


# ---- adapters and training


LORA = AdapterConfig("lora")


@pytest.fixture
def pair() -> Iterator[tuple[Model, Model]]:
    """The same model, packed and not, each with the same adapter put on afterwards."""
    yield _adapted(packed_model()), _adapted(model_of())


def _adapted(model: Model) -> Model:
    adapters.attach(model, LORA, seed=5)
    arrays = adapters.adapter_arrays(model)
    keys = mx.random.split(mx.random.key(2), len(arrays))
    adapters.fill(model, {name: x + 0.1 * mx.random.normal(x.shape, key=key)
                          for (name, x), key in zip(sorted(arrays.items()), keys, strict=True)}, "test")
    return model


def test_an_adapter_put_on_later_gives_the_same_logits(simulation: Simulation, pair: Any) -> None:
    packed, plain = pair
    with configured("off"):
        want = decoded(plain)
        assert mx.array_equal(decoded(packed), want)
    with configured("on"):
        assert whole(packed.layers[0].mlp) is None  # it wears the adapter
        assert apart(decoded(packed), want) < CLOSE
        with adapters.disabled(packed):
            assert apart(decoded(packed), decoded(model_of())) < CLOSE
    assert apart(want, decoded(model_of())) > 0.1


def test_an_adapter_taken_off_brings_the_pack_back(simulation: Simulation, pair: Any) -> None:
    packed, _ = pair
    adapters.detach(packed)
    assert all(whole(layer.self_attn) and whole(layer.mlp) for layer in packed.layers)
    with configured("on"):
        assert apart(decoded(packed), decoded(model_of())) < CLOSE


def test_lora_learns_the_same_to_the_bit(simulation: Simulation, pair: Any) -> None:
    packed, plain = pair
    with configured("on"):
        assert _losses(packed) == _losses(plain)
    assert simulation.launches == []


def test_a_full_fine_tune_of_a_packed_model_learns_the_same_to_the_bit(simulation: Simulation) -> None:
    models = packed_model(), model_of()
    for model in models:
        adapters.attach(model, AdapterConfig("full"))
    with configured("on"):
        assert _losses(models[0]) == _losses(models[1])
        models[0].eval()
        assert apart(decoded(models[0]), decoded(models[1].eval())) < CLOSE


def _losses(model: Model, steps: int = 4) -> list[float]:
    model.train()
    optimizer = optim.Adam(1e-2)
    step = nn.value_and_grad(model, lambda m: nn.losses.cross_entropy(m(PROMPT[:, :-1]), PROMPT[:, 1:]).mean())
    losses = []
    for _ in range(steps):
        loss, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    return losses


# ---- loading


def is_packed(model: Model) -> bool:
    owners = [owner for layer in model.layers for owner in (layer.self_attn, layer.mlp)]
    assert len({whole(owner) is None for owner in owners}) == 1
    return whole(owners[0]) is not None


def test_a_checkpoint_is_packed_as_it_is_loaded_where_kernels_may_run(simulation: Simulation) -> None:
    for switch, packs in (("off", False), ("", False), ("on", True), ("off,qkv_rope=on", True)):
        with configured(switch):
            assert is_packed(load().model) is packs


@pytest.mark.parametrize("lazy", [False, True])
def test_otherwise_it_is_packed_before_the_first_token_with_the_switch_on(
    simulation: Simulation, lazy: bool
) -> None:
    with configured("on" if lazy else "off"):
        r1 = load(lazy=lazy)
        assert not is_packed(r1.model)
    with configured("on"):
        r1.ask(prompt="Name all sounds in order.", max_tokens=1)
        assert is_packed(r1.model)
    assert simulation.count("qkv_rope") > 0


def test_without_metal_nothing_is_packed() -> None:
    model = model_of()
    with configured("on"):
        model.language_model.model.prepare()
        decoded(model)
    assert not is_packed(model)
