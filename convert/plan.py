"""Source headers + recipe -> every tensor that will be written: name, type, shape, shard.

Nothing is guessed about quantisation: the real model is built without evaluating it (MLX is lazy, so
64 layers cost a few megabytes), mlx-lm quantises it, and the outcome is read off. The surprise: the
plan is complete before the first weight is read, which is what makes a resumed conversion come out
byte for byte as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import get_total_parameters, quantize_model

from mlx_audio_r1.config import ModelConfig, parse_config
from mlx_audio_r1.convert.reader import DTYPES, FLOATING, WORDS, Entry
from mlx_audio_r1.convert.recipe import Recipe
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models.key_map import (
    AUDIO_PREFIXES,
    CONV_AXES,
    CONVOLUTIONS,
    is_official,
    our_name,
)
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.weights import ADAPTOR_LINEAR, HEAD, quantise_like

SHARD_BYTES = 5 << 30  # mlx-lm's shard size
MODEL_TYPE = "step_audio_2"
DEFAULT_ADAPTOR_WIDTH = 2048
PACKED_PARTS = ("weight", "scales", "biases")  # of a quantised layer, in the order they are written
FOREIGN_SUFFIXES = (".weight_packed", ".weight_scale", ".qweight", ".weight_scale_inv")


@dataclass(frozen=True)
class Packing:
    """How the weight of one layer is quantised."""

    group_size: int
    bits: int
    mode: str


@dataclass(frozen=True)
class Output:
    """One tensor of an output shard."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].size


@dataclass(frozen=True)
class Step:
    """One weight: what is read, what happens to it, what is written.

    `sources` is one tensor, or weight, scales and biases when a quantised source is unpacked. The
    order of work is unpack, axes, dtype, pack.
    """

    sources: tuple[Entry, ...]
    outputs: tuple[Output, ...]
    dtype: str
    axes: tuple[int, ...] | None = None
    unpack: Packing | None = None
    pack: Packing | None = None

    @property
    def source_bytes(self) -> int:
        return sum(s.nbytes for s in self.sources)

    @property
    def output_bytes(self) -> int:
        return sum(o.nbytes for o in self.outputs)


@dataclass(frozen=True)
class PlannedShard:
    """One output file: its name, its steps, and the number of the first of them."""

    name: str
    steps: tuple[Step, ...]
    first: int

    @property
    def outputs(self) -> list[Output]:
        return [o for step in self.steps for o in step.outputs]


@dataclass(frozen=True)
class Plan:
    """All that will be written. `config` is the config.json of the result."""

    shards: tuple[PlannedShard, ...]
    config: Mapping[str, Any]
    total_parameters: int

    @property
    def steps(self) -> list[Step]:
        return [step for shard in self.shards for step in shard.steps]

    @property
    def output_bytes(self) -> int:
        return sum(step.output_bytes for step in self.steps)

    def index(self) -> dict[str, Any]:
        """The content of model.safetensors.index.json."""
        places = {o.name: shard.name for shard in self.shards for o in shard.outputs}
        sizes = {"total_size": self.output_bytes, "total_parameters": self.total_parameters}
        return {"metadata": sizes, "weight_map": dict(sorted(places.items()))}


