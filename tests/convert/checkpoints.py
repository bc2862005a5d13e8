"""Checkpoints to convert: the golden ones bent out of shape, and larger ones of random numbers."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mlx.utils import tree_flatten

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.key_map import PREFIXES
from mlx_audio_r1.models.step_audio_r1 import Model

GOLDEN = Path(__file__).parent.parent / "golden"
BF16 = GOLDEN / "tiny-bf16"
FP32 = GOLDEN / "tiny-fp32"
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> (dtype, shape, bytes)


def copy_of(source: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(source, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def read_shard(path: Path) -> Tensors:
    """Every tensor of a safetensors file; independent of the code under test."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    return {
        name: (info["dtype"], tuple(info["shape"]), body[slice(*info["data_offsets"])])
        for name, info in header.items()
        if name != "__metadata__"
    }


def read_all(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        found = read_shard(path)
        assert not found.keys() & tensors.keys()
        tensors |= found
    return tensors


def write_shard(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def single_file(folder: Path, tensors: Tensors, source: Path = BF16) -> Path:
    """`tensors` as one model.safetensors with the small files of `source`."""
    folder.mkdir(parents=True)
    for path in source.glob("*.json"):
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)
    write_shard(folder / "model.safetensors", tensors)
    return folder


def official_name(ours: str) -> str:
    return next(o + ours.removeprefix(m) for o, m in PREFIXES.items() if ours.startswith(m))


def random_checkpoint(folder: Path, *, layers: int, vocab: int = 512, width: int = 1024) -> Path:
    """Official names, bf16, one shard for the rest and one for each decoder layer; seeded."""
    folder.mkdir(parents=True)
    config = json.loads((BF16 / "config.json").read_text())
    config["audio_encoder_config"]["llm_dim"] = width
    config["text_config"] |= {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = dict(tree_flatten(Model(parse_config(config)).parameters()))
    rng = np.random.default_rng(0)
    places: dict[str, str] = {}
    shards: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        shard = f"model-layer{parts[3]}.safetensors" if ".layers." in name else "model-rest.safetensors"
        shards.setdefault(shard, []).append(name)
    for shard, names in shards.items():
        tensors: Tensors = {}
        for name in names:
            shape = tuple(shapes[name].shape)
            if "conv" in name and len(shape) == 3:
                shape = (shape[0], shape[2], shape[1])
            # Random sign and mantissa, exponent 2**-6: bf16 values around 0.02 without a float in sight.
            bits = rng.integers(0, 1 << 16, shape, np.uint16) & 0x807F | 0x3C80
            data = bits.astype(np.uint16).tobytes()
            tensors[official_name(name)] = ("BF16", shape, data)
            places[official_name(name)] = shard
        write_shard(folder / shard, tensors)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: what two conversions are compared by."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
