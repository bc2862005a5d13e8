"""Attention within clips of different lengths that lie one behind the other: one launch, no padding, no mask.

A clip's result is the same to the bit whatever lies beside it: its query tiles begin at its own first row and
read its own keys alone. That is the reason to have it, because padded batches change what the encoder hears.
The gain in time is small: by an estimate from arithmetic, 1.5 % of an encoder at most, which is the padding
that is saved. MLX's own attention multiplies the same 8x8 matrices, on newer devices better ones: `auto`
measures.

For clips of n rows that see v of them, H heads of D values of `item` bytes, in tiles of t rows (32 for heads up
to 88, else 16), as loads and stores ask for them:

    plain    1 launch a clip (MLX's attention), and 1 to put the clips together; 3 transposed views a clip
    kernel   1 launch    reads queries once: R H D item; keys and values once a query tile:
             2 H D item * sum over clips of ceil(n / t) v; 16 bytes of where a tile lies in each of its 4 t
             threads, for every head; writes R H D item

The softmax is in float32 and online: top and sum of a row are kept while its keys come by, and what was summed
fades as the top rises, by a product with a diagonal matrix: Apple does not document which lane holds what of a
matrix, so whole matrices are loaded, stored, multiplied and added.
"""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx

from mlx_audio_r1.kernels.choice import Op, register, with_gradient
from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.source import kernel

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
MAX_DIMS = 128


def packed_attention(
    queries: mx.array, keys: mx.array, values: mx.array, clips: Clips, scale: float
) -> mx.array:
    """queries, keys, values (R, H, D), R the rows of all clips -> (R, H, D): every row attends to the visible
    rows of its own clip."""
    return OP(queries, keys, values, clips=clips, scale=scale)


def reference(
    queries: mx.array, keys: mx.array, values: mx.array, *, clips: Clips, scale: float
) -> mx.array:
    """MLX's attention, clip by clip."""
    parts = zip(*map(clips.split, (queries, keys, values)), clips.visible, strict=True)
    alone = [_attend(q, k, v, seen, scale) for q, k, v, seen in parts]
    return mx.concatenate(alone) if alone else mx.zeros_like(queries)


def _attend(queries: mx.array, keys: mx.array, values: mx.array, seen: int, scale: float) -> mx.array:
    length = keys.shape[0]
    q, k, v = (x[None].swapaxes(1, 2) for x in (queries, keys, values))
    mask = None if seen == length else mx.arange(length) < seen
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask).swapaxes(1, 2)[0]


def fits(queries: mx.array, keys: mx.array, values: mx.array, *, clips: Clips, scale: float) -> bool:
    return (
        queries.dtype in DTYPES
        and queries.dtype == keys.dtype == values.dtype
        and queries.ndim == 3
        and queries.shape == keys.shape == values.shape
        and queries.shape[0] == clips.rows
        and queries.size > 0
        and clips.are_sound
        and queries.shape[2] % 8 == 0
        and queries.shape[2] <= MAX_DIMS
    )


def tile_rows(dims: int) -> int:
    """Rows of a tile: threadgroup memory, 4 (D t + t t + 8 t) bytes, stays within 16 KB."""
    return 32 if dims <= 88 else 16


@lru_cache(maxsize=16)
def _tiles(clips: Clips, rows: int) -> mx.array:
    """The same for every layer of a pass."""
    return mx.array(clips.tiles(rows))


def _launch(
    queries: mx.array, keys: mx.array, values: mx.array, *, clips: Clips, scale: float
) -> mx.array:
    _, heads, dims = queries.shape
    rows = tile_rows(dims)
    tiles = _tiles(clips, rows)
    return kernel("packed_attention", ("queries", "keys", "values", "tiles", "scale"), ("out",))(
        inputs=[queries, keys, values, tiles, float(scale)],
        template=[("T", queries.dtype), ("D", dims), ("TILE", rows)],
        grid=(tiles.shape[0] * 4 * rows, heads, 1),
        threadgroup=(4 * rows, 1, 1),
        output_shapes=[queries.shape],
        output_dtypes=[queries.dtype],
    )[0]


def traffic(queries: mx.array, keys: mx.array, values: mx.array, *, clips: Clips, scale: float) -> int:
    row, rows = queries.nbytes // clips.rows, tile_rows(queries.shape[2])
    tiles = clips.tiles(rows)
    keys_read = int((tiles[:, 3] - tiles[:, 2]).sum())
    return 2 * queries.nbytes + 2 * row * keys_read + 16 * 4 * rows * len(tiles) * queries.shape[1]


launch = with_gradient(_launch, reference)
OP = register(Op("packed_attention", reference, launch, fits, traffic))
