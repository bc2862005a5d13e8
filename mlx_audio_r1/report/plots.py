"""Line plots as SVG inside the page, drawn by matplotlib.

The surprise: colours are drawn as stand-ins and then replaced by the page's own names for them, so one
drawing serves light, dark and paper. Without matplotlib there are no plots, and `missing` says so.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

from mlx_audio_r1.report.page import Html, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "Plots need matplotlib: pip install 'mlx-audio-r1[report]', then make the report again."
STAND_INS = {"#010101": "ink", "#020202": "quiet", "#030303": "grid", "#040404": "warn", "#050505": "one",
             "#060606": "two", "#070707": "three", "#080808": "four", "#090909": "five", "#0a0a0a": "six",
             "#0b0b0b": "seven", "#0c0c0c": "eight", "#0d0d0d": "paper"}  # fmt: skip
INK, QUIET, GRID, WARN, *SERIES, PAPER = STAND_INS
STYLES = ("-", "--", ":")  # beside the colours, for paper without any
FEW = 40  # values up to which each is marked; beyond, medians of neighbours are drawn over them
AXES = ("linear", "log", "zero", "share")  # log: where the range is wide; zero: begins there; share: 0 to 1
LOG_RANGE = 30  # times the least value, from which `log` is logarithmic
NOISE = 0.005
SIZE = (6.2, 2.7)  # inches


@dataclass(frozen=True)
class Line:
    """Values over steps; those that are not finite leave a gap and are marked. low, high: of intervals around
    them, drawn as a band."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    @property
    def finite(self) -> list[tuple[float, float]]:
        return [(s, v) for s, v in zip(self.steps, self.values, strict=True) if math.isfinite(v)]


def missing() -> str | None:
    """What to install, when plots cannot be drawn."""
    return None if importlib.util.find_spec("matplotlib") else MISSING


def line_plot(
    lines: Sequence[Line], label: str, axis: str = "linear", across: str = "step", even: bool = False
) -> Html:
    """Lines over steps, or what `across` says. `label`: read to those who cannot see it; `axis`: of AXES.
    even: the steps stand side by side at equal distances, whatever lies between them."""
    places = sorted({step for line in lines for step in line.steps})
    at = places.index if even else float

    def draw(axes: Axes) -> None:
        placed = [replace(line, steps=list(map(at, line.steps))) for line in lines]
        for line, colour, style in zip(placed, cycle(SERIES), cycle(STYLES), strict=False):
            _draw(axes, line, colour, style)
        _steps(axes, placed, across)
        if even:
            axes.set_xticks(range(len(places)), [f"{place:,.0f}" for place in places])
        _values(axes, [v for line in lines for _, v in line.finite], axis)
        if len(lines) > 1:
            legend(axes, 3)

    return drawn(draw, label)


def drawn(draw: Callable[[Axes], None], label: str, size: tuple[float, float] = SIZE) -> Html:
    """What `draw` puts on a pair of axes of so many inches, in the page's colours."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_settings()):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.StringIO()
        unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with warnings.catch_warnings():
            # only the font that text is measured by lacks them: the page draws it in its own
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            figure.savefig(file, format="svg", transparent=True, metadata=unsaid)
    return Html(_inline(file.getvalue(), label))


def legend(axes: Axes, columns: int) -> None:
    """Names above the drawing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, frameon=False, ncols=columns)


def plain(name: str) -> str:
    """A name that is drawn as it is: what stands between dollars is no formula."""
    return name.replace("$", r"\$")


def _draw(axes: Axes, line: Line, colour: str, style: str) -> None:
    """Each value marked where there are few; medians over a faint line where there are many and noisy ones."""
    import numpy as np

    values = np.array([v if math.isfinite(v) else np.nan for v in line.values], float)
    look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 1.7, "label": plain(line.name)}
    if line.low:
        axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if len(values) <= FEW:
        axes.plot(line.steps, values, marker="o", markersize=3, **look)
    elif _noisy(values, medians := _medians(values)):
        axes.plot(line.steps, values, color=colour, linewidth=0.8, alpha=0.35)
        axes.plot(line.steps, medians, **look)
    else:
        axes.plot(line.steps, values, **look)
    for step in [s for s, v in zip(line.steps, line.values, strict=True) if not math.isfinite(v)][:FEW]:
        axes.axvline(step, color=WARN, linewidth=0.8, linestyle=":")


def _noisy(values: Any, medians: Any) -> bool:
    """Do half of the values lie further from their neighbours' median than NOISE of the range?"""
    import numpy as np

    known = np.isfinite(values)
    if not known.any():
        return False
    return bool(np.median(np.abs(values - medians)[known]) > NOISE * np.ptp(values[known]))


def _medians(values: Any) -> Any:
    """Medians over a twenty-fifth of the values, around each; NaN where the value is."""
    import numpy as np

    half = max(1, len(values) // 50)
    padded = np.pad(values, half, constant_values=np.nan)
    medians = np.full(len(values), np.nan)
    known = np.isfinite(values)
    medians[known] = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)[known], axis=1)
    return medians


def _steps(axes: Axes, lines: Sequence[Line], across: str) -> None:
    """From the start of the run on, so that all plots of a run can be compared."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    last = max((s for line in lines for s in line.steps), default=0)
    axes.set_xlim(-0.02 * last, 1.02 * last or 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.set_xlabel(across)


def _values(axes: Axes, values: Sequence[float], axis: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.grid(axis="y", color=GRID, linewidth=0.8)
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", va="center")
        return
    if axis == "log" and min(values) > 0 and max(values) > LOG_RANGE * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("logarithmic")
    elif axis == "share" and min(values) >= 0 and max(values) <= 1:
        axes.set_ylim(0, 1.03)
    elif axis in ("zero", "share") and min(values) >= 0:
        axes.set_ylim(0, 1.08 * max(values) or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: tick(v)))


def tick(value: float) -> str:
    """0.0001 -> 1e-4, 12000 -> 12,000."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.6g}"


def _settings() -> dict[str, Any]:
    coloured = {name: INK for name in ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")}
    return {
        **coloured, "axes.edgecolor": QUIET, "xtick.color": QUIET, "ytick.color": QUIET, "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "svg.hashsalt": "report",
        "path.simplify": True, "path.simplify_threshold": 0.3,
    }  # fmt: skip


def _inline(svg: str, label: str) -> str:
    """An SVG file as an element of a page: the page's colours and font, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| width="[^"]*pt"| height="[^"]*pt"', "", svg)
    svg = re.sub(r"#(0[1-9a-d])\1\1", lambda match: f"var(--{STAND_INS[match[0]]})", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    own = f"p{zlib.crc32((label + svg).encode()):x}-"
    svg = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{own}", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
