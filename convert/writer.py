"""An output shard written front to back: the header first, then tensor bytes as they come.

The header can stand first because the plan knows every shape and type. The file is never read back
and never larger than it will be, so a killed run leaves a prefix of the finished file.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.files import disk_errors

if TYPE_CHECKING:
    from mlx_audio_r1.convert.plan import Output

class ShardWriter:
    """Append-only safetensors file. `resume` counts the outputs that are durably written already."""

    def __init__(self, path: Path, outputs: Sequence[Output], resume: int = 0):
        self.path = path
        header = encode_header(outputs)
        offset = len(header) + sum(o.nbytes for o in outputs[:resume])
        self._end = len(header) + sum(o.nbytes for o in outputs)
        with disk_errors(path):
            if resume:
                self._file = open(path, "r+b", buffering=0)  # noqa: SIM115, closed by __exit__
                self._check_length(offset)
                self._file.truncate(offset)
                self._file.seek(offset)
            else:
                self._file = open(path, "wb", buffering=0)  # noqa: SIM115
                self.write(memoryview(header))

    def _check_length(self, offset: int) -> None:
        if os.fstat(self._file.fileno()).st_size < offset:
            self._file.close()
            raise CheckpointError(
                f"{self.path}: shorter than the notes of the unfinished conversion say; "
                "start over with --force"
            )

    def write(self, data: memoryview) -> None:
        """Append `data`, all of it."""
        with disk_errors(self.path):
            while data:
                data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        with disk_errors(self.path):
            os.fsync(self._file.fileno())

    def check_complete(self) -> None:
        """Raise CheckpointError unless the file has the length its header says."""
        size = os.fstat(self._file.fileno()).st_size
        if size != self._end:
            raise CheckpointError(f"{self.path}: {size:,} bytes written where {self._end:,} belong")

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def encode_header(outputs: Sequence[Output]) -> bytes:
    """Length and header of a safetensors file that holds `outputs` in this order."""
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    begin = 0
    for output in outputs:
        end = begin + output.nbytes
        header[output.name] = {
            "dtype": output.dtype,
            "shape": list(output.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
