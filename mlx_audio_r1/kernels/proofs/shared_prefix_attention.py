"""Attention over shared prefixes and each row's own tokens in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_audio_r1.kernels.attention_segments import Affine
from mlx_audio_r1.kernels.proof import BATCHES, DTYPES, Array, Case, Proof, grid, named, noise, short
from mlx_audio_r1.kernels.proof_attention import attention64, random_store
from mlx_audio_r1.kernels.shared_prefix_attention import OP, flat, pairs_of

EXACT, QUANTISED = Affine(None), Affine(8, 64)
DIMS = 128


@dataclass(frozen=True)
class Asked:
    """Tokens of more segments and of each row's own, queries a row, and the padding of the rows."""

    more: Sequence[int] = ()
    own: int = 9
    length: int = 1
    heads: tuple[int, int] = (5, 1)
    padding: Sequence[int] | None = None


PLAIN = Asked()


def case(prefix: int, batch: int, dtype: mx.Dtype, form: Affine = QUANTISED, asked: Asked = PLAIN,
         name: str = "") -> Case:
    heads, kv_heads = asked.heads
    sizes = [(1, n) for n in (prefix, *asked.more)] + [(batch, asked.own)]
    pairs = [tuple(random_store((rows, kv_heads, n, DIMS), dtype, form, 2 * i + side) for side in (0, 1))
             for i, (rows, n) in enumerate(sizes)]
    queries = noise((batch, heads, asked.length, DIMS), dtype, 99)
    arrays, kinds = flat(pairs)
    skipped = [] if asked.padding is None else [mx.array(asked.padding, mx.int32)]
    return Case(name or named(prefix, batch, dtype), (queries, *arrays, *skipped),
                {"scale": DIMS**-0.5, "kinds": kinds, "bits": form.bits, "group_size": form.group_size})


def cases() -> Iterator[Case]:
    yield from grid(case)
    for dtype in DTYPES:
        for prefix in (1, 33, 64, 1500):
            yield case(prefix, 2, dtype, EXACT, name=f"exact {prefix} {short(dtype)}")
        for batch in BATCHES:
            for length in (1, 2, 8):
                ragged = Asked(length=length, padding=[0, 1, 1, 0, 1][:batch])
                yield case(12, batch, dtype, asked=ragged,
                           name=f"{batch} ragged rows of {length} {short(dtype)}")
        three = Asked(more=(70, 1), heads=(6, 2), padding=[4, 0])
        yield case(2, 2, dtype, asked=three, name=f"3 segments {short(dtype)}")
        yield case(70, 9, dtype, name=f"more rows than share a reading {short(dtype)}")
    yield from shapes()


def shapes() -> Iterator[Case]:
    for batch in (8, 16):
        for form in (EXACT, QUANTISED):
            yield case(2048, batch, mx.bfloat16, form, Asked(own=512, heads=(40, 8)),
                       name=f"{batch} replies, 2,048 shared and 512 own{'' if form is EXACT else ', 8 bits'}")


def reference64(queries: mx.array, *arrays: mx.array, scale: float, kinds: str, bits: int | None,
                group_size: int) -> tuple[Array, Array]:
    segments, own, padding = pairs_of(arrays, kinds)
    skipped = None if padding is None else padding.tolist()
    return attention64(queries, [*segments, own], scale, Affine(bits, group_size), skipped)


PROOF = Proof(OP, cases, shapes, reference64)
