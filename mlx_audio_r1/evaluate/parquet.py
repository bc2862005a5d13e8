"""Parquet files of data sets -> rows, and the sounds that lie in them. Needs pyarrow, the extra `eval`.

Read some rows at a time, so memory holds a few sounds, whatever the size of the file. The surprise: a sound
may be bytes, a path, or an array of samples, as whoever made the file liked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Embedded, Sound
from mlx_audio_r1.evaluate.rows import Row
from mlx_audio_r1.tasks.world_rows import wav_bytes

ROWS_AT_ONCE = 16
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or all of a folder and those below it, in order."""
    return [path] if path.suffix == ".parquet" else sorted(path.rglob("*.parquet"))


def split_of(path: Path) -> str:
    """test-00000-of-00002.parquet -> test"""
    return _SHARD.sub("", path.stem)


def columns_of(path: Path) -> list[str]:
    """Names of a file's columns. Raises EvaluationError."""
    pq, broken = _pyarrow()
    with _readable(path, broken):
        return list(pq.read_schema(path).names)


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file that has all these columns. Raises EvaluationError."""
    pq, broken = _pyarrow()
    number = 0
    with _readable(path, broken), pq.ParquetFile(path) as file:
        _check(path, columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path}: row {number}", values)
    if not number:
        raise EvaluationError(f"{path}: no rows in it; download it again")


@contextmanager
def _readable(path: Path, broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (OSError, broken) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise EvaluationError(f"{path}: cannot be read as parquet ({reason}); download it again") from None


def sound(row: Row, *columns: str, folder: Path) -> Sound:
    """The sound of the first column that is there; a path counts from `folder`. Empty bytes where there is
    none, which the import counts as missing."""
    value = next((row.values[name] for name in columns if row.values.get(name) is not None), None)
    if isinstance(value, Mapping):
        value = _of_struct(value)
    if isinstance(value, bytes):
        return Embedded(value)
    return folder / value if isinstance(value, str) and value else Embedded(b"")


def _of_struct(value: Mapping[str, Any]) -> bytes | str | None:
    if value.get("bytes"):
        return value["bytes"]  # type: ignore[no-any-return]
    if value.get("array") is not None and value.get("sampling_rate"):
        samples = np.asarray(value["array"], np.float32)  # (n,) or (channels, n)
        return wav_bytes(samples if samples.ndim == 1 else samples.mean(axis=0), int(value["sampling_rate"]))
    return value.get("path")


def _check(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        raise EvaluationError(f"{path}: no column {', '.join(missing)}; it has {', '.join(there)[:160]}")


def _pyarrow() -> tuple[Any, Any]:
    """(pyarrow.parquet, its base error)"""
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError:
        raise EvaluationError(
            "parquet files need pyarrow: pip install 'mlx-audio-r1[eval]', or give the data set's JSON form"
        ) from None
    return pq, pyarrow.ArrowException
