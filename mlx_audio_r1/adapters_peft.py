"""Adapters of Hugging Face's peft, both ways.

Their factors are the transposes of ours: lora_A.weight is (r, in) and lora_B.weight (out, r) where lora_a is
(in, r) and lora_b (r, out). Their names are `base_model.model.` and the official name of the module:
`model.layers.0.self_attn.q_proj`, `encoder.blocks.0.attn.query`, `adapter.linear1`; those of a bare Qwen2 are
read as well. `scale` is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. The surprise: with
rank_pattern or alpha_pattern layers differ in rank and scale, which mlx-lm's format cannot say; a smaller rank
is then filled up with zeros and a scale folded into lora_b, which changes no logit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.adapter_config import CONFIG_FILE, AdapterConfig, LoRAParameters
from mlx_audio_r1.adapter_files import read_adapter, read_arrays, write_adapter, write_pair
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models.key_map import CONV_AXES, CONVOLUTIONS

PEFT_WEIGHTS, PEFT_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
ROOT = "base_model.model."
PREFIXES = (  # of a module in peft's files -> in ours; the first that fits
    ("model.language_model.", "model."),
    ("language_model.", ""),
    ("model.", "model."),
    ("layers.", "model.layers."),  # of a Qwen2Model without a head
    ("lm_head.", "lm_head."),
    ("encoder.", "audio_encoder."),
    ("adapter.", "audio_adaptor."),
)
OFFICIAL = (("audio_encoder.", "encoder."), ("audio_adaptor.", "adapter."))
PART = re.compile(r"(?P<module>.+)\.(?P<leaf>lora_A|lora_B|lora_magnitude_vector)(\.default)?(\.weight)?")
LEAVES = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}
INNER = re.compile(r"model\.layers\.(\d+)\.(.+)")
UNSUPPORTED = {  # key of their configuration -> why it cannot be said in ours
    "lora_bias": "it trains biases of the factors",
    "layer_replication": "it repeats layers of the base",
    "trainable_token_indices": "it trains single rows of the embedding",
    "alora_invocation_tokens": "its layers act on part of a prompt",
    "use_qalora": "its factors see pooled inputs",
    "target_parameters": "it adapts bare parameters",
    "kasa_config": "its layers have a third factor",
    "use_bdlora": "its factors are block-diagonal",
    "arrow_config": "it mixes several adapters",
    "monteclora_config": "its factors are drawn at random",
}
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # beginnings that take from the base


@dataclass
class _Peft:
    """A peft adapter by our names. layers: module -> lora_a, lora_b, m. whole: parameter -> array."""

    config: Mapping[str, Any]
    layers: dict[str, dict[str, mx.array]] = field(default_factory=dict)
    whole: dict[str, mx.array] = field(default_factory=dict)


# ---- theirs -> ours


def import_peft(
    source: str | Path, target: str | Path, *, force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Turn the peft adapter in folder `source` into one of ours in `target`, and give that back.

    `say` is told of what is left out. Raises CheckpointError naming the file, and the key or tensor that
    cannot be said in our format.
    """
    folder, target = Path(source).expanduser(), Path(target).expanduser()
    _check_target(folder, target, force)
    peft = _read(folder)
    for name in _copies_of_the_base(peft):
        say(f"left out: {_official(name)}, peft's copy of a layer of the base")
        del peft.whole[name]
    try:
        arrays, config = _ours(peft)
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return write_adapter(target, arrays, config)


def _read(folder: Path) -> _Peft:
    config = _read_config(folder)
    peft = _Peft(config)
    for name, x in _read_tensors(folder).items():
        if not mx.issubdtype(x.dtype, mx.floating):
            raise CheckpointError(f"{folder}: tensor {name} is {x.dtype}, expected floating point")
        _place(peft, name, x.astype(mx.float32), folder)
    if not peft.layers and not peft.whole:
        raise CheckpointError(f"{folder}: the adapter holds no tensor")
    return peft


