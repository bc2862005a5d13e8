"""Every small change of the attention kernels is noticed, or it changes nothing."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlx_audio_r1.kernels import quantised_attention, shared_prefix_attention
from mlx_audio_r1.kernels.attention_segments import Affine, Parts, merge, reference_merge
from tests.kernels.attention import normal, packed
from tests.metalsim import mutation_test
from tests.metalsim.simulate import Simulation

FORM = Affine(8, 64)
EXPLAINED = (
    "< to <=: for (int t = begin; t < end; t += TILE) {",  # a tile of no tokens
    "< to <=: for (int first = int(sg) * 32; first < TILE * WORDS; first += NSG * 32) {",  # words past the tile
    "< to <=: if (token < count) {",  # the last of three: noughts in a place of the tile that nobody reads
    "== 0 to == 1: if (lane == 0) {",  # after a sum over all lanes they hold the same, in both kernels
    "== 0 to == 1: if (lane == 0) {",
    "< to <=: for (int first = 0; first < count; first += 32) {",  # no parts: every weight is nought
)


def finite(pair: tuple[mx.array, mx.array]) -> list[mx.array]:
    """The logsumexp of nothing as a number, so that it can be compared."""
    output, lse = pair
    return [output, mx.where(lse == -mx.inf, -1000.0, lse)]


def quantised(side: str) -> list[mx.array]:
    """Rows that do not fill the slots, tiles that are not full, a position and a row that see nothing."""
    mx.random.seed(0)
    queries, padding = normal(3, 6, 3, 128), mx.array([0, 69, 70])
    stores = [*packed(normal(3, 2, 70, 128), FORM), *packed(normal(3, 2, 70, 128), FORM), padding]
    return finite(getattr(quantised_attention, side)(queries, *stores, scale=0.09, bits=8, group_size=64))


def shared(side: str) -> list[mx.array]:
    """Exact keys and values, and more query rows than one group takes."""
    mx.random.seed(1)
    arrays = [normal(1, 2, 70, 64), normal(1, 2, 70, 64), normal(11, 2, 6, 64), normal(11, 2, 6, 64)]
    options = {"scale": 0.12, "kinds": "ee", "bits": None, "group_size": 64}
    queries, padding = normal(11, 8, 1, 64), mx.array([0, 5] + [2] * 9)
    return finite(getattr(shared_prefix_attention, side)(queries, *arrays, padding, **options))


def merged(join: Any) -> list[mx.array]:
    """More parts than lanes; the first 40, and all of another row, saw nothing."""
    mx.random.seed(2)
    one, two = (Parts(normal(1, 2, 1, n, 64), normal(1, 2, 1, n)) for n in (70, 3))
    hidden = mx.arange(2)[None, :, None, None] * 100 + 40 > mx.arange(70)
    one = Parts(mx.where(hidden[..., None], 0, one.output), mx.where(hidden, -mx.inf, one.lse))
    seen = mx.array([True, False])[None, :, None, None]
    two = Parts(mx.where(seen[..., None], two.output, 0), mx.where(seen, two.lse, -mx.inf))
    return finite(join([one, two], mx.float32))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_no_mutant_survives_but_the_explained(simulation: Simulation) -> None:
    expected = [*quantised("reference"), *shared("reference"), *merged(reference_merge)]
    report = mutation_test(lambda: [*quantised("launch"), *shared("launch"), *merged(merge)], expected, 1e-4)
    assert report.unexplained(EXPLAINED) == []
    assert report.killed > 140
