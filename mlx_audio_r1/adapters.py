"""An adapter on a model: put LoRA, DoRA or trained weights on it, save, load, switch off.

    config = attach(model, AdapterConfig(num_layers=16), seed=0)      # ready to train
    save_adapter("adapters", model, config)
    load_adapter(model, "adapters")                                    # on another model of the same base

Files are mlx-lm's: names start at the decoder (`model.layers.0.self_attn.q_proj.lora_a`), so mlx_lm loads an
adapter of the decoder alone, and its adapters load here; the audio parts keep their own names. Names that
start with `language_model.` are read too. What is trained is float32, whatever the model is; an optimizer
in bfloat16 loses most of its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_audio_r1.adapter_config import CONFIG_FILE, WEIGHTS_FILE, AdapterConfig
from mlx_audio_r1.adapter_files import read_adapter, read_arrays, write_adapter
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models.adapter_layers import adapted, measure, open_adapters
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES
from mlx_audio_r1.models.step_audio_r1 import Model

DECODER = "language_model."
LEAVES = ("lora_a", "lora_b", "m")
LET_GO = "the base was let go when this full fine-tune was loaded: load it with training=True"
Arrays = dict[str, mx.array]


@dataclass
class _Attached:
    """What a model with an adapter remembers. whole: parameters trained as they are. base: their values
    before, None where they were let go."""

    config: AdapterConfig
    whole: tuple[str, ...]
    base: Arrays | None


# ---- putting it on


def attach(model: Model, config: AdapterConfig, seed: int = 0) -> AdapterConfig:
    """Freeze `model`, put the adapter on it and leave only that trainable, in float32.

    Returns the configuration with every key written out. A fresh adapter changes no logit by a bit; the
    same seed gives the same adapter. `full` trains the decoder (its last `num_layers`; with all of them
    also embedding, norm and head), the audio parts where also_trained names them. Raises ConfigError.
    """
    config = _begin(model, config, seed)
    measure(model)
    return config


def checked(outline: Model, config: AdapterConfig, arrays: Mapping[str, mx.array], where: str | Path) -> Arrays:
    """`arrays` of a file by the names of the model, when they are what `config` puts on it.

    `outline` is a model that nobody needs, its weights not read, and they will not be. Raises
    CheckpointError as `fill` does.
    """
    _begin(outline, config, seed=0)
    given = _checked(arrays, adapter_arrays(outline), where, _optional(outline, _require(outline)))
    return {full_name(name): x for name, x in given.items()}


def _begin(model: Model, config: AdapterConfig, seed: int) -> AdapterConfig:
    """`attach`, with nothing computed yet."""
    if _state(model) is not None:
        raise ConfigError("the model carries an adapter already; detach it first")
    training = model.training
    config = resolved(model, config)
    model.freeze()
    if not config.is_full:
        _put_layers(model, config, seed)
    modules = _whole_modules(model, config)
    base = {f"{name}.{key}": value for name in modules
            for key, value in tree_flatten(_module(model, name).parameters())}
    model._adapter = _Attached(config, tuple(base), base)
    _put(model, {name: value.astype(mx.float32) for name, value in base.items()})
    for name in modules:
        _module(model, name).unfreeze()
    model.train(training)
    return config


def detach(model: Model) -> None:
    """Take the adapter off: the base as it was, frozen."""
    state = _require(model)
    if state.base is None:
        raise CheckpointError(LET_GO)
    model.update_modules(tree_unflatten([(name, layer.linear) for name, layer in adapted(model)]))
    _put(model, state.base)
    del model._adapter
    model.freeze()


def resolved(model: Model, config: AdapterConfig) -> AdapterConfig:
    """`config` with mlx-lm's names, patterns written out, and every name looked up in `model`."""
    whole = tuple(_to_file(name) for name in config.also_trained)
    config = replace(config, also_trained=tuple(dict.fromkeys(whole)))
    if not config.is_full:
        keys = _keys(model, config.lora_parameters.keys, _layers(model, config.num_layers))
        config = replace(config, lora_parameters=replace(config.lora_parameters, keys=keys))
    _check_whole(model, config)
    return config


def _keys(model: Model, asked: tuple[str, ...] | None, layers: range) -> tuple[str, ...]:
    """Names of linears within a layer, or from the root in mlx-lm's spelling; no linear twice."""
    inner = dict.fromkeys(name for layer in model.layers for name in _linears(layer))
    if asked is None:
        return tuple(inner)
    outer = [_to_file(name) for name in _linears(model)]
    found: dict[str, None] = {}
    for key in asked:
        matches = _matching(inner, key) or _matching(outer, _to_file(key))
        if not matches:
            raise ConfigError(_no_linear(model, key, list(inner)))
        found.update(dict.fromkeys(matches))
    twice = {f"model.layers.{i}.{key}" for i in layers for key in found if key in inner}
    return tuple(key for key in found if key not in twice)


