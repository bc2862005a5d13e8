"""Intervals, against known values."""

import pytest

from mlx_audio_r1.tasks.statistics import wilson


@pytest.mark.parametrize(
    ("wrong", "n", "expected"),
    [(1, 5_000, (0.0002, 0.000035, 0.001132)), (0, 100, (0.0, 0.0, 0.036994)),
     (50, 100, (0.5, 0.403832, 0.596168)), (100, 100, (1.0, 0.963006, 1.0))],
)  # fmt: skip
def test_shares_have_wilsons_interval(wrong, n, expected):
    assert wilson(wrong, n) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("wrong", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_an_interval_of_nothing_is_refused(wrong, n):
    with pytest.raises(ValueError, match="at least one reply"):
        wilson(wrong, n)
