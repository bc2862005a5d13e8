"""What the converter wants of the hub: what a repository holds, its files, and putting one there.

The surprise: the client checks the size of what it downloads and nothing more, so large files are
compared here with the sha256 the hub states.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.hub_errors import AGAIN, hub_errors

RETRY_DELAYS = (1.0, 4.0)  # seconds; the client itself retries lost connections

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. `sha256` is known for large files only."""

    size: int
    sha256: str | None


@dataclass(frozen=True)
class Repo:
    """A model repository pinned to one commit."""

    name: str
    commit: str
    files: dict[str, RemoteFile] = field(repr=False)

    def download(self, filename: str, folder: Path | None) -> Path:
        """Fetch one file into `folder`, or into the hub's cache when `folder` is None."""
        with hub_errors(self.name, filename):
            where = {"repo_id": self.name, "revision": self.commit, "local_dir": folder}
            path = Path(_retry(lambda: hf_hub_download(filename=filename, **where)))
        self._check(filename, path)
        return path

    def cached(self, filename: str) -> Path | None:
        """The file in the hub's cache, if it was fetched whole before."""
        path = try_to_load_from_cache(self.name, filename, revision=self.commit)
        if not isinstance(path, str) or Path(path).stat().st_size != self.files[filename].size:
            return None
        return Path(path)

    def header(self, filename: str) -> dict[str, Any]:
        """The header of a remote safetensors file, without the rest of it."""
        with hub_errors(self.name, filename):
            parse = HfApi().parse_safetensors_file_metadata
            parsed = _retry(lambda: parse(self.name, filename, revision=self.commit))
        return {
            name: {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": list(t.data_offsets)}
            for name, t in parsed.tensors.items()
        }

    def _check(self, filename: str, path: Path) -> None:
        expected = self.files[filename]
        wrong = path.stat().st_size != expected.size or (
            expected.sha256 is not None and sha256_of(path) != expected.sha256
        )
        if wrong:
            for place in {path.resolve(), path}:  # in the cache, a file and the link to it
                place.unlink()
            raise CheckpointError(
                f"{filename}: what arrived is not what {self.name} holds; it was deleted: {AGAIN}"
            )


def find_repo(name: str, revision: str | None) -> Repo:
    """Look a repository up. Raises HubError when it is missing, closed or out of reach."""
    with hub_errors(name, None, revision):
        info = _retry(lambda: HfApi().model_info(name, revision=revision, files_metadata=True), lost=False)
    files = {
        f.rfilename: RemoteFile(f.size or 0, f.lfs.sha256 if f.lfs else None)
        for f in info.siblings or []
    }
    return Repo(name, info.sha, files)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(folder: Path, repo: str) -> str:
    """Put a finished folder on the hub and return its address."""
    api = HfApi()
    with hub_errors(repo):
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="MLX conversion")
    return f"{api.endpoint}/{repo}"


def check_login(repo: str) -> None:
    """Raise HubError unless there is a token that the hub knows."""
    with hub_errors(repo):
        HfApi().whoami()


def _retry(call: Callable[[], T], *, lost: bool = True) -> T:
    """Call again after a server error, or (`lost`) a connection that broke, a few times."""
    for delay in RETRY_DELAYS:
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            raise
        except HTTPError:
            if not lost:
                raise
        except OSError as error:
            if error.errno is not None:
                raise
        time.sleep(delay)
    return call()
