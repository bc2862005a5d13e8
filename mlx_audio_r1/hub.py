"""A name -> a checkpoint folder: local, embedded, or from the hub through huggingface_hub.

Every way the hub can say no becomes one line that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import AudioR1Error, CheckpointError, ConfigError, DiskError, HubError

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
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder}: is a file; give the folder that holds the checkpoint")
    if not looks_like_repo(str(name)):
        raise CheckpointError(f"{folder}: no such folder; give a checkpoint folder or owner/name")
    return _fetch(str(name))


def looks_like_repo(name: str) -> bool:
    """owner/name, as on the hub."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~")) and not name.endswith("/")


def _fetch(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    with explained(repo):
        return Path(snapshot_download(repo, allow_patterns=CHECKPOINT_FILES))


def cached(repo: str) -> Path | None:
    """The folder of a repository in the hub's cache, whole or not; None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    with explained(repo):
        found = try_to_load_from_cache(repo, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def inspect(repo: str) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """config.json and (name, bytes, values) of every tensor of a repository, without its weights.

    The safetensors headers are read by range: 100 kB a shard, or a little more.
    """
    from huggingface_hub import HfApi, errors, hf_hub_download

    api = HfApi()
    with explained(repo):
        info = api.model_info(repo, timeout=10)  # says at once when there is no network
        path = Path(hf_hub_download(repo, "config.json", revision=info.sha))
        shards = [f.rfilename for f in info.siblings or () if fnmatch(f.rfilename, "model*.safetensors")]
        if not shards:
            raise HubError(f"{repo}: holds no model*.safetensors; is this a Step-Audio checkpoint?")
        read = partial(api.parse_safetensors_file_metadata, repo, revision=info.sha)
        try:
            with ThreadPoolExecutor(HEADERS_AT_ONCE) as pool:
                headers = list(pool.map(read, shards))
        except errors.SafetensorsParsingError as error:
            raise CheckpointError(f"{repo}: a shard is damaged there ({_first_line(error)})") from None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{repo}: config.json is not JSON ({error})") from None
    tensors = [(name, tensor) for header in headers for name, tensor in header.tensors.items()]
    return config, [(name, t.data_offsets[1] - t.data_offsets[0], t.parameter_count) for name, t in tensors]


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into HubError or DiskError of one line."""
    from huggingface_hub import errors as hub

    try:
        yield
    except AudioR1Error:
        raise
    except hub.GatedRepoError:
        raise HubError(
            f"{repo}: access is gated; accept the conditions at https://huggingface.co/{repo}, "
            "then run: hf auth login"
        ) from None
    except hub.RevisionNotFoundError:
        raise HubError(f"{repo}: no such revision; look at the branches and tags of the page") from None
    except hub.RepositoryNotFoundError:
        raise HubError(
            f"{repo}: no such repository, or it is private; check the name, or run: hf auth login"
        ) from None
    except hub.LocalEntryNotFoundError:
        raise HubError(
            f"{repo}: not in the cache and the hub cannot be reached; check the network or HF_HUB_OFFLINE"
        ) from None
    except hub.EntryNotFoundError as error:
        raise HubError(f"{repo}: a file is missing there ({_first_line(error)})") from None
    except hub.HFValidationError as error:
        raise HubError(f"{repo}: not a repository name ({_first_line(error)})") from None
    except hub.HfHubHTTPError as error:
        raise HubError(f"{repo}: {_status_advice(error)}") from None
    except hub.HTTPError as error:  # of the client below: no connection, a broken one, a timeout
        raise HubError(f"{repo}: the hub cannot be reached ({_first_line(error)}); check the network") from None
    except OSError as error:
        raise _os_error(repo, error) from None


def _status_advice(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub refuses access ({status}); run: hf auth login"
    if status == 429:
        return "the hub asks to slow down (429); try again in a few minutes"
    return f"the hub answered {status or _first_line(error)}; try again later"


def _os_error(repo: str, error: OSError) -> AudioR1Error:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskError(f"{repo}: the disk is full ({error.filename or 'cache'}); make room and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskError(f"{repo}: no right to write {error.filename}; check the folder's owner")
    return HubError(f"{repo}: the hub cannot be reached ({_first_line(error)}); check the network")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
