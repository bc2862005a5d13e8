"""A name -> a checkpoint folder: local, embedded, or from the hub through huggingface_hub.

Every way the hub can say no becomes one line that says what to do.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import CheckpointError, ConfigError, HubError

NANO = Path(__file__).parent / "nano" / "checkpoint"
NANO_NAME = "nano"
CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "README.md"]
HEADERS_AT_ONCE = 8  # requests


def locate(name: str | Path | None) -> Path:
    """A folder, a hub repository `owner/name`, or None / "nano" for the embedded model -> folder.

    A repository is fetched into huggingface_hub's own cache (HF_HOME, HF_HUB_OFFLINE are honoured).
    """
    if name is None or str(name) == NANO_NAME:
        return NANO
    folder = Path(name).expanduser()
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except OSError as error:  # a name that no file system takes
        raise CheckpointError(f"{str(name)[:60]}...: not a folder ({error.strerror})") from None
    if is_folder:
        return folder
    if exists:
        raise CheckpointError(f"{folder}: is a file; give the folder that holds the checkpoint")
    if not looks_like_repo(str(name)):
        raise CheckpointError(f"{folder}: no such folder; give a checkpoint folder or owner/name")
    return _fetch(str(name))


def looks_like_repo(name: str) -> bool:
    """owner/name, as on the hub."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not name.endswith("/")


def _fetch(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    from mlx_audio_r1.hub_errors import hub_errors

    with hub_errors(repo):
        return Path(snapshot_download(repo, allow_patterns=CHECKPOINT_FILES))


def cached(repo: str) -> Path | None:
    """The folder of a repository in the hub's cache, whole or not; None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    from mlx_audio_r1.hub_errors import hub_errors

    with hub_errors(repo):
        found = try_to_load_from_cache(repo, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def inspect(repo: str) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """config.json and (name, bytes, values) of every tensor of a repository, without its weights.

    The safetensors headers are read by range: 100 kB a shard, or a little more.
    """
    from huggingface_hub import HfApi, hf_hub_download

    from mlx_audio_r1.hub_errors import hub_errors

    api = HfApi()
    with hub_errors(repo):
        info = api.model_info(repo, timeout=10)  # says at once when there is no network
        path = Path(hf_hub_download(repo, "config.json", revision=info.sha))
        shards = [f.rfilename for f in info.siblings or () if fnmatch(f.rfilename, "model*.safetensors")]
        if not shards:
            raise HubError(f"{repo}: holds no model*.safetensors; is this a Step-Audio checkpoint?")
        read = partial(api.parse_safetensors_file_metadata, repo, revision=info.sha)
        with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
            headers = list(pool.map(read, shards))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{repo}: config.json is not JSON ({error})") from None
    tensors = [(name, tensor) for header in headers for name, tensor in header.tensors.items()]
    return config, [(name, t.data_offsets[1] - t.data_offsets[0], t.parameter_count) for name, t in tensors]
