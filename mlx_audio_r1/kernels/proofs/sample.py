"""Sampling: which number draws which token, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.kernels.proof import Array, Case, Proof, Verdict, exact, grid, named, noise
from mlx_audio_r1.kernels.sample import OP

EVERY = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0}
FILTERS = ({}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 5}, {"top_p": 0.9, "min_p": 0.02, "top_k": 6},
           {"top_p": 0.95, "temperature": 0.7})
SHARE = 1e-5  # of the distribution: sums of up to 158,720 weights in float32


def case(size: int, batch: int, dtype: mx.Dtype, **given: float) -> Case:
    arrays = noise((batch, size), dtype, 1, scale=2.0), mx.random.uniform(shape=(batch,), key=mx.random.key(9))
    shown = "".join(f" {name}={value}" for name, value in given.items())
    return Case(named(size, batch, dtype) + shown, arrays, {**EVERY, **given})


def cases() -> Iterator[Case]:
    for given in FILTERS:
        yield from grid(lambda *size, given=given: case(*size, **given))
    base, uniform = noise((80, 6), mx.float32, 1), mx.random.uniform(shape=(12,), key=mx.random.key(2))[::2]
    yield Case("slices and transposes", (base.T[:, ::2], uniform), {**EVERY, "top_p": 0.9})
    yield from shapes()


def shapes() -> Iterator[Case]:
    for rows in (1, 8):
        for given in (FILTERS[0], {"top_p": 0.95, "top_k": 50}):
            found = case(158_720, rows, mx.bfloat16, **given)
            filters = found.name.partition(" ")[2] or "no filter"
            yield Case(f"{rows} row{'s' * (rows > 1)}, {filters}", found.arrays, found.options)


def distribution(row: Array, temperature: float, top_p: float, min_p: float, top_k: int) -> Array:
    """Probabilities of the tokens; of equal ones the lower number comes first."""
    order = np.argsort(-row, kind="stable")
    weight = np.exp(row - row.max())
    keep = row > -np.inf
    if 0 < top_p < 1:
        keep &= _weight_above(row, weight) < top_p * weight.sum()
    if min_p > 0:
        keep &= row >= row.max() + np.log(min_p)
    if 0 < top_k < len(row):
        keep &= np.isin(np.arange(len(row)), order[:top_k])
    p = np.where(keep, np.exp((row - row.max()) / temperature), 0)
    return p / p.sum()


def _weight_above(row: Array, weight: Array) -> Array:
    """For each token the weight of those that are more likely, not of equal ones."""
    values, where = np.unique(-row, return_inverse=True)
    of_value = np.bincount(where, weight, len(values))
    return (np.cumsum(of_value) - of_value)[where]


def judge(case: Case, tokens: mx.array) -> list[Verdict]:
    """How far a row's number is from the stretch of the distribution that belongs to its token."""
    logprobs, uniform = case.arrays
    if tokens.dtype != mx.uint32 or tokens.shape != uniform.shape:
        return [Verdict("token", float("inf"), SHARE)]
    off = [_off(row, token, u, **case.options)
           for row, token, u in zip(exact(logprobs), tokens.tolist(), uniform.tolist(), strict=True)]
    return [Verdict("token", max(off, default=0.0), SHARE)]


def _off(row: Array, token: int, u: float, **options: Any) -> float:
    if token >= len(row):
        return float("inf")
    p = distribution(row, **options)
    above = p[:token].sum()
    return max(above - u, u - above - p[token], 0.0) if p[token] > 0 else float("inf")


PROOF = Proof(OP, cases, shapes, judge=judge)
