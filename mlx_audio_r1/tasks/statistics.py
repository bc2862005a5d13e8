"""How sure a number is, and what many tries are worth.

    wilson(3, 500)                       # (0.006, 0.002, 0.0175)
    mcnemar(12, 3)                       # 0.0352: two models on the same items
    pass_at_k(8, 2, 4)                   # 0.786
    maj_at_k(["a", "b", "a"], "a", 3)    # 1.0

Everything that draws takes a seed. The surprise: items are what is drawn anew, never replies, because the
replies to one item are not independent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
DRAWS, TOTALS = 10_000, 2_000  # of a bootstrap; of one whose number is no mean
SUBSETS = 1_000  # of the samples of an item, where there are more than these
CELLS = 4_000_000  # numbers drawn at once: 32 MB
Interval = tuple[float, float, float]  # value, low, high


def wilson(hits: float, n: int) -> Interval:
    """(rate, low, high): the share and Wilson's 95 % interval, 0-1. Source: Wilson 1927.

    Raises ValueError where there is nothing to count.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n}: give at least one reply, and no more hits than replies")
    z, rate = Z95, hits / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return rate, max(middle - half, 0.0), min(middle + half, 1.0)


def mcnemar(only_a: int, only_b: int) -> float:
    """p of the exact two-sided test: were the items that only one of two models has right split by a fair coin?
    1 where there are none. Source: McNemar 1947, exact binomial form."""
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def bootstrap_mean(values: Sequence[float], seed: int = 0, draws: int = DRAWS) -> Interval:
    """The mean and its 95 % percentile interval, items drawn with replacement. Source: Efron 1979.

    Of differences between two runs over the same items it is the paired bootstrap. NaNs where there are none.
    """
    x = np.asarray(values, float)
    if not x.size:
        return math.nan, math.nan, math.nan
    means = np.concatenate([x[rows].mean(1) for rows in _redrawn(len(x), seed, draws)])
    return float(x.mean()), *_percentiles(means)


def bootstrap_slope(x: Sequence[float], y: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """The slope of the mean of y over x, and its 95 % interval, items drawn with replacement.

    x (P,) are the places, y (items, P) what each item has there: accuracy under budgets, say. Raises ValueError
    for fewer than two places.
    """
    at, rows = np.asarray(x, float), np.asarray(y, float)
    if len(set(at.tolist())) < 2:
        raise ValueError("a slope needs two places at least")
    weights = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    slopes = rows @ weights  # the slope of a mean is the mean of the slopes
    return bootstrap_mean(slopes.tolist(), seed, draws)


def bootstrap_total(
    rows: np.ndarray, total: Callable[[np.ndarray], float], seed: int = 0, draws: int = TOTALS
) -> Interval:
    """total of the summed rows (items, C), and its 95 % interval, items drawn with replacement: for numbers
    that are made of sums, such as all errors over all words."""
    sums = np.concatenate([rows[drawn].sum(1) for drawn in _redrawn(len(rows), seed, draws)])
    return float(total(rows.sum(0))), *_percentiles(np.array([total(own) for own in sums]))


def _redrawn(n: int, seed: int, draws: int) -> Iterator[np.ndarray]:
    """Blocks of rows of n indices each, `draws` rows in all."""
    rng, block = np.random.default_rng(seed), max(1, CELLS // n)
    for start in range(0, draws, block):
        yield rng.integers(0, n, (min(block, draws - start), n))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that of k samples at least one is right, unbiased from n of which `right` are: 1 - C(n-c, k) /
    C(n, k). Source: Chen et al. 2021. Raises ValueError where k > n."""
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} of {n} samples, {right} right: k is 1 to the number of samples")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def guess_at_k(chance: float, k: int) -> float:
    """What pass@k is by guessing blindly k times: 1 - (1 - chance)^k."""
    return 1.0 - (1.0 - chance) ** k


def maj_at_k(answers: Sequence[Hashable | None], gold: Hashable, k: int, seed: int = 0) -> float:
    """The credit of a vote of k samples, averaged over all subsets of the n, or SUBSETS drawn ones.

    answers: what each sample chose (an option's text, not its letter), None where nothing was understood; those
    do not vote. A tie shares its credit. Raises ValueError where k > n.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} of {n} samples: k is 1 to the number of samples")
    if math.comb(n, k) <= SUBSETS:
        subsets = list(combinations(range(n), k))
    else:
        rng = np.random.default_rng(seed)
        subsets = [tuple(rng.choice(n, k, replace=False).tolist()) for _ in range(SUBSETS)]
    return sum(_vote([answers[i] for i in subset], gold) for subset in subsets) / len(subsets)


def _vote(answers: Sequence[Hashable | None], gold: Hashable) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    tied = [answer for answer, count in votes.items() if count == most]
    return 1.0 / len(tied) if gold in tied else 0.0


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive one is above a negative one, ties half: the area under the ROC curve.

    NaN where either is missing. Source: Mann and Whitney 1947.
    """
    p, n = np.asarray(positive, float), np.sort(np.asarray(negative, float))
    if not p.size or not n.size:
        return math.nan
    below, up_to = np.searchsorted(n, p, "left"), np.searchsorted(n, p, "right")
    return float((below + up_to).mean() / 2 / n.size)
