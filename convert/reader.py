"""Open a shard, check its header, hand out rows of its tensors as bytes.

The surprise: nothing is memory-mapped, because the pages of a mapped file count as memory of the
process. A tensor of gigabytes is read in blocks of rows, and only the block is in memory.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mlx_audio_r1.errors import CheckpointError

DTYPES = {  # safetensors' word -> MLX's type
    "F32": mx.float32,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "U32": mx.uint32,
    "U8": mx.uint8,
}
WORDS = {dtype: word for word, dtype in DTYPES.items()}
FLOATING = ("F32", "F16", "BF16")
MAX_HEADER = 100_000_000  # bytes, the format's own limit
UNREADABLE = (  # what torch.load raises over damaged, foreign and hostile files
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    EOFError,
    pickle.UnpicklingError,
)
TORCH_HINT = 'install it with: pip install "mlx-audio-r1[torch]"'


@dataclass(frozen=True)
class Entry:
    """One tensor of a source shard. `begin` counts from the first byte after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    begin: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].size

    @property
    def row_bytes(self) -> int:
        return self.nbytes // self.shape[0]


class Shard(Protocol):
    """An open file of tensors."""

    entries: dict[str, Entry]

    def rows(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        """The bytes of rows start..stop, as uint8."""

    def close(self) -> None: ...


def open_shard(path: Path, name: str) -> Shard:
    """Open `path`, called `name` in errors, and check its header against its size."""
    return SafetensorsShard(path, name) if path.suffix == ".safetensors" else TorchShard(path, name)


class SafetensorsShard:
    """A .safetensors file, read with plain reads."""

    def __init__(self, path: Path, name: str):
        self.name = name
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115, closed by close()
        except OSError as error:
            raise CheckpointError(f"{name}: cannot be opened ({error.strerror})") from None
        try:
            header, self._start = self._read_header(path.stat().st_size)
            data_bytes = path.stat().st_size - self._start
            self.entries = check_entries(name, header, data_bytes)
        except CheckpointError:
            self.close()
            raise

    def _read_header(self, size: int) -> tuple[dict[str, Any], int]:
        prefix = self._file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise CheckpointError(f"{self.name}: not a safetensors file, or cut off in its header")
        try:
            header = json.loads(self._file.read(length))
        except ValueError:
            raise CheckpointError(f"{self.name}: the header is not JSON; the file is damaged") from None
        if not isinstance(header, dict):
            raise CheckpointError(f"{self.name}: the header is no JSON object; the file is damaged")
        return header, 8 + length

    def rows(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start) * entry.row_bytes, np.uint8)
        self._file.seek(self._start + entry.begin + start * entry.row_bytes)
        view, filled = memoryview(block), 0
        while filled < len(view):  # one read gives at most 2 GB
            got = self._file.readinto(view[filled:])
            if not got:
                raise CheckpointError(f"{self.name}: ends inside tensor {entry.name}; it is cut off")
            filled += got
        return block

    def close(self) -> None:
        self._file.close()


def check_entries(shard: str, header: dict[str, Any], data_bytes: int | None) -> dict[str, Entry]:
    """A parsed header -> entries in file order. Raises CheckpointError naming shard and tensor.

    `data_bytes` is what follows the header; None when only the header is at hand.
    """
    infos = [(k, v) for k, v in header.items() if k != "__metadata__"]
    try:
        infos.sort(key=lambda item: tuple(item[1]["data_offsets"]))
        entries = {k: _entry(shard, k, v) for k, v in infos}
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{shard}: the header has a broken entry; the file is damaged") from None
    end = 0
    for name, info in infos:
        begin, stop = info["data_offsets"]
        if begin != end or stop - begin != entries[name].nbytes:
            raise CheckpointError(f"{shard}: tensor {name} does not have the bytes its shape needs")
        end = stop
    if data_bytes is not None and end != data_bytes:
        kind = "cut off" if data_bytes < end else "too long"
        raise CheckpointError(
            f"{shard}: {data_bytes:,} bytes of tensors where {end:,} belong; it is {kind}"
        )
    return entries


def _entry(shard: str, name: str, info: dict[str, Any]) -> Entry:
    if info["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{shard}: tensor {name} is {info['dtype']}; this reads {', '.join(DTYPES)} only"
        )
    shape = tuple(info["shape"])
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise CheckpointError(f"{shard}: tensor {name} has the shape {list(shape)}")
    return Entry(name, info["dtype"], shape, shard, int(info["data_offsets"][0]))


class TorchShard:
    """A PyTorch .bin or .pt file; only weights are unpickled, nothing in the file is run."""

    def __init__(self, path: Path, name: str):
        try:
            import torch
        except ImportError:
            raise CheckpointError(f"{name}: reading it needs PyTorch; {TORCH_HINT}") from None
        try:
            tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except UNREADABLE as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{name}: PyTorch cannot read it ({reason})") from None
        words = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
        if not isinstance(tensors, dict):
            raise CheckpointError(f"{name}: expected a dictionary of tensors")
        for key, tensor in tensors.items():
            if getattr(tensor, "dtype", None) not in words:
                raise CheckpointError(f"{name}: {key} is no float tensor of 32 or 16 bits")
        self._bytes_of = torch.uint8
        self._tensors = tensors
        self.entries = {
            key: Entry(key, words[tensor.dtype], tuple(tensor.shape), name, order)
            for order, (key, tensor) in enumerate(sorted(tensors.items()))
        }

    def rows(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        block = self._tensors[entry.name][start:stop].contiguous()
        return block.view(self._bytes_of).numpy().reshape(-1)

    def close(self) -> None:
        self._tensors = {}


def as_array(block: np.ndarray, dtype: str, shape: Iterable[int]) -> mx.array:
    """Bytes -> an MLX array with exactly those bits."""
    return mx.array(block).view(DTYPES[dtype]).reshape(*shape)


def as_bytes(array: mx.array) -> memoryview:
    """An MLX array -> its bytes in row order, without a copy where it lies in row order."""
    return memoryview(np.array(mx.contiguous(array).view(mx.uint8), copy=False)).cast("B")
