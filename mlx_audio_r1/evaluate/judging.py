"""The replies of a run, put before a judge: every scorer that needs one, each reply once, whatever is killed.

    judged = judge_replies(items, read_results(out), out, JudgeConfig("https://host/v1", "gpt-4o"), api_key)
    judged.waiting                            # verdicts of people that are still to come (JudgeConfig("file"))
    rows = with_judged(rows, judged)          # each score says in `how` who judged, and in whose words

    DIR/judge.json            who judged, in whose words, how much was asked, waits, could not be read
    DIR/judge_cache.jsonl     or judge_requests.jsonl and judge_responses.jsonl: see `judges.judge`

Judged are the replies to the true sound with all their thinking. The surprise: a reply some of whose verdicts
still wait has no score at all, rather than one that will change.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.evaluate.bench import Bench
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.judge_words import OURS, Words, checked, item_words
from mlx_audio_r1.evaluate.results import FULL, REAL, Key, Result
from mlx_audio_r1.evaluate.score_rows import ScoreRow
from mlx_audio_r1.evaluate.scorers import SCORERS
from mlx_audio_r1.evaluate.scorers import scorer as scorer_of
from mlx_audio_r1.evaluate.scorers.judged_reading import UNREADABLE
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.files import write_file
from mlx_audio_r1.judges.judge import LOCAL, JudgeConfig, open_judge
from mlx_audio_r1.tasks.item import Item

REPORT = "judge.json"
UNNAMED = "a judge they do not name"
Telling = Callable[[int, int], None]  # verdicts there are, verdicts wanted
Scored = dict[Key, dict[str, Score]]


@dataclass(frozen=True)
class JudgeReport:
    """Of one scorer on one benchmark. words: whose the prompt is. replies: put before the judge; waiting:
    verdicts to come; unreadable: verdicts that say nothing. reasons: why its numbers cannot stand beside
    published ones, () where they can."""

    judge: str
    words: str
    replies: int
    waiting: int
    unreadable: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Judging:
    """scores: of each row by scorer. reports: bench -> scorer -> what there is to say."""

    scores: Scored
    reports: Mapping[str, Mapping[str, JudgeReport]]

    @property
    def waiting(self) -> int:
        """Verdicts that are still to come; what two scorers of a benchmark both ask counts once."""
        return sum(max(report.waiting for report in of.values()) for of in self.reports.values())


@dataclass(frozen=True, eq=False)
class _Case:
    """One reply before one scorer."""

    result: Result
    item: Item
    scorer: JudgeScorer
    words: Words
    prompts: tuple[str, ...]
    said: list[list[str | None]] = field(default_factory=list)  # by rater, then prompt

    @property
    def waiting(self) -> int:
        return sum(reply is None for replies in self.said for reply in replies)

    @property
    def score(self) -> Score | None:
        """None while a verdict is missing."""
        if not self.result.reply.closed:
            return Score(0.0, None, "unfinished")
        if self.waiting:
            return None
        replies = [str(by_rater[n]) for n in range(len(self.prompts)) for by_rater in self.said]
        return self.scorer.read(self.item, self.result.reply, replies)


def judge_replies(
    items: Mapping[str, Item],
    results: Iterable[Result],
    folder: Path,
    config: JudgeConfig,
    api_key: str | None = None,
    words: Mapping[str, Words] | None = None,
    tell: Telling = lambda *_: None,
) -> Judging:
    """Ask the judge about all that its scorers want to know; judge.json and the judge's files go to `folder`.

    words: by scorer, where a file of the authors' was given. Raises JudgeError, DiskError.
    """
    open_judge(config, folder, api_key)  # a judge that nobody is, is said even where nothing is to be judged
    cases = [case for result in results for case in _cases(result, items, words or {})]
    total, done = sum(len(case.prompts) * case.scorer.raters for case in cases), 0
    for group in _groups(cases):
        for rater in range(group[0].scorer.raters):
            for case, replies in _asked(group, rater, config, folder, api_key):
                case.said.append(replies)
                tell(done := done + len(replies), total)
    judged = Judging(_scores(cases, config), _reports(cases, config))
    shown = {name: {one: asdict(report) for one, report in of.items()} for name, of in judged.reports.items()}
    write_file(folder / REPORT, json.dumps(shown, ensure_ascii=False, indent=2) + "\n")
    return judged


def with_judged(rows: Iterable[ScoreRow], judged: Judging) -> list[ScoreRow]:
    """The rows with the judges' scores in the benchmark's order of scorers."""
    return [replace(row, scores=_ordered(row.bench, {**row.scores, **judged.scores.get(row.key, {})}))
            for row in rows]  # fmt: skip


def waiting_in(folder: Path) -> int:
    """Verdicts that a folder's last judging still waits for; 0 where nothing was judged."""
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return sum(max(int(report["waiting"]) for report in of.values()) for of in told.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def who(config: JudgeConfig) -> str:
    """A judge as tables name it."""
    if config.kind == "file":
        return f"file: {config.model}" if config.model else "file"
    return config.kind if config.kind.startswith(LOCAL) else config.model or config.kind


def judges_of(bench: Bench) -> list[JudgeScorer]:
    """The scorers of a benchmark that need a judge."""
    found = [scorer_of(name) for name in bench.scorers if name in SCORERS]
    return [one for one in found if isinstance(one, JudgeScorer)]


def reasons_against(bench: Bench, scorer: JudgeScorer, words: Words, config: JudgeConfig) -> tuple[str, ...]:
    """Why numbers of this judge in these words cannot be compared with published ones."""
    found = []
    if not bench.judge or who(config).rpartition("/")[2].removeprefix("file: ") != bench.judge:
        found.append(f"judge differs: {who(config)}, published numbers are of {bench.judge or UNNAMED}")
    if words.source == OURS:
        found.append(OURS)
    elif scorer.official and words.sha256 != scorer.official:
        found.append(f"{words.source}: another prompt than the authors'")
    found += [f"judge's {name} {value}, not {scorer.params[name]}" for name, value in config.params.items()
              if name in scorer.params and value != scorer.params[name]]  # fmt: skip
    return tuple(found)


def _cases(result: Result, items: Mapping[str, Item], words: Mapping[str, Words]) -> list[_Case]:
    item = items.get(result.uid)
    if item is None or result.bench not in BENCHES or (result.budget, result.control) != (FULL, REAL):
        return []
    found = []
    for scorer in judges_of(bench(result.bench)):
        chosen = checked(words.get(scorer.name) or item_words(item) or scorer.words, scorer)
        prompts = scorer.prompts(item, result.reply, chosen) if result.reply.closed else ()
        found.append(_Case(result, item, scorer, chosen, tuple(prompts)))
    return found


def _groups(cases: Sequence[_Case]) -> list[list[_Case]]:
    """Cases that are asked alike, those that ask nothing left out."""
    groups: dict[tuple[str, str], list[_Case]] = defaultdict(list)
    for case in cases:
        if case.prompts:
            groups[case.scorer.name, case.words.system].append(case)
    return list(groups.values())


def _asked(
    group: Sequence[_Case], rater: int, config: JudgeConfig, folder: Path, api_key: str | None
) -> Iterable[tuple[_Case, list[str | None]]]:
    """Each case with what the rater says to its prompts."""
    scorer, system = group[0].scorer, group[0].words.system
    asking = replace(config, system=system, params={**scorer.params, **config.params}, rater=rater)
    judge = open_judge(asking, folder, api_key, scorer.expects)
    replies = iter(judge.ask([prompt for case in group for prompt in case.prompts]))
    for case in group:
        yield case, [next(replies) for _ in case.prompts]


def _scores(cases: Sequence[_Case], config: JudgeConfig) -> Scored:
    scored: Scored = defaultdict(dict)
    for case in cases:
        score = case.score
        if score is not None:
            signed = f"{score.how} ({who(config)}, {case.words.source})" if case.prompts else score.how
            scored[case.result.key][case.scorer.name] = replace(score, how=signed)
    return dict(scored)


def _reports(cases: Sequence[_Case], config: JudgeConfig) -> dict[str, dict[str, JudgeReport]]:
    by_scorer: dict[tuple[str, str], list[_Case]] = defaultdict(list)
    for case in cases:
        by_scorer[case.result.bench, case.scorer.name].append(case)
    reports: dict[str, dict[str, JudgeReport]] = defaultdict(dict)
    for (name, scorer), found in by_scorer.items():
        reports[name][scorer] = _report(bench(name), found, config)
    return dict(reports)


def _report(of: Bench, cases: Sequence[_Case], config: JudgeConfig) -> JudgeReport:
    reasons = [reasons_against(of, case.scorer, case.words, config) for case in cases]
    scores = [score for case in cases if (score := case.score)]
    return JudgeReport(
        judge=who(config),
        words=", ".join(dict.fromkeys(case.words.source for case in cases)),
        replies=sum(bool(case.prompts) for case in cases),
        waiting=sum(case.waiting for case in cases),
        unreadable=sum(score.counts.get(UNREADABLE, 0) for score in scores),
        reasons=tuple(dict.fromkeys(reason for found in reasons for reason in found)),
    )


def _ordered(name: str, scores: Mapping[str, Score]) -> dict[str, Score]:
    order: Sequence[Any] = bench(name).scorers if name in BENCHES else ()
    places = {one: at for at, one in enumerate(order)}
    return dict(sorted(scores.items(), key=lambda pair: places.get(pair[0], len(order))))