def _layers(model: Model, num_layers: int) -> range:
    """Numbers of the last `num_layers` decoder layers; 0 or -1 is all."""
    total = len(model.layers)
    return range(total - num_layers if 0 < num_layers < total else 0, total)


def _no_linear(model: Model, key: str, inner: list[str]) -> str:
    """Why a key fits nothing."""
    with suppress(LookupError, AttributeError):
        module = _module(model, full_name(key))
        if isinstance(module, nn.Module):
            return (f"lora_parameters: {key} is a {type(module).__name__}, and LoRA goes on linears; "
                    "also_trained trains it as a whole")
    return (f"lora_parameters: no linear is called {key}; within a decoder layer there are {', '.join(inner)}; "
            "from the root: audio_adaptor.linear1, say")


def _matching(names: Iterable[str], key: str) -> list[str]:
    return [name for name in names if name == key or fnmatchcase(name, key)]


def _linears(module: nn.Module) -> list[str]:
    """Names of the linears below, sorted; an adapted one counts under the name of its base."""
    names = [name for name, m in module.named_modules() if isinstance(m, (nn.Linear, nn.QuantizedLinear))]
    return sorted((name.removesuffix(".linear") for name in names), key=_by_number)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _put_layers(model: Model, config: AdapterConfig, seed: int) -> None:
    parameters = config.lora_parameters.to_dict()
    inner = {name for layer in model.layers for name in _linears(layer)}
    parameters["keys"] = {key if key in inner else full_name(key) for key in parameters["keys"]}
    linear_to_lora_layers(model, config.num_layers, parameters, use_dora=config.fine_tune_type == "dora")
    open_adapters(model, seed)


def _whole_modules(model: Model, config: AdapterConfig) -> list[str]:
    """Modules that are trained as a whole, by our names."""
    named = [full_name(name) for name in config.also_trained]
    if not config.is_full:
        return named
    if config.num_layers < 1:
        return [DECODER[:-1], *named]
    return [*(f"{DECODER}model.layers.{i}" for i in _layers(model, config.num_layers)), *named]


def _check_whole(model: Model, config: AdapterConfig) -> None:
    modules = _whole_modules(model, config)
    for name in modules:
        try:
            module = _module(model, name)
        except (LookupError, AttributeError):
            module = None
        if not isinstance(module, nn.Module):
            raise ConfigError(f"also_trained: no module is called {_to_file(name)}; audio_adaptor is one")
        packed = next((path for path, m in module.named_modules() if hasattr(m, "bits")), None)
        if packed is not None:
            where = f"{name}.{packed}".rstrip(".")
            raise ConfigError(f"{where} is quantised and cannot be trained as a whole: use lora or dora, or a "
                              "base that is not quantised (audio-r1 convert -d)")
    keys = () if config.is_full else config.lora_parameters.keys or ()
    for name in modules:
        twice = [n for n in (*(full_name(key) for key in keys), *modules) if n.startswith(f"{name}.")]
        if twice:
            raise ConfigError(f"{_to_file(twice[0])} lies within {_to_file(name)}, which is trained as a whole")


# ---- its arrays


def adapter_arrays(model: Model) -> Arrays:
    """What the adapter consists of, by the names of its file."""
    state = _require(model)
    parameters = dict(tree_flatten(model.parameters()))
    layers = [f"{name}.{leaf}" for name, layer in adapted(model) for leaf in LEAVES if leaf in layer]
    return {_to_file(name): parameters[name] for name in (*layers, *state.whole)}


def fill(model: Model, arrays: Mapping[str, mx.array], where: str | Path, *, masters: bool = True) -> None:
    """Put arrays of a file into the adapter on `model`; all names and shapes must fit.

    LoRA's parts become float32; parts trained as a whole too, or the base's type without `masters`. Raises
    CheckpointError naming the tensor, before anything is changed. Of `full`, mlx-lm saves the layers alone.
    """
    state, ours = _require(model), adapter_arrays(model)
    given = _checked(arrays, ours, where, _optional(model, state))
    base = {} if masters or state.base is None else {_to_file(n): x.dtype for n, x in state.base.items()}
    new = {full_name(name): x.astype(base.get(name, mx.float32)) for name, x in given.items()}
    if base:  # what the file leaves out
        new = {full_name(n): ours[n].astype(dtype) for n, dtype in base.items()} | new
    for _, layer in adapted(model):
        layer.unsettle()
    _put(model, new)


