"""One step of the plan: bytes of the source in, bytes of the output out, a block of rows at a time.

Rows are quantised independently of each other, so blocks give the same numbers as the whole tensor.
The surprise is how small the block is: on the CPU, MLX needs about forty times the block for fp4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np

from mlx_audio_r1.convert.plan import Step
from mlx_audio_r1.convert.reader import DTYPES, Entry, as_array, as_bytes

BLOCK_BYTES = 8 << 20  # of the source

ReadRows = Callable[[Entry, int, int], np.ndarray]


class Change(Protocol):
    """Something that happens to weights on their way: an adapter that is merged, say."""

    def touches(self, step: Step) -> bool:
        """Does it change the weight of this step?"""

    def rows(self, step: Step, x: mx.array, start: int, stop: int) -> mx.array:
        """Rows start..stop of the weight, float32 and in MLX's axes, as they should be."""


def pieces(step: Step, read_rows: ReadRows, change: Change | None = None) -> Iterator[memoryview]:
    """The bytes of `step.outputs`, one output after the other, in row order.

    Scales and biases are kept until the weight is out: an eighth of it at most.
    """
    change = change if change is not None and change.touches(step) else None
    kept: list[list[memoryview]] = [[] for _ in step.outputs[1:]]
    for start, stop in row_blocks(step):
        blocks = [read_rows(source, start, stop) for source in step.sources]
        if not (change or needs_arithmetic(step)):
            yield memoryview(blocks[0])
            continue
        first, *rest = (as_bytes(a) for a in transform(step, blocks, (start, stop), change))
        yield first
        for parts, part in zip(kept, rest, strict=True):
            parts.append(part)
    for parts in kept:
        yield from parts


def row_blocks(step: Step) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of each block; one block when axes are permuted."""
    rows = step.sources[0].shape[0]
    per_row = max(1, step.source_bytes // rows)
    size = rows if step.axes else max(1, BLOCK_BYTES // per_row)
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def needs_arithmetic(step: Step) -> bool:
    """False when the bytes go through as they are."""
    return bool(step.axes or step.pack or step.unpack or step.sources[0].dtype != step.dtype)


def transform(
    step: Step, blocks: Sequence[np.ndarray], rows: tuple[int, int], change: Change | None = None
) -> Sequence[mx.array]:
    """Unpack, permute, change, cast, pack: whichever of them is asked for."""
    arrays = [
        as_array(block, source.dtype, (rows[1] - rows[0], *source.shape[1:]))
        for block, source in zip(blocks, step.sources, strict=True)
    ]
    x = arrays[0]
    if step.unpack:
        if change and step.unpack.mode == "affine":  # MLX unpacks into the type of the scales
            arrays[1:] = [x.astype(mx.float32) for x in arrays[1:]]
        biases = arrays[2] if len(arrays) > 2 else None
        how = step.unpack
        x = mx.dequantize(x, arrays[1], biases, how.group_size, how.bits, mode=how.mode)
    if step.axes:
        x = x.transpose(*step.axes)
    if change:
        x = change.rows(step, x.astype(mx.float32), *rows)
    x = x.astype(DTYPES[step.dtype])
    if not step.pack:
        return [x]
    return mx.quantize(x, step.pack.group_size, step.pack.bits, mode=step.pack.mode)
