"""Log-mel frames of a spectrum, against float64, the plain operations and the front end they are part of."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1 import mel
from mlx_audio_r1.kernels import log_mel as op
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.kernels.log_mel import Filters
from mlx_audio_r1.kernels.proof import SIZES, Case
from mlx_audio_r1.kernels.proofs.log_mel import case, reference64, strided, triangles
from tests.kernels.grid import ORDERS, assert_as_good
from tests.metalsim import mutation_test, options
from tests.metalsim.simulate import Simulation

WIDE = (128, 201)
SIZED = [pytest.param(n, bank, decades, marks=[] if n in (7, 33) and bank == WIDE else pytest.mark.long)
         for n in SIZES for bank in (WIDE, (80, 201), (3, 7)) for decades in (0.5, 3.0)]


def assert_good(given: Case) -> None:
    plain, (want,) = op.reference(*given.arrays, **given.options), reference64(*given.arrays, **given.options)
    assert_as_good(op.launch(*given.arrays, **given.options), plain, want)


@pytest.mark.parametrize(("frames", "bank", "decades"), SIZED)
def test_as_good_as_plain_operations(simulation: Simulation, frames: int, bank: tuple[int, int],
                                     decades: float) -> None:
    for order in ORDERS:
        with options(max_threads=256, threadgroup_bytes=16384, **order):
            assert_good(case(frames, triangles(*bank), decades=decades))
        assert not [f for launch in simulation.launches for f in launch.findings]


def test_the_front_end_is_the_same_with_it(simulation: Simulation) -> None:
    """A loud half and one far below its floor."""
    n = 4800
    waveform = np.sin(np.arange(n) * 0.3) * np.where(np.arange(n) < n // 2, 0.5, 1e-6)
    plain = mel.log_mel(waveform)
    with configured("on"):
        got = mel.log_mel(waveform)
    assert simulation.count("log_mel") == simulation.count("log_mel_floor") > 0
    assert got.shape == plain.shape == (32, 128)
    assert mx.abs(got - plain).max().item() < 1e-5  # values of 1, summed in another order
    assert (got == got.min()).sum() > 500


def test_silence_is_the_same_number_everywhere(simulation: Simulation) -> None:
    got = op.launch(mx.zeros((20, 201), mx.complex64), filters=triangles(*WIDE))
    assert mx.all(got == -1.5)


def test_the_floor_is_below_the_maximum_of_all_frames(simulation: Simulation) -> None:
    """It stands in the last of more threadgroups than one maximum each."""
    spectrum = mx.ones((41, 201), mx.complex64)
    spectrum[40] = 1e6
    filters = triangles(5, 201)
    got = op.launch(spectrum, filters=filters)
    assert mx.array_equal(got, op.reference(spectrum, filters=filters))
    assert mx.abs(got[:40] - (got[40].max() - 2)).max() < 1e-6  # 8 decades are 2 here, up to a rounding


@pytest.mark.parametrize(("frames", "spans"), [(1, 1), (20, 2)])
def test_bytes_are_those_of_the_docstring(simulation: Simulation, frames: int, spans: int) -> None:
    given, filters = case(frames, triangles(*WIDE)), triangles(*WIDE)
    op.launch(*given.arrays, **given.options)
    first, second = simulation.launches
    groups, values = -(-frames // 8), 4 * frames * 128
    assert first.traffic["spectrum"].read == frames * 201 * 8
    assert first.traffic["weights"].read == frames * filters.weights.nbytes
    assert first.traffic["spans"].read == frames * 128 * 12
    assert first.traffic["logs"].written == second.traffic["logs"].read == values
    assert second.traffic["out"].written == values
    assert first.traffic["maxima"].written == 4 * groups
    assert second.traffic["maxima"].read == 4 * groups * spans
    scalars = ("frames", "least", "groups", "values", "range")
    traffic = [*first.traffic.items(), *second.traffic.items()]
    used = sum(t.read + t.written for name, t in traffic if name not in scalars)
    assert op.OP.bytes(*given.arrays, **given.options) == used


def test_filters_know_their_spans() -> None:
    bank = mx.array([[0, 0, 0.5, 1, 0], [0, 0, 0, 0, 0], [2, 0, 3, 0, 0]], mx.float32)
    filters = Filters.of(bank)
    assert filters.spans.tolist() == [[2, 4, 0], [0, 0, 2], [0, 3, 2]]
    assert filters.weights.tolist() == [0.5, 1, 2, 0, 3]


def test_the_bank_of_the_front_end_is_read_without_its_noughts() -> None:
    """Of its 25,728 numbers no more than two a bin are any."""
    filters = Filters.of(mel.mel_filters(128))
    assert filters.weights.size == int((filters.bank != 0).sum()) < 2 * 201


def test_what_is_no_number_is_seen(simulation: Simulation) -> None:
    filters = triangles(5, 33)
    (spectrum,) = case(5, filters).arrays
    spectrum[2, 20] = np.nan
    seen = mx.isnan(op.launch(spectrum, filters=filters))
    assert seen[2].any() and not seen[mx.array([0, 1, 3, 4])].any()
    assert mx.isnan(op.reference(spectrum, filters=filters)).any()


def test_slices_and_transposes(simulation: Simulation) -> None:
    assert_good(strided())


def test_gradients_are_the_reference_s(simulation: Simulation) -> None:
    (spectrum,), filters = case(5, triangles(5, 33)).arrays, triangles(5, 33)
    got, want = (mx.grad(lambda x, side=side: mx.sin(side(x, filters=filters)).sum())(spectrum)
                 for side in (op.launch, op.reference))
    # Cotangents are of values that differ by roundings.
    assert mx.abs(got - want).max().item() < 1e-4 * mx.abs(want).max().item()


def test_what_does_not_fit() -> None:
    (spectrum,), filters = case(5, triangles(5, 33)).arrays, triangles(5, 33)
    assert op.fits(spectrum, filters=filters)
    assert not op.fits(mx.abs(spectrum), filters=filters)
    assert not op.fits(spectrum[:, :30], filters=filters)
    assert not op.fits(spectrum[:0], filters=filters)
    assert not op.fits(mx.zeros((1, op.MAX_BINS + 1), mx.complex64), filters=triangles(5, op.MAX_BINS + 1))
    assert not op.fits(spectrum, filters=Filters.of(mx.zeros((5, 33))))


def test_off_metal_the_reference_runs() -> None:
    (spectrum,), filters = case(5, triangles(5, 33)).arrays, triangles(5, 33)
    assert mx.array_equal(op.log_mel_frames(spectrum, filters), op.reference(spectrum, filters=filters))


EQUIVALENT = [
    "== 0 to == 1: if (thread_index_in_simdgroup == 0) {",  # after simd_max all lanes hold it, in both kernels
    "== 0 to == 1: if (thread_index_in_simdgroup == 0) {",
    "== 0 to == 1: if (thread_index == 0) {",  # any thread can take the maximum of the simdgroups
    "< to <=: float value = metal::precise::log10(sum < least ? least : sum);  // what is no number stays none",
    "< to <=: out[i] = ((value < low ? low : value) + 4.0f) / 4.0f;",  # of equals either
]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_break_of_it_is_noticed() -> None:
    """More frames than a threadgroup's, more values than a span, more maxima than threads."""
    wide, narrow = triangles(*WIDE), triangles(3, 7)
    (many,) = case(2060, narrow).arrays
    many[2059] = 1e9
    inputs = [(case(19, wide, decades=d).arrays[0], wide) for d in (0.5, 3.0)] + [(many, narrow)]

    def run(side: Any = op._launch) -> list[mx.array]:
        return [side(spectrum, filters=filters) for spectrum, filters in inputs]

    report = mutation_test(run, run(op.reference), tolerance=1e-4)
    assert report.killed > 30
    assert report.unexplained(EQUIVALENT) == []
