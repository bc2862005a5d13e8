"""Everything the hub's client raises, as one line that says what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)

from mlx_audio_r1.errors import CheckpointError, DiskError, HubError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AGAIN = "run the same command again, it goes on where it stopped"
REFUSALS = (
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)


@contextmanager
def hub_errors(repo: str, filename: str | None = None, revision: str | None = None) -> Iterator[None]:
    """Turn everything the client raises into one line that says what to do next."""
    try:
        yield
    except SafetensorsParsingError:
        what = filename or "a shard"
        raise CheckpointError(f"{what}: not a safetensors file, or damaged, in {repo}") from None
    except REFUSALS as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        raise HubError(_explain(cause or error, repo, filename, revision)) from None
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DiskError(f"{filename}: the disk is full; make room and {AGAIN}") from None
        if error.errno in (errno.EACCES, errno.EROFS):
            raise DiskError(f"{error.filename}: no right to write here") from None
        raise HubError(f"{filename or repo}: {first_line(error)}; {AGAIN}") from None


def _explain(error: Exception, repo: str, filename: str | None, revision: str | None) -> str:
    page = f"{HfApi().endpoint}/{repo}"
    login = "run: hf auth login"
    if isinstance(error, HFValidationError):
        return f"{repo}: no such folder, and not a repository name like stepfun-ai/Step-Audio-R1.1"
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms at {page}, then {login}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{repo}: no such folder here and no such repository at {page}; if it is private, {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision or 'main'}; {page}/tree/main shows what there is"
    if isinstance(error, LocalTokenNotFoundError):
        return f"{repo}: writing to the hub needs a token; {login}"
    if isinstance(error, EntryNotFoundError):
        return f"{repo} has no file {filename}; {page}/tree/main shows what there is"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo}: the hub is switched off by HF_HUB_OFFLINE; unset it, or give a folder"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return f"{repo}: the hub asks for a valid token (401); {login}"
    if status == 403:
        return f"{repo}: this token may not do that (403); see {page}, or {login}"
    if status:
        return f"{page}: the hub answers {status}; wait a little and {AGAIN}"
    return f"cannot reach {page} ({first_line(error)}); check the network and {AGAIN}"


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
