"""What a sound costs is paid once: encoder features and the read beginning of a prompt, kept by content.

Two things are kept, in memory under a byte limit (least recently used goes first) and, where a folder
is given, on disk: the features of a chunk, under the sha256 of its PCM; and the keys and values of a
prompt up to its last <audio_end>, under its ids, the digests of its sounds and the KV format. Every key
holds the fingerprint of checkpoint and adapter, and FRONT_END_VERSION. The surprise: the files are
fingerprinted, not the arrays, so after changing a model in memory (training) call `clear`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import mlx.core as mx
import numpy as np

from mlx_audio_r1 import adapter_files
from mlx_audio_r1.config import FRONT_END_VERSION
from mlx_audio_r1.errors import DiskError
from mlx_audio_r1.hub import locate
from mlx_audio_r1.models.shared_prefix import EXACT, KVFormat, Segment, parts_of
from mlx_audio_r1.weights import shard_paths

SAMPLED_BYTES = 64 << 10  # read at each of SAMPLED_PLACES of a shard: tells checkpoints apart
SAMPLED_PLACES = 16


def fingerprint(
    name: str | Path | None, adapter_path: str | Path | None = None, *, dated: bool = True
) -> str:
    """Hex sha256 of a checkpoint: its config.json, and of each shard name, size, time (if `dated`) and samples;
    and of all of the adapter on it. What the adapter leaves alone is not shared: the key would have to know."""
    folder = locate(name)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in shard_paths(folder):
        info = path.stat()
        digest.update(f"{path.name} {info.st_size} {info.st_mtime_ns if dated else ''}".encode())
        with path.open("rb") as file:
            for i in range(SAMPLED_PLACES):
                file.seek(i * max(0, info.st_size - SAMPLED_BYTES) // (SAMPLED_PLACES - 1))
                digest.update(file.read(SAMPLED_BYTES))
    if adapter_path is not None:
        digest.update(adapter_files.fingerprint(adapter_path).encode())
    return digest.hexdigest()


class Prefix:
    """The first `length` tokens of a prompt, read once: one Segment a layer, None until they are."""

    def __init__(self, length: int, on_read: Callable[[Prefix], None] | None = None):
        self.length = length
        self.layers: list[Segment] | None = None
        self._on_read = on_read

    def fill(self, layers: list[Segment]) -> None:
        """What the first reader found; kept for the next."""
        self.layers = layers
        if self._on_read:
            self._on_read(self)

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers or ())


class PromptCache:
    """Features and prefixes of one checkpoint.

    model: `fingerprint` of checkpoint and adapter. max_bytes: limit in memory. folder: also on disk, up
    to folder_bytes. `encoded` counts the chunks that had to be encoded.
    """

    def __init__(
        self,
        model: str,
        max_bytes: int = 2 << 30,
        folder: str | Path | None = None,
        folder_bytes: int = 20 << 30,
    ):
        self._model = model
        self._memory = ByteLRU(max_bytes)
        self._disk = Folder(Path(folder), folder_bytes) if folder else None
        self._unread: WeakValueDictionary[str, Prefix] = WeakValueDictionary()
        self.encoded = 0

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self._memory.nbytes

    def clear(self) -> None:
        """Forget everything in memory and on disk."""
        self._memory.clear()
        self._unread.clear()
        if self._disk:
            self._disk.clear()

    def features(
        self, digests: Sequence[str], encode: Callable[[list[int]], list[mx.array]]
    ) -> list[mx.array]:
        """(N, hidden_size) of the chunks with these digests; `encode` is given the places of those that nobody
        has, each of them once."""
        found = {digest: self._features(digest) for digest in digests}
        missing = {digest: i for i, digest in enumerate(digests) if found[digest] is None}
        made = encode(list(missing.values())) if missing else []
        for digest, features in zip(missing, made, strict=True):
            found[digest] = features
            self._keep_features(digest, features)
        return [found[digest] for digest in digests]

    def _features(self, digest: str) -> mx.array | None:
        key = self._key("features", digest)
        found = self._memory.get(key)
        if found is None and self._disk and (arrays := self._disk.read(key)):
            found = self._memory.put(key, arrays["features"], arrays["features"].nbytes)
        return found

    def _keep_features(self, digest: str, features: mx.array) -> None:
        key = self._key("features", digest)
        self.encoded += 1
        self._memory.put(key, features, features.nbytes)
        if self._disk:
            self._disk.write(key, {"features": features})

    def prefix(self, ids: Sequence[int], sounds: Sequence[str], form: KVFormat = EXACT) -> Prefix:
        """The prefix of exactly these ids and chunks (their digests, in order): read, or to be read."""
        key = self._key("prefix", list(ids), list(sounds), repr(form))
        if unread := self._unread.get(key):
            return unread
        found = self._memory.get(key)
        if found is None and self._disk and (arrays := self._disk.read(key)):
            found = Prefix(len(ids))
            found.layers = _segments(arrays)
            self._memory.put(key, found, found.nbytes)
        if found is None:
            found = self._unread[key] = Prefix(len(ids), lambda read: self._keep(key, read))
        return found

    def _keep(self, key: str, prefix: Prefix) -> None:
        self._unread.pop(key, None)
        self._memory.put(key, prefix, prefix.nbytes)
        if self._disk and prefix.layers:
            self._disk.write(key, _arrays(prefix.layers))

    def _key(self, *what: Any) -> str:
        text = json.dumps([self._model, FRONT_END_VERSION, *what])
        return hashlib.sha256(text.encode()).hexdigest()


def _arrays(layers: Sequence[Segment]) -> dict[str, mx.array]:
    """Segments -> names like `3.keys.0`, fit for a file."""
    return {
        f"{i}.{name}.{j}": part
        for i, layer in enumerate(layers)
        for name in ("keys", "values")
        for j, part in enumerate(parts_of(getattr(layer, name)))
    }


def _segments(arrays: dict[str, mx.array]) -> list[Segment]:
    def store(i: int, name: str) -> Any:
        parts = [arrays[f"{i}.{name}.{j}"] for j in range(3) if f"{i}.{name}.{j}" in arrays]
        return parts[0] if len(parts) == 1 else parts

    layers = 1 + max(int(name.split(".")[0]) for name in arrays)
    return [Segment(store(i, "keys"), store(i, "values")) for i in range(layers)]


class ByteLRU:
    """Key -> thing, the least recently used thrown out beyond `max_bytes`. Threads may share it."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._things: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()
        self.nbytes = 0

    def get(self, key: str) -> Any:
        with self._lock:
            if key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key][0]

    def put(self, key: str, thing: Any, nbytes: int) -> Any:
        """Keep it, unless it alone is beyond the limit; returns it."""
        with self._lock:
            self._drop(key)
            if nbytes <= self._max_bytes:
                self._things[key] = thing, nbytes
                self.nbytes += nbytes
                while self.nbytes > self._max_bytes:
                    self._drop(next(iter(self._things)))
        return thing

    def clear(self) -> None:
        with self._lock:
            self._things.clear()
            self.nbytes = 0

    def _drop(self, key: str) -> None:
        if key in self._things:
            self.nbytes -= self._things.pop(key)[1]


