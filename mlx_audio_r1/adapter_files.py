"""The two files of an adapter: found, checked, read, written, told apart.

An adapter is a folder made by `audio-r1 train`, `audio-r1 adapters import` or mlx_lm.lora. The surprise: one
numbered .safetensors file of such a folder is an adapter too, and so is a folder checkpoints/0000100 below it,
so that any checkpoint of a run can be tried.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.adapter_config import CONFIG_FILE, WEIGHTS_FILE, AdapterConfig, read_adapter_config
from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.files import disk_errors, write_arrays, write_file
from mlx_audio_r1.memory import read_header


def adapter_files(path: str | Path) -> tuple[Path, Path]:
    """adapter_config.json and weights of an adapter: a folder, or one .safetensors file of such a folder
    (mlx-lm's 0000100_adapters.safetensors, say). Raises CheckpointError saying what was found instead."""
    given = Path(path).expanduser()
    if given.is_file() and given.suffix == ".safetensors":
        folder, weights = given.parent, given
    elif given.is_dir():
        folder, weights = given, given / WEIGHTS_FILE
    else:
        what = "is a file; give the folder of an adapter" if given.exists() else "no such folder"
        raise CheckpointError(f"{given}: {what}")
    run = folder.resolve().parent
    config = (run.parent if run.name == "checkpoints" else folder) / CONFIG_FILE
    if not config.is_file():
        hint = "it holds a checkpoint, which --model takes" if (folder / "config.json").is_file() else (
            "give a folder made by audio-r1 train, audio-r1 adapters import or mlx_lm.lora")
        raise CheckpointError(f"{folder}: no {CONFIG_FILE}; {hint}")
    if not weights.is_file():
        read_adapter_config(config)  # one of PEFT says so
        raise CheckpointError(f"{folder}: no {weights.name}; the adapter is not whole")
    return config, weights


def read_adapter(path: str | Path) -> tuple[AdapterConfig, Path]:
    """Configuration and weights file of an adapter; the file is whole, its tensors are not read yet.

    Raises CheckpointError naming the file.
    """
    config_file, weights = adapter_files(path)
    config = read_adapter_config(config_file)
    _check_length(weights)
    return config, weights


def read_arrays(path: Path) -> dict[str, mx.array]:
    """The tensors of a .safetensors file, read when they are used. Raises CheckpointError."""
    _check_length(path)
    try:
        return mx.load(str(path))  # type: ignore[return-value]
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: broken or cut short ({error})") from None


def _check_length(path: Path) -> None:
    try:
        header = read_header(path)
        ends = [entry["data_offsets"][1] for entry in header.values() if math.prod(entry["shape"]) >= 0]
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        whole = bool(ends) and begin + max(ends) == path.stat().st_size
    except (KeyError, TypeError, IndexError, AttributeError):
        whole = False
    if not whole:
        raise CheckpointError(f"{path}: empty, broken or cut short; copy or train it again")


def fingerprint(path: str | Path) -> str:
    """Hex sha256 of both files of an adapter, whatever they are called and wherever they lie."""
    digest = hashlib.sha256()
    for file in adapter_files(path):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def adapter_bytes(path: str | Path) -> int:
    """Memory an adapter in use takes: its float32 file, and its factors in 16 bits beside it."""
    return adapter_files(path)[1].stat().st_size * 3 // 2


def describe_adapter(path: str | Path) -> dict[str, Any]:
    """What `audio-r1 info` prints of an adapter, from its configuration and header alone."""
    config, weights = read_adapter(path)
    header, lora = read_header(weights), config.lora_parameters
    rows: dict[str, Any] = {"folder": str(path), "kind": config.fine_tune_type}
    if not config.is_full:
        rows |= {"rank": lora.rank, "scale": lora.scale, "dropout": lora.dropout,
                 "keys": "all linears" if lora.keys is None else ", ".join(lora.keys)}
    return rows | {
        "layers": f"last {config.num_layers}" if config.num_layers > 0 else "all",
        "also_trained": ", ".join(config.also_trained) or None,
        "parameters": sum(math.prod(entry["shape"]) for entry in header.values()),
        "file_bytes": weights.stat().st_size,
        "base": config.model,
    }


def write_adapter(
    folder: str | Path, arrays: Mapping[str, mx.array], config: AdapterConfig, filename: str = WEIGHTS_FILE
) -> Path:
    """Write an adapter; gives the folder back. Raises DiskError."""
    return write_pair(folder, {filename: arrays}, config.to_dict())


def write_pair(
    folder: str | Path, weights: Mapping[str, Mapping[str, mx.array]], config: Mapping[str, Any]
) -> Path:
    """Write weights (file name -> arrays) and adapter_config.json; gives the folder back.

    Each file is whole or not there, and a folder is never loadable with one file of an old adapter and the
    other of a new: an old configuration that differs goes first, and comes last. Raises DiskError.
    """
    folder = Path(folder).expanduser()
    text = json.dumps(config, indent=4) + "\n"
    path = folder / CONFIG_FILE
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() != text.encode():
            path.unlink()
    for name, arrays in weights.items():
        write_arrays(folder / name, arrays)
    write_file(path, text)
    return folder
