"""Bars in parts, and rates with their intervals, in the look of plots.py.

The surprise: a part is not told by its colour alone. The order of the parts is the legend's, and every part
that is wide enough has its number written in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlx_audio_r1.report.page import Html
from mlx_audio_r1.report.plots import GRID, INK, PAPER, QUIET, SERIES, drawn, legend, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = dict(zip(("one", "two", "three", "four", "five", "six", "seven", "eight"), SERIES, strict=True))
NARROW = 0.045  # of the longest bar: a part below this has no number in it
WIDE = 11.4  # inches: a drawing across the page


@dataclass(frozen=True)
class Bar:
    """The same part of every bar: its name, its colour (a key of COLOURS), its size in each."""

    name: str
    colour: str
    sizes: Sequence[float]


def lying(names: Sequence[str], parts: Sequence[Bar], label: str, unit: str) -> Html:
    """A bar across the page for each name, the parts one behind the other."""

    def draw(axes: Axes) -> None:
        longest = max(map(sum, zip(*(part.sizes for part in parts), strict=True)), default=0) or 1
        starts = [0.0] * len(names)
        for part in parts:
            axes.barh(range(len(names)), part.sizes, left=starts, height=0.62, color=COLOURS[part.colour],
                      label=plain(part.name))  # fmt: skip
            for at, (start, size) in enumerate(zip(starts, part.sizes, strict=True)):
                if size > NARROW * longest:
                    axes.text(start + size / 2, at, f"{size:,.0f}", color=PAPER, ha="center", va="center")
            starts = [start + size for start, size in zip(starts, part.sizes, strict=True)]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, longest)
        axes.set_xlabel(unit)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        if parts:
            legend(axes, 4)

    lines = -(-len(parts) // 4)
    return drawn(draw, label, (WIDE, 0.75 + 0.42 * len(names) + 0.22 * lines))


def standing(names: Sequence[str], parts: Sequence[Bar], label: str, across: str, unit: str) -> Html:
    """A column for each name, the parts one on the other."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        feet = [0.0] * len(names)
        for part in parts:
            axes.bar(range(len(names)), part.sizes, bottom=feet, width=0.75, color=COLOURS[part.colour],
                     label=plain(part.name))  # fmt: skip
            feet = [foot + size for foot, size in zip(feet, part.sizes, strict=True)]
        axes.set_xticks(range(len(names)), names)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_xlabel(across)
        axes.set_ylabel(unit)
        if parts:
            legend(axes, 3)

    return drawn(draw, label)


def intervals(rates: Mapping[str, tuple[float, float, float]], label: str, unit: str) -> Html:
    """A point for each name with a line from its lower to its upper bound; (rate, low, high)."""

    def draw(axes: Axes) -> None:
        for at, (rate, low, high) in enumerate(rates.values()):
            axes.plot([low, high], [at, at], color=QUIET, linewidth=2, solid_capstyle="butt")
            axes.plot([rate], [at], color=COLOURS["one"], marker="o", markersize=6)
            axes.text(rate, at - 0.2, f"{100 * rate:.3g} %", color=INK, ha="center", va="bottom")
        axes.set_yticks(range(len(rates)), list(map(plain, rates)))
        axes.set_ylim(len(rates) - 0.5, -0.75)
        top = max((high for _, _, high in rates.values()), default=0.0)
        axes.set_xlim(-0.04 * (top or 1), 1.1 * (top or 1))
        axes.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_xlabel(unit)

    return drawn(draw, label, (WIDE / 1.4, 0.8 + 0.5 * len(rates)))