def _copies_of_the_base(peft: _Peft) -> list[str]:
    """Embedding and head, which peft saves beside LoRA on one of them; they are trained only where
    modules_to_save names them."""
    named = peft.config.get("modules_to_save") or []
    return [name for name in peft.whole if name.split(".")[-2] in ("embed_tokens", "lm_head")
            and name.split(".")[-2] not in named]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the folder of a PEFT adapter")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise ConfigError(f"{path}: no peft_type; this is no PEFT adapter")
    try:
        _check_config(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    """Refuse what our format cannot say, by name."""
    if config["peft_type"] != "LORA":
        raise ConfigError(f"peft_type is {config['peft_type']}; LORA alone can be read, use_dora included")
    if config.get("bias", "none") != "none":
        raise ConfigError(f"bias is {config['bias']!r}: trained biases are not supported")
    for key, why in UNSUPPORTED.items():
        if config.get(key):
            raise ConfigError(f"{key} is not supported: {why}")
    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE):
        raise ConfigError(f"init_lora_weights is {begun!r}, which changed the base: save it from peft with "
                          "path_initial_model_for_weight_conversion")
    if not _is_rank(config.get("r")):
        raise ConfigError(f"r is {config.get('r')!r}, expected a whole number from 1 up")
    if not _is_number(config.get("lora_alpha")):
        raise ConfigError(f"lora_alpha is {config.get('lora_alpha')!r}, expected a number")
    saved = config.get("modules_to_save")
    if saved is not None and not (isinstance(saved, list) and all(isinstance(name, str) for name in saved)):
        raise ConfigError(f"modules_to_save is {saved!r}, expected a list of module names")
    for key, fits in (("rank_pattern", _is_rank), ("alpha_pattern", _is_number)):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or not all(fits(value) for value in pattern.values()):
            raise ConfigError(f"{key} is {pattern!r}, expected names with numbers")


def _read_tensors(folder: Path) -> dict[str, mx.array]:
    if (folder / PEFT_WEIGHTS).is_file():
        return read_arrays(folder / PEFT_WEIGHTS)
    if (folder / PEFT_PICKLE).is_file():
        return _read_pickle(folder / PEFT_PICKLE)
    raise CheckpointError(f"{folder}: no {PEFT_WEIGHTS} and no {PEFT_PICKLE}; the adapter is not whole")


def _read_pickle(path: Path) -> dict[str, mx.array]:
    """A torch file; only weights are unpickled, nothing in the file is run."""
    import pickle

    try:
        import torch
    except ImportError:
        raise CheckpointError(f'{path}: reading it needs PyTorch: pip install "mlx-audio-r1[torch]"') from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: mx.array(tensor.float().numpy()) for name, tensor in tensors.items()}
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, OSError,
            pickle.UnpicklingError) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: PyTorch cannot read it ({reason})") from None


def _place(peft: _Peft, name: str, x: mx.array, folder: Path) -> None:
    """Put one tensor where it belongs. Raises CheckpointError for one that belongs nowhere."""
    part = PART.fullmatch(name)
    if part:
        module = _our_name(part["module"] + ".", name, folder).rstrip(".")
        leaf = LEAVES[part["leaf"]]
        if x.ndim != (1 if leaf == "m" else 2):
            raise CheckpointError(f"{folder}: tensor {name} has shape {x.shape}, which is not that of a linear")
        peft.layers.setdefault(module, {})[leaf] = x if leaf == "m" else x.T
        return
    if "lora_" in name:
        raise CheckpointError(f"{folder}: tensor {name} is of a kind that cannot be read; LoRA and DoRA on "
                              "linears can, and modules_to_save")
    plain = re.sub(r"\.(modules_to_save(\.default)?|base_layer)\.", ".", name)
    ours = _our_name(plain, name, folder)
    peft.whole[ours] = x.transpose(*CONV_AXES) if _official(ours) in CONVOLUTIONS and x.ndim == 3 else x


def _our_name(theirs: str, shown: str, folder: Path) -> str:
    plain = theirs.removeprefix(ROOT)
    for prefix, ours in PREFIXES:
        if plain.startswith(prefix):
            return ours + plain.removeprefix(prefix)
    raise CheckpointError(f"{folder}: tensor {shown} belongs to no part of Step-Audio-R1")


