"""The tables of a report, as rows of text: for the page, for report.md, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.meanings import meaning
from mlx_audio_r1.evaluate.paper import PUBLISHED, TABLE_1, average, band
from mlx_audio_r1.evaluate.summary_parts import resolver_of
from mlx_audio_r1.report.page import DASH

Grid = tuple[list[str], list[list[str]]]
HEAD = ["benchmark", "n", "right", "95 % interval", "chance", "Step-Audio-R1", "unparsed", "unfinished",
        "errors", "thinking tokens"]  # fmt: skip


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def interval(found: Mapping[str, Any]) -> str:
    if found.get("low") is None:
        return DASH
    return f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"


def drawn_interval(found: Mapping[str, Any]) -> tuple[float, float, float]:
    """(value, low, high); the value alone where no interval is known."""
    value = found["value"]
    return (value, value, value) if found["low"] is None else (value, found["low"], found["high"])


def result(own: Mapping[str, Any]) -> str:
    """A scorer's number; that of errors says so."""
    known = own.get("value") is not None and own.get("error")
    return percent(own.get("value")) + (" errors" if known else "")


def headline(benches: Mapping[str, Any]) -> Grid:
    """A line for each bench under its primary scorer, or the first that was at hand, which is named."""
    return HEAD, [_line(name, found) for name, found in benches.items()]


def _line(name: str, found: Mapping[str, Any]) -> list[str]:
    own = found["scorers"].get(found["primary"], {})
    published = band(name)
    told = DASH if published is None else " to ".join(f"{value:.1f}" for value in dict.fromkeys(published))
    thinking = found.get("thinking_tokens", {}).get("mean")
    return [
        _named(name, found), f"{own.get('n', 0):,}", result(own), interval(own), percent(found.get("chance")),
        told, f"{own.get('unparsed', 0):,}", f"{found['unfinished']:,}", f"{found['errors']:,}",
        DASH if thinking is None else f"{thinking:,.0f}",
    ]  # fmt: skip


def _named(name: str, found: Mapping[str, Any]) -> str:
    """The bench, with the scorer where it is not the one that its numbers are known by: nobody has judged."""
    primary = found["primary"]
    known = name not in BENCHES or not primary or primary == bench(name).scorers[0]
    return name if known else f"{name}, by {found['scorers'][primary]['title']}"


def scorers(found: Mapping[str, Any]) -> Grid:
    """Every scorer of a bench."""
    rows = [
        [s["title"], f"{s['n']:,}", result(s), interval(s),
         f"{s['left_out']:,}", f"{s['unparsed']:,}"] for s in found["scorers"].values()
    ]  # fmt: skip
    return ["scorer", "n", "value", "95 % interval", "left out by it", "unparsed"], rows


def groups(found: Mapping[str, Any], group: str) -> Grid:
    """The primary scorer's number in each value of a group; without thinking and under controls too."""
    own = found["scorers"][found["primary"]]["groups"].get(group, {})
    beside = _beside(found, group)
    is_error = found["scorers"][found["primary"]].get("error")
    rows = [[value, f"{s['n']:,}", result({"error": is_error, **s}), interval(s), percent(s["chance"]),
             *(percent(known.get(value)) for known in beside.values())]
            for value, s in own.items()]  # fmt: skip
    return [group, "n", "right", "95 % interval", "chance", *beside], rows


def _beside(found: Mapping[str, Any], group: str) -> dict[str, dict[str, float]]:
    """Name of a column -> value of the group -> accuracy."""
    budgets = found.get("budgets") or {"points": [], "groups": {}}
    controls = {name: known["groups"].get(group, {}) for name, known in (found.get("controls") or {}).items()}
    if not budgets["points"] or budgets["points"][0]["budget"] != 0:  # they ascend
        return controls
    direct = {value: own[0] for value, own in budgets["groups"].get(group, {}).items()}
    return {"no thinking": direct, **controls}


def paper_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[str]]:
    """The paper's Table 1 with the run's row, and what to know about it; no rows where the run has none of its
    benches."""
    benches = summary["benches"]
    ours = {name: 100 * value for name in TABLE_1 if (value := _primary(benches.get(name))) is not None}
    if not ours:
        return [], [], []
    model = str(summary["run"].get("model", "this run"))
    rows = [[name, *_cells(row)] for name, row in PUBLISHED.items() if set(TABLE_1) & row.keys()]
    notes = [line for name in ours for line in _reasons(name, benches[name])]
    return ["model", "average", *TABLE_1], [*rows, [f"{model} (this run)", *_cells(ours)]], notes


def _primary(found: Mapping[str, Any] | None) -> float | None:
    return None if found is None else found["scorers"].get(found["primary"], {}).get("value")


def _cells(row: Mapping[str, float]) -> list[str]:
    values = [average(dict(row)), *(row.get(name) for name in TABLE_1)]
    return [DASH if value is None else f"{value:.1f}" for value in values]


