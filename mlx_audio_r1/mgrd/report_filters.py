"""Of an MGRD report: what was kept and rejected, for which reason, with examples; and what was curated.

The examples are those of the latest round that has the reason. Their words come from rollouts.jsonl, their
fate from decisions.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlx_audio_r1.mgrd.run_files import Key, Row, RunFiles
from mlx_audio_r1.mgrd.status import Filtered, filtered_of
from mlx_audio_r1.report import bars, page, plots
from mlx_audio_r1.report.bars import Bar
from mlx_audio_r1.report.page import DASH, Html, Section, tag

EXAMPLES = 2  # of each reason
WORDS = {  # reason -> what it says of a sample
    "kept": "it is learnt from",
    "surplus": "good, but there were enough of this question",
    "verdict": "the answer is wrong",
    "format": "no reasoning, or no end",
    "lexicon": "reasons about a text, not about the sound",
    "coherence": "contradicts itself, or goes round in circles",
    "evidence": "the sound does not make it likelier",
    "judge": "the judge rejected it",
}
COLOURS = dict(zip(WORDS, ("three", "five", "two", "eight", "six", "seven", "four", "one"), strict=True))


def sections(files: RunFiles) -> list[Section]:
    """Filters, examples, curation; each only where there is something."""
    decided = {number: rows for number in files.rounds if (rows := files.decisions(number))}
    counted = [filtered_of(number, rows) for number, rows in decided.items()]
    return [
        Section("What the filters kept", [*_counts(counted), *_scores(decided)] if decided else []),
        Section("Examples, by what became of them", _examples(files, decided)),
        Section("Curation: right samples of a question", _curation(files)),
    ]


# ---- counts


def _counts(counted: Sequence[Filtered]) -> list[Html]:
    """Bars in parts, and the same as a table."""
    reasons = [*(r for r in WORDS if any(r in f.reasons for f in counted)),
               *sorted({r for f in counted for r in f.reasons} - WORDS.keys())]  # fmt: skip
    blocks = []
    if not plots.missing():
        parts = [Bar(reason, COLOURS.get(reason, "eight"), [f.reasons.get(reason, 0) for f in counted])
                 for reason in reasons]  # fmt: skip
        told = "; ".join(f"round {f.round}: {f.kept:,} of {f.candidates:,} kept" for f in counted)
        drawn = bars.lying([f"round {f.round}" for f in counted], parts, told, "samples")
        blocks.append(tag("div", drawn, class_="across"))
    rows = [[_told(reason), *(_share(f.reasons.get(reason, 0), f.candidates) for f in counted)]
            for reason in reasons]  # fmt: skip
    return [*blocks, page.grid(["", *(f"round {f.round}" for f in counted)], rows)]


def _told(reason: str) -> str:
    return f"{reason}: {WORDS[reason]}" if reason in WORDS else reason


def _share(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.0f} %)" if count else DASH


def _scores(decided: Mapping[int, Sequence[Row]]) -> list[Html]:
    """Mean scores of all samples, and of those kept."""
    names = list(dict.fromkeys(name for rows in decided.values() for row in rows for name in _scores_of(row)))
    rows = [[name, *(_all_and_kept(name, rows) for rows in decided.values())] for name in names]
    if not rows:
        return []
    columns = ["mean score", *(f"round {number}, all → kept" for number in decided)]
    return [page.grid(columns, rows)]


def _all_and_kept(name: str, rows: Sequence[Row]) -> str:
    every, kept = (_mean([_scores_of(row).get(name) for row in some])
                   for some in (rows, [row for row in rows if row.get("kept")]))  # fmt: skip
    return f"{every} → {kept}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3g}" if known else DASH


def _scores_of(row: Row) -> dict[str, float]:
    scores = row.get("scores")
    found = scores.items() if isinstance(scores, dict) else ()
    return {name: float(value) for name, value in found if isinstance(value, int | float)}


# ---- examples


def _examples(files: RunFiles, decided: Mapping[int, Sequence[Row]]) -> list[Html]:
    """A heading for each reason and the samples below it."""
    reasons = sorted({str(row["reason"]) for rows in decided.values() for row in rows}, key=_order)
    chosen = {reason: _latest(reason, decided) for reason in reasons}
    words = _words(files, [sample for samples in chosen.values() for sample in samples])
    blocks: list[Html] = []
    for reason, samples in chosen.items():
        articles = [_example(number, row, words.get((number, _key(row)), {})) for number, row in samples]
        blocks.append(tag("h3", _told(reason), class_="reason"))
        blocks.append(tag("div", page.join(articles), class_="examples"))
    return blocks


def _words(files: RunFiles, samples: Sequence[tuple[int, Row]]) -> dict[tuple[int, Key], Row]:
    """The rollouts of these samples, by round and key."""
    found: dict[tuple[int, Key], Row] = {}
    for number in {number for number, _ in samples}:
        wanted = {_key(row) for other, row in samples if other == number}
        found |= {(number, key): row for key, row in files.rollouts(number, wanted).items()}
    return found


def _order(reason: str) -> tuple[int, str]:
    """As in WORDS, those kept first; others last."""
    known = list(WORDS)
    return (known.index(reason) if reason in known else len(known), reason)


def _latest(reason: str, decided: Mapping[int, Sequence[Row]]) -> list[tuple[int, Row]]:
    """Samples of the latest round that has the reason, of different questions where there are."""
    for number in sorted(decided, reverse=True):
        rows = [row for row in decided[number] if row["reason"] == reason]
        if rows:
            different = list({row.get("prompt"): row for row in reversed(rows)}.values())[::-1]
            return [(number, row) for row in (different if len(different) >= EXAMPLES else rows)[:EXAMPLES]]
    return []


def _key(row: Row) -> Key:
    return str(row.get("prompt")), int(row.get("sample") or 0)


def _example(number: int, row: Row, rollout: Row) -> Html:
    """Which sample and why above, reasoning and answer below, scores at the end."""
    scores = ", ".join(f"{name} {value:.3g}" for name, value in _scores_of(row).items())
    thinking, answer = (str(rollout.get(name) or "").strip() for name in ("thinking", "answer"))
    parts = (  # element, class, text
        ("p", "label", f"round {number}, {row.get('prompt')}, sample {row.get('sample')}"),
        ("p", None, row.get("why") or ""),
        ("pre", "thinking", thinking),
        ("pre", None, answer or ("no answer" if rollout else "its text is not in rollouts.jsonl")),
        ("p", "label", scores),
    )
    shown = (tag(name, text, class_=kind) for name, kind, text in parts if text)
    return tag("article", page.join(shown), class_="sample")


# ---- curation


def _curation(files: RunFiles) -> list[Html]:
    """How many of its samples were right, by round; kept ones apart."""
    figures: list[tuple[str, Html]] = []
    rows: list[list[object]] = []
    for number in files.rounds:
        counts = files.curated(number)
        if not counts:
            continue
        kept = sum(bool(row.get("kept")) for row in counts)
        rows.append([f"round {number}", len(counts), kept, f"{100 * kept / len(counts):.0f} %"])
        if not plots.missing():
            figures.append(_histogram(f"Round {number}: {kept:,} of {len(counts):,} questions kept", counts))
    return [page.plots(figures), page.grid(["", "questions", "kept", "share"], rows)] if rows else []


def _histogram(caption: str, counts: Sequence[Row]) -> tuple[str, Html]:
    """Questions by their right samples."""
    most = max(*(int(row.get("samples") or 0) for row in counts), *(int(row["passed"]) for row in counts), 1)
    kept, left = ([sum(row["passed"] == n and bool(row.get("kept")) is wanted for row in counts)
                   for n in range(most + 1)] for wanted in (True, False))  # fmt: skip
    parts = [Bar("kept for reinforcement learning", "three", kept), Bar("left out", "eight", left)]
    names = [str(n) for n in range(most + 1)]
    return caption, bars.standing(names, parts, caption, "right samples", "questions")
