"""How sure a number is.

    wilson(3, 500)    # (0.006, 0.002, 0.0175)
"""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(hits: float, n: int) -> tuple[float, float, float]:
    """(rate, low, high): the share and Wilson's 95 % interval, 0-1. Source: Wilson 1927.

    Raises ValueError where there is nothing to count.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n}: give at least one reply, and no more hits than replies")
    z, rate = Z95, hits / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return rate, max(middle - half, 0.0), min(middle + half, 1.0)
