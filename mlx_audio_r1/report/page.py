"""A page that needs nothing but itself: no script, no font, no request.

Everything given as text is escaped; what comes back from here is `Html`, and only that is put in as it
is. The surprise: the page forbids itself to fetch anything (a content security policy), so what a run
wrote into it cannot call home either.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_audio_r1.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
DASH = "–"  # noqa: RUF001  shown where there is no value


class Html(str):
    """Text that is HTML already. What is added to it must be too."""

    def __add__(self, other: str) -> Html:
        return Html(super().__add__(escape(other)))


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Html]


def page(title: str, subtitle: str, sections: Iterable[Section], footer: str = "") -> str:
    """The whole document. A section without blocks is left out."""
    body = join(section(s) for s in sections if s.blocks)
    return "\n".join((
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style></head>",
        f"<body><header>{tag('h1', title)}{tag('p', subtitle)}</header>",
        f"<main>{body}</main>",
        f"<footer>{escape(footer)}</footer></body></html>",
        "",
    ))  # fmt: skip


def section(part: Section) -> Html:
    return tag("section", join((tag("h2", part.title), *part.blocks)))


def facts(pairs: Mapping[str, Any]) -> Html:
    """A table of names and values; a value that is Html stays as it is."""
    rows = join(tag("tr", join((tag("th", name, scope="row"), tag("td", shown(value)))))
                for name, value in pairs.items())  # fmt: skip
    return tag("table", tag("tbody", rows), class_="facts")


def grid(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table with a head; the first cell of a row names it."""
    head = tag("tr", join(tag("th", name, scope="col") for name in columns))
    body = join(
        tag("tr", join((tag("th", first, scope="row"), *(tag("td", shown(v)) for v in rest))))
        for first, *rest in rows
    )
    return tag("div", tag("table", tag("thead", head) + tag("tbody", body), class_="grid"), class_="wide")


def tiles(pairs: Mapping[str, Any]) -> Html:
    """The few numbers that are looked for first."""
    cells = (tag("div", tag("dt", name) + tag("dd", shown(value))) for name, value in pairs.items())
    return tag("dl", join(cells), class_="tiles")


def plots(figures: Iterable[tuple[str, Html]]) -> Html:
    """Plots with their captions, side by side where there is room."""
    drawn = (tag("figure", tag("figcaption", caption) + svg) for caption, svg in figures)
    return tag("div", join(drawn), class_="plots")


def note(words: str, warning: bool = False) -> Html:
    """A line of prose."""
    return tag("p", words, class_="warning" if warning else "note")


# ---- making HTML


def escape(value: Any) -> Html:
    """Text as HTML; Html as it is. Half of a surrogate pair, which UTF-8 cannot hold, is replaced."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(str(value).encode("utf-8", "replace").decode("utf-8")))


def tag(name: str, inside: Any, **attributes: Any) -> Html:
    """<name ...>inside</name>; text inside is escaped, `class_` is class, None leaves an attribute out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    words = "".join(f' {key}="{escape(value)}"' for key, value in given.items())
    return Html(f"<{name}{words}>{escape(inside)}</{name}>")


def join(parts: Iterable[Html]) -> Html:
    return Html("".join(escape(part) for part in parts))


def shown(value: Any) -> Any:
    """A value as people read it: grouped thousands, four digits, yes and no."""
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(inner)}" for name, inner in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(str(shown(inner)) for inner in value) or DASH
    return value
