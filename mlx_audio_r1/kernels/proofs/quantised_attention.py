"""Attention over a quantised cache, ragged and not, in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx

from mlx_audio_r1.kernels.attention_segments import Affine
from mlx_audio_r1.kernels.proof import BATCHES, DTYPES, Array, Case, Proof, grid, named, noise, short
from mlx_audio_r1.kernels.proof_attention import attention64, random_store
from mlx_audio_r1.kernels.quantised_attention import OP, parts_of

FORMS = [Affine(*form) for form in ((8, 64), (4, 64), (8, 32), (4, 32), (8, 128), (4, 128), (2, 64))]


def case(tokens: int, batch: int, dtype: mx.Dtype, form: Affine = FORMS[0], *, length: int = 1,
         heads: tuple[int, int] = (5, 1), dims: int = 128, padding: Sequence[int] | None = None,
         name: str = "") -> Case:
    keys, values = (random_store((batch, heads[1], tokens, dims), dtype, form, seed) for seed in (1, 2))
    queries = noise((batch, heads[0], length, dims), dtype, 3)
    skipped = [] if padding is None else [mx.array(padding, mx.int32)]
    return Case(name or named(tokens, batch, dtype), (queries, *keys, *values, *skipped),
                {"scale": dims**-0.5, "bits": form.bits, "group_size": form.group_size})


def cases() -> Iterator[Case]:
    yield from grid(case)
    for dtype in DTYPES:
        for form in FORMS:
            kind = f"{form.bits} bits in {form.group_size} {short(dtype)}"
            yield case(70, 1, dtype, form, heads=(10, 2), name=kind)
            yield case(129, 2, dtype, form, heads=(6, 2), dims=form.group_size, length=3, name=f"{kind} small")
        for batch in BATCHES:
            for length in (2, 5, 8):
                yield case(26, batch, dtype, length=length, padding=[0, 3, 25 - length, 25, 1][:batch],
                           name=f"{batch} ragged rows of {length} {short(dtype)}")
    yield from shapes()


def shapes() -> Iterator[Case]:
    for tokens in (2048, 8192, 32768):
        for form in FORMS[:2]:
            yield case(tokens, 1, mx.bfloat16, form, heads=(40, 8), name=f"{tokens:,} tokens, {form.bits} bits")


def reference64(queries: mx.array, *stores: mx.array, scale: float, bits: int,
                group_size: int) -> tuple[Array, Array]:
    keys, values, padding = parts_of(stores)
    skipped = None if padding is None else padding.tolist()
    return attention64(queries, [(keys, values)], scale, Affine(bits, group_size), skipped)


PROOF = Proof(OP, cases, shapes, reference64)
