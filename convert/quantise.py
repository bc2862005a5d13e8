"""One step of the plan: bytes of the source in, bytes of the output out, a block of rows at a time.

Rows are quantised independently of each other, so blocks give the same numbers as the whole tensor.
The surprise is how small the block is: on the CPU, MLX needs about forty times the block for fp4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_audio_r1.convert.plan import Step
from mlx_audio_r1.convert.reader import DTYPES, Entry, as_array, as_bytes

BLOCK_BYTES = 8 << 20  # of the source

ReadRows = Callable[[Entry, int, int], np.ndarray]


def pieces(step: Step, read_rows: ReadRows) -> Iterator[memoryview]:
    """The bytes of `step.outputs`, one output after the other, in row order.

    Scales and biases are kept until the weight is out: an eighth of it at most.
    """
    kept: list[list[memoryview]] = [[] for _ in step.outputs[1:]]
    for start, stop in row_blocks(step):
        blocks = [read_rows(source, start, stop) for source in step.sources]
        if not needs_arithmetic(step):
            yield memoryview(blocks[0])
            continue
        first, *rest = (as_bytes(a) for a in transform(step, blocks, stop - start))
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


def transform(step: Step, blocks: Sequence[np.ndarray], rows: int) -> Sequence[mx.array]:
    """Unpack, permute, cast, pack: whichever of them the step asks for."""
    arrays = [
        as_array(block, source.dtype, (rows, *source.shape[1:]))
        for block, source in zip(blocks, step.sources, strict=True)
    ]
    x = arrays[0]
    if step.unpack:
        biases = arrays[2] if len(arrays) > 2 else None
        how = step.unpack
        x = mx.dequantize(x, arrays[1], biases, how.group_size, how.bits, mode=how.mode)
    if step.axes:
        x = x.transpose(*step.axes)
    x = x.astype(DTYPES[step.dtype])
    if not step.pack:
        return [x]
    return mx.quantize(x, step.pack.group_size, step.pack.bits, mode=step.pack.mode)
