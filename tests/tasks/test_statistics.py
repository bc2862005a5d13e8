"""Statistics, against scipy, statsmodels where it is installed, and counting everything there is."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from mlx_audio_r1.tasks.statistics import (
    auc,
    bootstrap_mean,
    bootstrap_slope,
    bootstrap_total,
    guess_at_k,
    maj_at_k,
    mcnemar,
    pass_at_k,
    wilson,
)

COUNTS = [(1, 5_000), (0, 100), (50, 100), (100, 100), (777, 1_000), (1, 1), (0, 1), (3, 7), (56, 87)]


@pytest.mark.parametrize(("hits", "n"), COUNTS)
def test_wilsons_interval_is_scipys(hits, n):
    found = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((hits / n, found.low, found.high), abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), COUNTS)
def test_wilsons_interval_is_statsmodels(hits, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    want = proportion.proportion_confint(hits, n, method="wilson")
    assert wilson(hits, n)[1:] == pytest.approx(want, abs=1e-12)


def test_a_score_of_parts_has_an_interval_too():
    rate, low, high = wilson(2.5, 10)
    assert low < rate == 0.25 < high


@pytest.mark.parametrize(("wrong", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_an_interval_of_nothing_is_refused(wrong, n):
    with pytest.raises(ValueError, match="at least one reply"):
        wilson(wrong, n)


PAIRS = [(0, 0), (1, 0), (12, 3), (3, 12), (5, 5), (100, 80), (0, 20), (451, 400)]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_mcnemar_is_the_exact_binomial_test(a, b):
    want = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_mcnemar_is_statsmodels(a, b):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(a, b) == pytest.approx(tables.mcnemar([[9, a], [b, 9]], exact=True).pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bootstrap_is_scipys(seed):
    values = np.random.default_rng(seed).choice([-1.0, 0.0, 0.0, 1.0], 400)
    mean, low, high = bootstrap_mean(values.tolist(), seed)
    drawn = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=7)
    want = drawn.confidence_interval
    assert mean == values.mean()
    # two draws of 10,000 each differ: the 2.5 % point has an error of about 0.0006 here, times 5
    assert (low, high) == pytest.approx((want.low, want.high), abs=0.003)
    assert bootstrap_mean(values.tolist(), seed) == (mean, low, high)


def test_the_bootstrap_of_nothing_and_of_one():
    assert all(map(math.isnan, bootstrap_mean([])))
    assert bootstrap_mean([0.5]) == (0.5, 0.5, 0.5)


def test_the_bootstrap_of_many_items_is_drawn_in_blocks(monkeypatch):
    values = np.random.default_rng(0).random(50).tolist()
    whole = bootstrap_mean(values, draws=500)
    monkeypatch.setattr("mlx_audio_r1.tasks.statistics.CELLS", 60)
    assert bootstrap_mean(values, draws=500) == pytest.approx(whole, abs=1e-12)


def test_a_rate_of_sums_is_drawn_like_any():
    rows = np.random.default_rng(0).integers(0, 9, (200, 2))
    found = bootstrap_total(rows, lambda sums: sums[0] / max(1, sums[1]))
    want = stats.bootstrap((rows[:, 0], rows[:, 1]), lambda e, w, axis: e.sum(axis) / w.sum(axis), paired=True,
                           n_resamples=4_000, method="percentile", rng=1).confidence_interval  # fmt: skip
    assert found[0] == pytest.approx(rows[:, 0].sum() / rows[:, 1].sum())
    assert found[1:] == pytest.approx((want.low, want.high), abs=0.1 * (want.high - want.low))


def test_a_slope_is_that_of_least_squares():
    x = [0.0, 6.0, 8.0, 10.0, 12.0]
    y = np.random.default_rng(0).random((60, 5))
    fitted = stats.linregress(x, y.mean(0)).slope
    slope, low, high = bootstrap_slope(x, y)
    assert slope == pytest.approx(fitted, abs=1e-12)
    assert low < slope < high
    redrawn = np.random.default_rng(3).integers(0, 60, (4_000, 60))
    want = np.percentile([np.polyfit(x, y[rows].mean(0), 1)[0] for rows in redrawn], [2.5, 97.5])
    assert (low, high) == pytest.approx(want, abs=0.1 * (high - low))  # 4,000 draws place the ends so well
    with pytest.raises(ValueError, match="two places"):
        bootstrap_slope([1.0, 1.0], y[:, :2])


@pytest.mark.parametrize(("n", "right", "k"), [(n, c, k) for n in (1, 2, 5, 8) for c in range(n + 1)
                                                for k in range(1, n + 1)])  # fmt: skip
def test_pass_at_k_counts_every_subset(n, right, k):
    samples = [i < right for i in range(n)]
    subsets = list(combinations(samples, k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_of_many_is_the_product_of_human_eval():
    n, c, k = 200, 13, 100
    assert pass_at_k(n, c, k) == pytest.approx(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)), abs=1e-12)


@pytest.mark.parametrize(("n", "right", "k"), [(4, 2, 5), (4, 5, 2), (4, 2, 0), (0, 0, 1)])
def test_pass_at_k_of_what_is_not_there(n, right, k):
    with pytest.raises(ValueError, match="k is 1 to the number"):
        pass_at_k(n, right, k)


def test_guessing_is_good_at_pass_at_k():
    assert guess_at_k(0.25, 8) == pytest.approx(0.8999, abs=1e-4)
    assert guess_at_k(0.25, 1) == 0.25


def test_a_vote_against_counting_by_hand():
    assert maj_at_k(["a", "b", "a"], "a", 3) == 1.0
    assert maj_at_k(["a", "b"], "a", 2) == 0.5  # a tie
    assert maj_at_k(["a", None, None], "a", 3) == 1.0  # who was not understood does not vote
    assert maj_at_k([None, None], "a", 1) == 0.0
    assert maj_at_k(["a", "b", "b"], "a", 1) == pytest.approx(1 / 3)
    assert maj_at_k(["a", "b", "b"], "a", 2) == pytest.approx((0.5 + 0.5 + 0) / 3)
    with pytest.raises(ValueError, match="k is 1 to the number"):
        maj_at_k(["a"], "a", 2)


def test_one_vote_is_the_accuracy_and_all_votes_are_one():
    for answers in product("ab", repeat=5):
        assert maj_at_k(answers, "a", 1) == pytest.approx(answers.count("a") / 5)
        assert maj_at_k(answers, "a", 5) == float(answers.count("a") >= 3)


def test_votes_of_many_samples_are_drawn():
    answers = ["a"] * 12 + ["b"] * 12
    assert maj_at_k(answers, "a", 9) == pytest.approx(0.5, abs=0.05)  # 1,000 subsets: 0.016 is one deviation
    assert maj_at_k(answers, "a", 9) == maj_at_k(answers, "a", 9)


def test_auc_is_mann_whitneys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40).astype(float), rng.integers(2, 12, 30).astype(float)
    assert auc(a, b) == pytest.approx(stats.mannwhitneyu(a, b).statistic / 1200, abs=1e-12)
    assert auc([1], [0]) == 1.0 and auc([1], [1]) == 0.5 and math.isnan(auc([], [1.0]))