def _reasons(name: str, found: Mapping[str, Any]) -> list[str]:
    """Whether a number may stand beside the paper's."""
    known = found.get("comparable")
    if not known:
        return []
    if known["reasons"]:
        return [f"{name}: not paper-comparable: {'; '.join(known['reasons'])}"]
    low, high = band(name) or (None, None)
    own = found["scorers"][found["primary"]]
    if low is None or high is None or own["low"] is None:
        return [f"{name}: paper-comparable"]
    inside = 100 * own["low"] <= high and low <= 100 * own["high"]
    return [f"{name}: paper-comparable; Step-Audio-R1's {low:g} to {high:g} is {'in' if inside else 'outside'} "
            "the interval"]  # fmt: skip


# ---- markdown


def markdown(summary: Mapping[str, Any]) -> str:
    """report.md."""
    benches = summary["benches"]
    parts = [f"# Evaluation of {summary['run'].get('model', 'a model')}", table(*headline(benches))]
    columns, rows, notes = paper_table(summary)
    if rows:
        parts += ["## Beside the paper's Table 1", table(columns, rows), *notes]
    for name, found in benches.items():
        parts += [f"## {name}", table(*scorers(found))]
        own = found["scorers"].get(found["primary"], {"groups": {}})
        parts += [table(*groups(found, group)) for group in own["groups"]]
        parts += [f"### {title}\n\n{table(*grid)}" for title, grid in extras(found)]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the others numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: str) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


# ---- what a run may have measured beside


def extras(found: Mapping[str, Any]) -> list[tuple[str, Grid]]:
    """Title and table of what else was measured."""
    made = [("Budgets", _budgets), ("Controls", _controls), ("Several samples", _votes),
            ("One sample after the other", _repeats), ("Grounding", _grounding),
            ("Claims that it cannot hear", _hearing)]  # fmt: skip
    return [(title, grid) for title, make in made if (grid := make(found))[1]]


def _budgets(found: Mapping[str, Any]) -> Grid:
    points = found.get("budgets", {}).get("points", [])
    rows = [["all" if p["budget"] is None else f"{p['budget']:,}", f"{p['n']:,}", percent(p["value"]),
             interval(p), number(p["thinking_tokens"]), percent(p["forced"])] for p in points]  # fmt: skip
    return ["tokens of reasoning allowed", "n", "right", "95 % interval", "used", "closed by force"], rows


def _controls(found: Mapping[str, Any]) -> Grid:
    rows = [[name, f"{c['n']:,}", percent(c["value"]), points(c["difference"]), percent(c["contribution"]),
             percent(c["flips"])] for name, c in found.get("controls", {}).items()]  # fmt: skip
    return ["in the place of the sound", "n", "right", "the sound is worth", "of what can be gained",
            "answers changed"], rows  # fmt: skip


def _votes(found: Mapping[str, Any]) -> Grid:
    votes = found.get("votes") or {}
    apart = votes and resolver_of([*found["scorers"]]) != found["primary"]
    rows = [[k, percent(v["pass"]), percent(v["guess"]), percent(v["maj"])] for k, v in votes.items()]
    agreed = f"the vote is right (maj@k){', by the resolver' if apart else ''}"
    return ["samples", "one is right (pass@k)", "by guessing", agreed], rows


def _grounding(found: Mapping[str, Any]) -> Grid:
    measures = found.get("grounding") or {}
    rows = [[": ".join(filter(None, (name, meaning(name)))), *_flat(value)] for name, value in measures.items()]
    return ["measure", "value", "95 % interval"], rows


def _repeats(found: Mapping[str, Any]) -> Grid:
    own = found.get("repeats") or {}
    cells = [percent(own["mean"]), f"{100 * own['sd']:.1f} points", *map(percent, own["values"])] if own else []
    names = [str(number) for number in range(1, len(cells) - 1)]
    return ["", "mean", "standard deviation", *names], [["right", *cells]] if own else []


def _hearing(found: Mapping[str, Any]) -> Grid:
    own = found.get("hearing") or {}
    split = [("all", own), *own.get("by", {}).items()] if own else []
    rows = [[name, f"{part['n']:,}", percent(part["answer"][0]), _share(part["answer"]),
             percent(part["thinking"][0])] for name, part in split]  # fmt: skip
    return ["replies to", "n", "deny it in the answer", "95 % interval", "in the thinking"], rows


def _share(rate: Sequence[float | None]) -> str:
    return interval({"low": rate[1], "high": rate[2]})


def _flat(value: Any) -> list[str]:
    """A number, or [value, low, high]."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        return [number(value[0]), f"{number(value[1])} to {number(value[2])}"]
    return [number(value), ""]


def points(difference: Sequence[float | None]) -> str:
    value, low, high = difference
    if value is None or low is None or high is None:
        return DASH
    return f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) and abs(value) < 1_000 else (
        f"{value:,.0f}" if isinstance(value, int | float) else DASH)  # fmt: skip