def _checked(
    arrays: Mapping[str, mx.array], ours: Arrays, where: str | Path, optional: set[str]
) -> Arrays:
    given: Arrays = {}
    for spelled, x in arrays.items():
        name = _to_file(spelled)
        if name in given:
            raise CheckpointError(f"{where}: tensor {name} stands there twice, as {spelled} too")
        if name not in ours:
            raise CheckpointError(f"{where}: tensor {spelled} belongs to nothing {CONFIG_FILE} adapts here")
        if x.shape != ours[name].shape:
            raise CheckpointError(f"{where}: tensor {spelled} has shape {x.shape}, this model needs "
                                  f"{ours[name].shape}; is the adapter of another model?")
        if not mx.issubdtype(x.dtype, mx.floating):
            raise CheckpointError(f"{where}: tensor {spelled} is {x.dtype}, expected floating point")
        given[name] = x
    missing = sorted(ours.keys() - given.keys() - optional)
    if missing:
        raise CheckpointError(f"{where}: tensor {missing[0]} is missing"
                              + (f", and {len(missing) - 1} more" if len(missing) > 1 else ""))
    return given


def _optional(model: Model, state: _Attached) -> set[str]:
    """Parts of a full fine-tune that mlx-lm leaves frozen: what is of the decoder and of no layer."""
    if not state.config.is_full:
        return set()
    named = tuple(f"{name}." for name in state.config.also_trained)
    names = (_to_file(name) for name in state.whole)
    return {n for n in names if not n.startswith(("model.layers.", *AUDIO_PREFIXES, *named))}


# ---- files


def save_adapter(
    folder: str | Path, model: Model, config: AdapterConfig, *, filename: str = WEIGHTS_FILE
) -> Path:
    """Write adapter_config.json and the weights (`filename`) as `write_adapter` does; gives the folder."""
    return write_adapter(folder, adapter_arrays(model), resolved(model, config), filename)


def load_adapter(model: Model, path: str | Path, *, training: bool = False) -> AdapterConfig:
    """Put the adapter in `path` on `model`, as `attach` would; mlx-lm's adapters load too.

    With `training` everything of it is float32 and trainable. Without, parts trained as a whole get the
    base's type, and a full fine-tune lets go of the base. Raises CheckpointError, the model as it was.
    """
    config, weights = read_adapter(path)
    arrays = read_arrays(weights)
    try:
        config = attach(model, config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        fill(model, arrays, weights, masters=training)
        mx.eval(adapter_arrays(model))
    except (CheckpointError, RuntimeError) as error:
        detach(model)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{weights}: broken or cut short ({error})") from None
    if not training:
        model.freeze()
        if config.is_full:
            _require(model).base = None
    return config


# ---- in use


@contextmanager
def disabled(model: Model) -> Iterator[None]:
    """The base inside the block, to the bit, also where parts were trained as a whole. Blocks may nest.

    Do not change the adapter inside. Raises CheckpointError when the base was let go.
    """
    state = _require(model)
    if state.whole and state.base is None:
        raise CheckpointError(LET_GO)
    if model.adapter_off:
        yield
        return
    parameters = dict(tree_flatten(model.parameters())) if state.whole else {}
    trained = {name: parameters[name] for name in state.whole}
    try:
        _switch(model, off=True)
        _put(model, state.base or {})
        yield
    finally:
        _put(model, trained)
        _switch(model, off=False)


def settle(model: Model) -> None:
    """Compute once what inference would compute at every call; training undoes it.

    Whoever changes the adapter's arrays by other means than `fill` and `model.train()` must do it again.
    """
    hears, speaks = model.audio_encoder.after_norm.weight.dtype, model.language_model.model.norm.weight.dtype
    for name, layer in adapted(model):
        layer.settle(hears if name.startswith(AUDIO_PREFIXES) else speaks)


def _switch(model: Model, *, off: bool) -> None:
    model.adapter_off = off
    for _, layer in adapted(model):
        layer.off = off


def _state(model: Model) -> _Attached | None:
    return getattr(model, "_adapter", None)


def _require(model: Model) -> _Attached:
    state = _state(model)
    if state is None:
        raise CheckpointError("the model carries no adapter")
    return state


def _put(model: Model, arrays: Mapping[str, mx.array]) -> None:
    if arrays:
        model.update(tree_unflatten(list(arrays.items())))


def _module(model: nn.Module, name: str) -> Any:
    """The module of a dotted name. Raises LookupError or AttributeError."""
    found: Any = model
    for part in name.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def _to_file(name: str) -> str:
    return name.removeprefix(DECODER)


def full_name(name: str) -> str:
    """The name in the model of what a file calls `name`."""
    return name if f"{name}.".startswith((DECODER, *AUDIO_PREFIXES)) else DECODER + name
