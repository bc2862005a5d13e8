"""Files that are either whole or not there: written aside, synced, renamed.

MLX's own writer does not say when a disk is full, so arrays go through a Python file, which does.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlx_audio_r1.errors import DiskError

if TYPE_CHECKING:
    import mlx.core as mx

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's complaints about `path` into one DiskError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskError(
                f"{path}: the disk is full; make room and run the same command again, "
                "it goes on where it stopped"
            ) from None
        if error.errno in FORBIDDEN:
            raise DiskError(f"{path}: no right to write here") from None
        raise DiskError(f"{path}: cannot be written ({error.strerror or error})") from None


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well."""
    aside = path.with_name(path.name + ".new")
    with disk_errors(path):
        try:
            with open(aside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def write_file(path: Path, text: str) -> None:
    """Write a small file so that after a crash it holds either the old text or the new."""
    with written_aside(path) as file:
        file.write(text.encode())


def write_arrays(path: Path, arrays: Mapping[str, mx.array], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file so that after a crash it holds either the old arrays or the new."""
    import mlx.core as mx

    with written_aside(path) as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())), {"format": "mlx", **(metadata or {})})


def locked(file: IO[bytes]) -> bool:
    """Take an open file for this process, as long as it is open; False when another has it. A file system
    without locks is trusted."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    with disk_errors(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
