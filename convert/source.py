"""Where the weights come from: a folder, or a repository whose shards come and go one by one.

The surprise: a shard of the hub is on the disk only while something still needs it; `release` deletes
it, unless the user keeps sources or it lay in the hub's cache before.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.convert.hub import Repo, find_repo
from mlx_audio_r1.convert.reader import Entry, Shard, check_entries, open_shard
from mlx_audio_r1.errors import CheckpointError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
SHARD_PATTERNS = ("model*.safetensors", "pytorch_model*.bin", "*.pt")
EXTRAS = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", "LICENSE*", "NOTICE*")
NOT_EXTRAS = ("config.json", "*.index.json")
CACHE_FOLDER = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")


class Source:
    """Files of a checkpoint and the tensors in them. Subclasses say where files are."""

    name: str  # for people
    base_model: str | None  # a repository, when known
    commit: str | None = None

    def __init__(self) -> None:
        self._open: dict[str, Shard] = {}

    def sizes(self) -> dict[str, int]:
        """Every file at the top level and its bytes."""
        raise NotImplementedError

    def path(self, filename: str) -> Path:
        """The file on this machine, fetched if need be."""
        raise NotImplementedError

    def identity(self, shards: list[str]) -> list[Any]:
        """What changes when the weights in `shards` change."""
        raise NotImplementedError

    def header(self, shard: str) -> dict[str, Entry]:
        """The tensors of a shard."""
        return self.shard(shard).entries

    def text(self, filename: str) -> str:
        try:
            return self.path(filename).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.name}: {filename} is not text") from None

    def json(self, filename: str) -> dict[str, Any]:
        """A JSON object. Raises CheckpointError when the file is missing or holds something else."""
        if filename not in self.sizes():
            raise CheckpointError(f"{self.name}: no {filename}; is this a checkpoint?")
        try:
            data = json.loads(self.text(filename))
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{self.name}: {filename} is not JSON ({error})") from None
        if not isinstance(data, dict):
            raise CheckpointError(f"{self.name}: {filename} is no JSON object")
        return data

    def extras(self) -> list[str]:
        """Tokenizer, template, generation settings, licence: what is copied as it is."""
        return sorted(
            name
            for name in self.sizes()
            if any(fnmatch(name, p) for p in EXTRAS) and not any(fnmatch(name, p) for p in NOT_EXTRAS)
        )

    def entries(self) -> list[Entry]:
        """Every tensor of the checkpoint, from the headers alone."""
        places = self._places()
        shards = sorted(set(places.values())) or self._shards_without_index()
        for shard in shards:
            if shard not in self.sizes():
                raise CheckpointError(f"{self.name}: the shard {shard} is missing")
        entries = [entry for shard in shards for entry in self.header(shard).values()]
        held = {(entry.name, entry.shard) for entry in entries}
        for name, shard in places.items():
            if (name, shard) not in held:
                raise CheckpointError(f"{self.name}: {shard} lacks {name}, which the index puts there")
        return entries

    def _places(self) -> dict[str, str]:
        for index in INDEXES:
            if index in self.sizes():
                places = self.json(index).get("weight_map")
                if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
                    raise CheckpointError(f"{self.name}: {index} has no weight_map of file names")
                return places
        return {}

    def _shards_without_index(self) -> list[str]:
        for single in SINGLES:
            if single in self.sizes():
                return [single]
        for pattern in SHARD_PATTERNS:
            shards = sorted(name for name in self.sizes() if fnmatch(name, pattern))
            if shards:
                return shards
        raise CheckpointError(f"{self.name}: no model*.safetensors and no pytorch_model*.bin")

    def rows(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        """The bytes of some rows; fetches the shard on first use."""
        return self.shard(entry.shard).rows(entry, start, stop)

    def shard(self, name: str) -> Shard:
        if name not in self._open:
            self._open[name] = open_shard(self.path(name), name)
        return self._open[name]

    def release(self, shard: str) -> None:
        """Nothing needs this shard any more."""
        if shard in self._open:
            self._open.pop(shard).close()

    def close(self) -> None:
        for shard in list(self._open):
            self._open.pop(shard).close()


class Folder(Source):
    """A checkpoint that lies on this machine."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder
        self.name = str(folder)
        cached = CACHE_FOLDER.search(folder.absolute().as_posix() + "/")
        self.base_model = "/".join(cached.groups()) if cached else None
        self._sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}

    def sizes(self) -> dict[str, int]:
        return self._sizes

    def path(self, filename: str) -> Path:
        return self.folder / filename

    def identity(self, shards: list[str]) -> list[Any]:
        stats = [(self.folder / name).stat() for name in shards]
        return [[n, s.st_size, s.st_mtime_ns] for n, s in zip(shards, stats, strict=True)]


class HubRepo(Source):
    """A checkpoint on the hub; `scratch` holds what is fetched, unless `keep` leaves it in the cache."""

    def __init__(self, repo: Repo, scratch: Path, keep: bool):
        super().__init__()
        self.repo = repo
        self.scratch = scratch.resolve()
        self.keep = keep
        self.name = self.base_model = repo.name
        self.commit = repo.commit
        self._paths: dict[str, Path] = {}
        self._headers: dict[str, dict[str, Entry]] = {}
        for leftover in scratch.glob(".cache/huggingface/download/*.incomplete"):
            leftover.unlink()

    def sizes(self) -> dict[str, int]:
        return {name: f.size for name, f in self.repo.files.items() if "/" not in name}

    def path(self, filename: str) -> Path:
        if filename not in self._paths:
            cached = self.repo.cached(filename)
            folder = None if self.keep else self.scratch
            self._paths[filename] = cached or self.repo.download(filename, folder)
        return self._paths[filename]

    def header(self, shard: str) -> dict[str, Entry]:
        if not shard.endswith(".safetensors"):
            return super().header(shard)  # a pickle tells nothing before it is here whole
        if shard not in self._headers:
            self._headers[shard] = check_entries(shard, self.repo.header(shard), None)
        return self._headers[shard]

    def shard(self, name: str) -> Shard:
        shard = super().shard(name)
        if shard.entries != self._headers.get(name, shard.entries):
            raise CheckpointError(f"{name}: what arrived does not have the header the hub showed before")
        return shard

    def identity(self, shards: list[str]) -> list[Any]:
        return [self.repo.name, self.repo.commit]

    def release(self, shard: str) -> None:
        super().release(shard)
        path = self._paths.pop(shard, None)
        if path is not None and path.is_relative_to(self.scratch):
            path.unlink()


def open_source(
    hf_path: str, scratch: Path, *, revision: str | None = None, keep: bool = False
) -> Source:
    """A folder when there is one of that name, else a repository on the hub."""
    folder = Path(hf_path).expanduser()
    if folder.is_dir():
        return Folder(folder)
    if folder.is_absolute() or hf_path.startswith((".", "~")):
        raise CheckpointError(f"{hf_path}: no such folder")
    return HubRepo(find_repo(hf_path, revision), scratch, keep)