def _ours(peft: _Peft) -> tuple[dict[str, mx.array], AdapterConfig]:
    """Arrays and configuration in our format."""
    config = peft.config
    scales = {module: _checked_scale(peft, module) for module in peft.layers}
    ranks = {module: layer["lora_a"].shape[1] for module, layer in peft.layers.items()}
    rank = max(ranks.values(), default=config["r"])
    scale = max(scales.values(), key=abs, default=1.0)
    arrays = dict(peft.whole)
    for module, layer in peft.layers.items():
        pad = rank - ranks[module]
        arrays[f"{module}.lora_a"] = mx.pad(layer["lora_a"], ((0, 0), (0, pad)))
        share = scales[module] / scale if scale else 1.0
        b = layer["lora_b"] if share == 1 else layer["lora_b"] * share
        arrays[f"{module}.lora_b"] = mx.pad(b, ((0, pad), (0, 0)))
        if "m" in layer:
            arrays[f"{module}.m"] = layer["m"]
    return {name: mx.contiguous(x) for name, x in arrays.items()}, AdapterConfig(
        fine_tune_type="dora" if config.get("use_dora") else "lora",
        lora_parameters=LoRAParameters(rank, scale, config.get("lora_dropout") or 0.0, _keys(peft)),
        also_trained=tuple(_also_trained(peft)),
        model=config.get("base_model_name_or_path"),
    )


