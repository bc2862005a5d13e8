"""Checkpoint folders -> a model: MLX folders, quantised or not, and the official ones as they are.

Every tensor must belong to a parameter and every parameter must be filled, with equal shapes; the
error names the tensor. The head is tied only where the files hold none *and* config.json says so: the key is
absent in the official ones, and mlx-lm's default is the wrong one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_audio_r1.config import ModelConfig, read_config
from mlx_audio_r1.errors import CheckpointError, ConfigError
from mlx_audio_r1.models import key_map
from mlx_audio_r1.models.step_audio_r1 import Model

HEAD = "language_model.lm_head.weight"
ADAPTOR_LINEAR = "audio_adaptor.linear1.weight"
QUANTISED_METHODS = {"compressed-tensors", "modelopt", "gptq", "awq", "bitsandbytes", "fp8"}


def load_model(folder: str | Path, *, lazy: bool = False) -> Model:
    """Read the checkpoint in `folder`. `lazy` leaves the weights on disk until they are used.

    Raises CheckpointError naming the file or the tensor that is wrong.
    """
    folder = Path(folder)
    config = read_config(folder)
    refuse_foreign_quantisation(config, folder)
    weights = canonical(read_shards(folder))
    config = complete_config(config, weights, folder)
    model = build(config, folder)
    if config.quantization:
        quantise_like(model, weights, dict(config.quantization))
    check_keys(model, weights, folder)
    model.load_weights(list(weights.items()), strict=True)
    model.eval()
    if not lazy:
        _read_all(model, folder)
    return model


def build(config: ModelConfig, where: Path) -> Model:
    """The model of a configuration, its weights not yet read."""
    try:
        return Model(config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # values only mlx-lm looks at
        raise ConfigError(f"{where / 'config.json'}: mlx-lm cannot build this decoder ({error!r})") from None


def shard_paths(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; the index, when there is one, says which."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = sorted(folder.glob("model*.safetensors"))
        if not found:
            raise CheckpointError(f"{folder}: no model*.safetensors; give a folder that holds a checkpoint")
        return found
    names = sorted(set(read_index(index).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: shard {missing[0]} is missing; fetch it again")
    return [folder / name for name in names]


def read_index(path: Path) -> dict[str, str]:
    """Tensor name -> shard file, of a model.safetensors.index.json."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in names.values()):
            raise ValueError("a shard's name is not text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as an index ({error})") from None
    return names


def read_shards(folder: Path) -> dict[str, mx.array]:
    """All tensors by the name they have in the files, still on disk."""
    tensors: dict[str, mx.array] = {}
    for path in shard_paths(folder):
        try:
            loaded: dict[str, mx.array] = mx.load(str(path))  # type: ignore[assignment]
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: broken or cut short ({error}); fetch it again") from None
        twice = tensors.keys() & loaded.keys()
        if twice:
            raise CheckpointError(f"{path}: tensor {sorted(twice)[0]} stands in two shards")
        tensors |= loaded
    index = folder / "model.safetensors.index.json"
    for name in sorted(read_index(index).keys() - tensors.keys()) if index.is_file() else ():
        raise CheckpointError(f"{folder}: tensor {name} is in the index and in no shard; fetch it again")
    return tensors


def canonical(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """Official names and axes -> ours; a dict that has ours already comes back as it is."""
    if not key_map.is_official(tensors):
        return tensors
    renamed = {}
    for name, tensor in tensors.items():
        ours = key_map.our_name(name)
        if ours is None:
            raise CheckpointError(f"tensor {name} is not part of Step-Audio-R1")
        renamed[ours] = tensor.transpose(*key_map.CONV_AXES) if name in key_map.CONVOLUTIONS else tensor
    return renamed


def complete_config(config: ModelConfig, weights: dict[str, mx.array], where: Path) -> ModelConfig:
    """Fill in what only the weights tell: the adaptor's width, and whether the head is tied."""
    if ADAPTOR_LINEAR not in weights:
        raise CheckpointError(f"{where}: tensor {ADAPTOR_LINEAR} is missing")
    tied = HEAD not in weights
    if tied and not config.text.tie_word_embeddings:
        raise CheckpointError(f"{where}: tensor {HEAD} is missing")
    return config.with_shapes(adaptor_width=weights[ADAPTOR_LINEAR].shape[0], tied=tied)


def quantise_like(model: Model, weights: dict[str, mx.array], quantization: dict[str, Any]) -> None:
    """Give `model` quantised layers wherever the files hold scales, as config.json describes them."""
    settings = {k: quantization[k] for k in ("group_size", "bits", "mode") if k in quantization}

    def predicate(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if f"{path}.scales" not in weights or not hasattr(module, "to_quantized"):
            return False
        own = quantization.get(path)
        return own if isinstance(own, dict) else True

    nn.quantize(model, class_predicate=predicate, **settings)


def check_keys(model: Model, weights: dict[str, mx.array], where: Path) -> None:
    """Every tensor used once, every parameter filled once, shapes equal."""
    expected = dict(tree_flatten(model.parameters()))
    for name in sorted(weights.keys() - expected.keys()):
        raise CheckpointError(f"{where}: tensor {name} is not part of this model")
    for name in sorted(expected.keys() - weights.keys()):
        raise CheckpointError(f"{where}: tensor {name} is missing")
    for name, parameter in expected.items():
        if parameter.shape != weights[name].shape:
            raise CheckpointError(
                f"{where}: tensor {name} has shape {weights[name].shape}, expected {parameter.shape}"
            )


def refuse_foreign_quantisation(config: ModelConfig, where: Path) -> None:
    """NVFP4 and other quantised PyTorch checkpoints: one clear line."""
    method = (config.quantization or {}).get("quant_method")
    if method in QUANTISED_METHODS:
        raise CheckpointError(
            f"{where}: quantised by {method}, which is not read; convert the bfloat16 checkpoint instead"
        )


def _read_all(model: Model, where: Path) -> None:
    try:
        mx.eval(model.parameters())
    except RuntimeError as error:
        raise CheckpointError(f"{where}: a shard is cut short ({error}); fetch it again") from None