def make_plan(
    entries: Iterable[Entry],
    raw_config: Mapping[str, Any],
    recipe: Recipe,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Every step of a conversion, in the order of the source files.

    Raises CheckpointError naming the tensor that is unknown, double, missing or of another shape.
    """
    entries = sorted(entries, key=lambda e: (e.shard, e.begin))
    _refuse_foreign_quantisation(raw_config, entries)
    packed = raw_config.get("quantization")
    _check_recipe_fits(packed, recipe)
    sources = _by_our_name(entries)
    config = _config_with_shapes(raw_config, sources)
    _check_against_model(sources, config, packed)
    dtypes = _weight_dtypes(sources, packed, recipe)
    model, out_config, packings = _quantised_outline(config, raw_config, dtypes, recipe)
    steps = _steps(sources, packed, dtypes, dict(tree_flatten(model.parameters())), packings)
    return Plan(
        shards=_shards(steps, shard_bytes),
        config=_output_config(out_config, config, recipe),
        total_parameters=get_total_parameters(model),
    )


def _refuse_foreign_quantisation(raw_config: Mapping[str, Any], entries: list[Entry]) -> None:
    foreign = raw_config.get("quantization_config") if "quantization" not in raw_config else None
    method = foreign.get("quant_method", "an unnamed method") if isinstance(foreign, Mapping) else None
    name = next((e.name for e in entries if e.name.endswith(FOREIGN_SUFFIXES)), None)
    if method is None and name is None:
        return
    how = f"quantised with {method}" if method else f"quantised already (it holds {name})"
    raise CheckpointError(
        f"the source is {how}, which this cannot read; start from the unquantised checkpoint"
    )


def _check_recipe_fits(packed: Any, recipe: Recipe) -> None:
    if packed and not recipe.dequantize:
        raise CheckpointError(
            f"the source is already quantised to {packed.get('bits')} bits; dequantise it with -d, "
            "or start from the unquantised checkpoint"
        )
    if packed and not all(isinstance(packed.get(key), int) for key in ("group_size", "bits")):
        raise ConfigError("config.json: quantization lacks group_size or bits")
    if recipe.dequantize and not packed:
        raise CheckpointError("the source is not quantised, so -d has nothing to do")


def _by_our_name(entries: list[Entry]) -> dict[str, Entry]:
    """Every source tensor under its name here. Raises when one is unknown or stands twice."""
    official = is_official(e.name for e in entries)
    sources: dict[str, Entry] = {}
    for entry in entries:
        name = our_name(entry.name) if official else entry.name
        if name is None:
            raise CheckpointError(f"{entry.shard}: tensor {entry.name} is not of this model")
        if name in sources:
            raise CheckpointError(
                f"{entry.shard}: tensor {entry.name} stands in {sources[name].shard} already"
            )
        sources[name] = entry
    return sources


def _config_with_shapes(raw_config: Mapping[str, Any], sources: Mapping[str, Entry]) -> ModelConfig:
    linear = sources.get(ADAPTOR_LINEAR)
    width = linear.shape[0] if linear else DEFAULT_ADAPTOR_WIDTH
    return parse_config(raw_config).with_shapes(adaptor_width=width, tied=HEAD not in sources)


def outline(entries: Iterable[Entry], raw_config: Mapping[str, Any]) -> Model:
    """The model that a source holds, quantised as it is, no array of it evaluated.

    Raises CheckpointError naming the tensor that is unknown, double, missing or of another shape.
    """
    sources = _by_our_name(list(entries))
    config = _config_with_shapes(raw_config, sources)
    return _check_against_model(sources, config, raw_config.get("quantization"))


def plan_to_keep(
    entries: Iterable[Entry], raw_config: Mapping[str, Any], repacked: Container[str],
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """A plan for a quantised source that stays quantised: every tensor as it is, but the layers in
    `repacked` are unpacked on the way and packed again as they were."""
    entries = sorted(entries, key=lambda e: (e.shard, e.begin))
    packed, sources = raw_config["quantization"], _by_our_name(entries)
    config = _config_with_shapes(raw_config, sources)
    model = _check_against_model(sources, config, packed)
    steps = []
    for name in sources:
        layer, _, part = name.rpartition(".")
        parts = [name]
        if f"{layer}.scales" in sources and part in PACKED_PARTS:
            parts = [f"{layer}.{p}" for p in PACKED_PARTS if f"{layer}.{p}" in sources]
        if name == parts[0]:
            again = _source_packing(packed, layer) if len(parts) > 1 and layer in repacked else None
            steps += _keep([(part, sources[part]) for part in parts], again)
    return Plan(
        shards=_shards(steps, shard_bytes),
        config=_output_config(copy.deepcopy(dict(raw_config)), config, Recipe()),
        total_parameters=get_total_parameters(model),
    )


def _keep(parts: list[tuple[str, Entry]], again: Packing | None) -> list[Step]:
    """Steps for the tensors of one layer: each as it is, or one that unpacks and packs them again."""
    outputs = tuple(Output(name, entry.dtype, entry.shape) for name, entry in parts)
    entries = tuple(entry for _, entry in parts)
    if again is None:
        return [Step((e,), (o,), e.dtype) for e, o in zip(entries, outputs, strict=True)]
    dtype = entries[1].dtype if entries[1].dtype in FLOATING else "BF16"
    return [Step(entries, outputs, dtype, unpack=again, pack=again)]


def _check_against_model(
    sources: Mapping[str, Entry], config: ModelConfig, packed: Mapping[str, Any] | None
) -> Model:
    """Every parameter filled once by a tensor of its shape, and no tensor left over; the outline."""
    model = Model(config)
    if packed:
        try:
            quantise_like(model, dict.fromkeys(sources), dict(packed))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"config.json: quantization cannot be used ({error})") from None
    expected = {name: tuple(p.shape) for name, p in tree_flatten(model.parameters())}
    for name, entry in sources.items():
        if name not in expected:
            raise CheckpointError(f"{entry.shard}: tensor {entry.name} is not of this model")
        shape = _shape_here(entry)
        if shape != expected[name]:
            raise CheckpointError(
                f"{entry.shard}: tensor {entry.name} gives the shape {list(shape)} where config.json "
                f"asks for {list(expected[name])}"
            )
    missing = sorted(set(expected) - set(sources))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"the source lacks the tensor for {missing[0]}{more}")
    return model


def _shape_here(entry: Entry) -> tuple[int, ...]:
    if entry.name not in CONVOLUTIONS or len(entry.shape) != len(CONV_AXES):
        return entry.shape
    return tuple(entry.shape[axis] for axis in CONV_AXES)


def _weight_dtypes(
    sources: Mapping[str, Entry], packed: Mapping[str, Any] | None, recipe: Recipe
) -> dict[str, str]:
    """Parameter of the unquantised model -> the type it has just before it is packed."""
    asked = WORDS[getattr(mx, recipe.dtype)] if recipe.dtype else None
    dtypes = {}
    for name, entry in sources.items():
        if packed and name.endswith((".scales", ".biases")):
            continue
        own = entry.dtype
        if packed and (scales := sources.get(name.removesuffix("weight") + "scales")):
            # MLX unpacks affine weights into the type of the scales, the others into bfloat16.
            own = scales.dtype if scales.dtype in FLOATING else "BF16"
        dtypes[name] = asked if asked and own in FLOATING else own
    return dtypes


def _quantised_outline(
    config: ModelConfig, raw_config: Mapping[str, Any], dtypes: Mapping[str, str], recipe: Recipe
) -> tuple[Model, dict[str, Any], dict[str, Packing]]:
    """The model as it will be written, its config, and the packing of each packed layer.

    No array of it is ever evaluated.
    """
    model = Model(config)
    model.update(
        tree_map_with_path(lambda name, p: mx.zeros(p.shape, DTYPES[dtypes[name]]), model.parameters())
    )
    out_config = copy.deepcopy(dict(raw_config))
    out_config.pop("quantization", None)
    out_config.pop("quantization_config", None)
    if not recipe.quantize:
        return model, out_config, {}
    predicate = _predicate(model, recipe)
    with contextlib.redirect_stdout(io.StringIO()):  # mlx-lm prints the bits per weight
        model, out_config = quantize_model(
            model,
            out_config,
            _group_size(recipe),
            recipe.bits,
            mode=recipe.mode,
            quant_predicate=predicate,
        )
    modules = ((p, m) for p, m in model.named_modules() if hasattr(m, "bits"))
    return model, out_config, {p: Packing(m.group_size, m.bits, m.mode) for p, m in modules}


def _group_size(recipe: Recipe) -> int | None:
    # mlx-lm writes null into the config when a mixed recipe gets no group size.
    return recipe.group_size or (64 if recipe.quant_predicate else None)


def _predicate(model: Model, recipe: Recipe) -> Any:
    """Which layers mlx-lm packs, and how: all of the decoder, nothing that hears."""
    mixed = None
    if recipe.quant_predicate:
        mixed = mixed_quant_predicate_builder(recipe.quant_predicate, model, _group_size(recipe))

    def chosen(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if path.startswith(AUDIO_PREFIXES):
            return False
        return mixed(path, module) if mixed else True

    return chosen


def _steps(
    sources: Mapping[str, Entry],
    packed: Mapping[str, Any] | None,
    dtypes: Mapping[str, str],
    written: Mapping[str, mx.array],
    packings: Mapping[str, Packing],
) -> list[Step]:
    steps = []
    for name, dtype in dtypes.items():
        layer = name.rpartition(".")[0]
        names = [name]
        if layer in packings and name == f"{layer}.weight":
            names = [f"{layer}.{part}" for part in PACKED_PARTS if f"{layer}.{part}" in written]
        outputs = tuple(Output(n, WORDS[written[n].dtype], tuple(written[n].shape)) for n in names)
        parts = [name]
        if packed and name == f"{layer}.weight":
            parts = [f"{layer}.{part}" for part in PACKED_PARTS if f"{layer}.{part}" in sources]
        steps.append(
            Step(
                sources=tuple(sources[part] for part in parts),
                outputs=outputs,
                dtype=dtype,
                axes=CONV_AXES if sources[name].name in CONVOLUTIONS else None,
                unpack=_source_packing(packed, layer) if len(parts) > 1 else None,
                pack=packings.get(layer) if len(names) > 1 else None,
            )
        )
    return sorted(steps, key=lambda step: max((s.shard, s.begin) for s in step.sources))


def _source_packing(packed: Mapping[str, Any], layer: str) -> Packing:
    own = packed.get(layer) if isinstance(packed.get(layer), Mapping) else packed
    return Packing(own["group_size"], own["bits"], own.get("mode", packed.get("mode", "affine")))


def _shards(steps: list[Step], shard_bytes: int) -> tuple[PlannedShard, ...]:
    """Fill shards in order; a step is never split, so a packed layer stays in one file."""
    groups: list[list[Step]] = []
    size = 0
    for step in steps:
        if not groups or size + step.output_bytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(step)
        size += step.output_bytes
    shards, first = [], 0
    for number, group in enumerate(groups, 1):
        numbered = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        name = numbered if len(groups) > 1 else "model.safetensors"
        shards.append(PlannedShard(name, tuple(group), first))
        first += len(group)
    return tuple(shards)


def _output_config(out_config: dict[str, Any], config: ModelConfig, recipe: Recipe) -> dict[str, Any]:
    """The source's keys, and what only the weights told."""
    text = out_config.get("text_config") or out_config
    out_config["model_type"] = MODEL_TYPE
    if config.audio.adaptor_width != DEFAULT_ADAPTOR_WIDTH:
        out_config["audio_encoder_config"]["adaptor_width"] = config.audio.adaptor_width
    if config.text.tie_word_embeddings:
        text["tie_word_embeddings"] = True
    if recipe.dtype:
        for values in (out_config, text):
            for key in ("torch_dtype", "dtype"):
                if key in values:
                    values[key] = recipe.dtype
    return out_config