def _checked_scale(peft: _Peft, module: str) -> float:
    """The scale of a layer, when it has all its parts and the rank that the configuration says."""
    layer, config = peft.layers[module], peft.config
    parts = {"lora_a", "lora_b"} | ({"m"} if config.get("use_dora") else set())
    if layer.keys() != parts:
        odd = sorted(layer.keys() ^ parts)[0]
        word = "lacks" if odd in parts else "has, without use_dora,"
        theirs = next(name for name, ours in LEAVES.items() if ours == odd)
        raise CheckpointError(f"{_official(module)} {word} {theirs}")
    rank = _by_pattern(config.get("rank_pattern"), _official(module), config["r"])
    if not layer["lora_a"].shape[1] == layer["lora_b"].shape[0] == rank:
        raise CheckpointError(f"{_official(module)} has rank {layer['lora_a'].shape[1]} and "
                              f"{layer['lora_b'].shape[0]} in its factors, {rank} in {CONFIG_FILE}")
    alpha = _by_pattern(config.get("alpha_pattern"), _official(module), config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _by_pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """A pattern is a regular expression for the end of a name, as in peft's `get_pattern_key`."""
    for key, value in (pattern or {}).items():
        try:
            found = re.fullmatch(rf"(.*\.)?({key})", module)
        except re.error as error:
            raise ConfigError(f"the pattern {key!r} is no regular expression ({error})") from None
        if found:
            return value
    return default


def _keys(peft: _Peft) -> tuple[str, ...] | None:
    """Names within a layer where every layer has them, else every name from the root."""
    outer = sorted((name for name in peft.layers if not INNER.fullmatch(name)), key=_in_order)
    layers: dict[int, set[str]] = {}
    for name in peft.layers:
        if found := INNER.fullmatch(name):
            layers.setdefault(int(found[1]), set()).add(found[2])
    alike = len({frozenset(names) for names in layers.values()}) == 1
    if alike and sorted(layers) == list(range(len(layers))) and _says_all_layers(peft.config):
        return (*sorted(layers[0]), *outer)
    return tuple(sorted(peft.layers, key=_in_order)) or None


def _says_all_layers(config: Mapping[str, Any]) -> bool:
    """Does the configuration mean every layer, as far as it tells? Without the base nobody counts them."""
    targets = config.get("target_modules")
    names = targets if isinstance(targets, list) else [] if targets == "all-linear" else None
    chosen = any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules"))
    return names is not None and not chosen and not any(re.search(r"(^|\.)layers\.\d", str(n)) for n in names)


def _also_trained(peft: _Peft) -> list[str]:
    """The modules that hold the whole tensors: those modules_to_save names, or the smallest."""
    named = peft.config.get("modules_to_save") or []
    found: dict[str, None] = {}
    for name in sorted(peft.whole, key=_in_order):
        parts = name.split(".")[:-1]
        above = [".".join(parts[: i + 1]) for i in range(len(parts))]
        saved = (m for m in above if any(f".{_official(m)}".endswith(f".{end}") for end in named))
        found[next(saved, above[-1])] = None
    return list(found)


# ---- ours -> theirs


def export_peft(
    adapter: str | Path, target: str | Path, *, base_model_name: str | None = None, force: bool = False
) -> Path:
    """Turn an adapter of ours into a peft folder `target`, and give that back.

    Raises CheckpointError for a full fine-tune, which peft has no format for.
    """
    target = Path(target).expanduser()
    config, weights = read_adapter(adapter)
    if config.is_full:
        raise CheckpointError(f"{adapter}: a full fine-tune is no adapter to peft; audio-r1 fuse merges it")
    _check_target(weights.parent, target, force)
    arrays = {name.removeprefix("language_model."): x for name, x in read_arrays(weights).items()}
    for name, x in arrays.items():
        if name.endswith(".lora_a") and x.shape[-1] != config.lora_parameters.rank:
            raise CheckpointError(f"{weights}: {name} has rank {x.shape[-1]}, {CONFIG_FILE} says "
                                  f"{config.lora_parameters.rank}")
    theirs = {ROOT + _their_name(name): _their_layout(name, x) for name, x in arrays.items()}
    return write_pair(target, {PEFT_WEIGHTS: theirs}, _peft_config(config, arrays, base_model_name))


def _peft_config(config: AdapterConfig, arrays: Iterable[str], base: str | None) -> dict[str, Any]:
    lora = config.lora_parameters
    alpha = lora.scale * lora.rank
    whole = float(round(alpha))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or config.model,
        "r": lora.rank,
        "lora_alpha": int(whole) if math.isclose(alpha, whole, rel_tol=1e-12) else alpha,
        "lora_dropout": lora.dropout,
        "target_modules": _targets(config, arrays),
        "modules_to_save": [_official(name) for name in config.also_trained] or None,
        "use_dora": config.fine_tune_type == "dora",
        "use_rslora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _targets(config: AdapterConfig, arrays: Iterable[str]) -> list[str]:
    """Names as people write them where all layers are adapted alike, else every module by its full name."""
    modules = sorted((n.removesuffix(".lora_a") for n in arrays if n.endswith(".lora_a")), key=_in_order)
    inner = {found[2] for name in modules if (found := INNER.fullmatch(name))}
    keys = config.lora_parameters.keys
    if config.num_layers > 0 or (keys is not None and any(INNER.fullmatch(key) for key in keys)):
        return [_official(name) for name in modules]
    outer = [_official(name) for name in modules if not INNER.fullmatch(name)]
    return [*sorted(name.rpartition(".")[2] for name in inner), *outer]


def _their_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    theirs = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}
    return f"{_official(module)}.{theirs.get(leaf, leaf)}"


def _their_layout(name: str, x: mx.array) -> mx.array:
    if name.endswith((".lora_a", ".lora_b")):
        x = x.T
    elif _official(name) in CONVOLUTIONS:
        x = x.transpose(*CONV_AXES)
    return mx.contiguous(x)


# ---- small things


def _official(name: str) -> str:
    """Our name of a module or tensor -> the official one."""
    for ours, theirs in OFFICIAL:
        if f"{name}.".startswith(ours):
            return (theirs + f"{name}.".removeprefix(ours)).rstrip(".")
    return name


def _check_target(source: Path, target: Path, force: bool) -> None:
    """Never write over anything the user did not say to write over, nor over what is read."""
    if not source.is_dir():
        what = "is a file; give the folder of an adapter" if source.exists() else "no such folder"
        raise CheckpointError(f"{source}: {what}")
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{target} is a file; choose another --output")
    if target.exists() and target.resolve() == source.resolve():
        raise CheckpointError(f"{target} is the source; choose another --output")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise CheckpointError(f"{target} exists and is not empty; choose another --output, or --force")


def _in_order(name: str) -> list[tuple[int, str]]:
    """Layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