class Folder:
    """Arrays on disk, one safetensors file a key, oldest use deleted beyond `max_bytes`.

    A file is written aside and renamed. One that is cut short, changed or under a wrong name counts as
    absent and is removed.
    """

    def __init__(self, path: Path, max_bytes: int):
        self._path, self._max_bytes = path, max_bytes
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{path}: no place for the prompt cache ({error})") from None

    def read(self, key: str) -> dict[str, mx.array] | None:
        path = self._file(key)
        if not path.is_file():
            return None
        try:
            arrays, metadata = mx.load(str(path), return_metadata=True)
            mx.eval(arrays)
            sound = bool(arrays) and metadata.get("key") == key and metadata.get("crc") == _crc(arrays)
        except (RuntimeError, ValueError, OSError):
            sound = False
        with suppress(OSError):  # another process may be cleaning up as well
            if not sound:
                path.unlink()
                return None
            os.utime(path)
        return arrays

    def write(self, key: str, arrays: dict[str, mx.array]) -> None:
        metadata = {"format": "mlx", "key": key, "crc": _crc(arrays)}
        handle, name = tempfile.mkstemp(dir=self._path, suffix=".part.safetensors")
        os.close(handle)
        try:
            mx.save_safetensors(name, arrays, metadata=metadata)
            os.replace(name, self._file(key))
        except (OSError, RuntimeError) as error:
            Path(name).unlink(missing_ok=True)
            raise DiskError(f"{self._path}: the prompt cache cannot be written ({error})") from None
        self._shrink()

    def clear(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    def _shrink(self) -> None:
        sizes = []
        for path in self._files():
            with suppress(FileNotFoundError):
                info = path.stat()
                sizes.append((info.st_mtime_ns, info.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _files(self) -> list[Path]:
        return list(self._path.glob("*.safetensors"))

    def _file(self, key: str) -> Path:
        return self._path / f"{key}.safetensors"


def _crc(arrays: dict[str, mx.array]) -> str:
    """crc32 over names, shapes and bytes."""
    crc = 0
    for name in sorted(arrays):
        x = arrays[name]
        crc = zlib.crc32(f"{name}{x.shape}{x.dtype}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(np.array(x.view(mx.uint8))).data, crc)
    return f"{crc:08x}"
