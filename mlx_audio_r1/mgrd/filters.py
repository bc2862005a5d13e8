"""Candidates -> decisions: what is right, grounded and coherent is kept, and of every one it is said why.

Filters run in order of cost, and only on what is left: the verifier, the form, words, rules; then two passes
of the model (`evidence`), then a judge. The surprise: candidates are decided in groups of whole questions,
because of one question only the best may stay; a group that a kill broke is decided again as it was, to the
bit, and only what is missing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.judges.judge import REQUESTS, RESPONSES, Judge, open_judge
from mlx_audio_r1.mgrd.candidate import Candidate
from mlx_audio_r1.mgrd.chain import Chain
from mlx_audio_r1.mgrd.coherence import coherence_scores, incoherence
from mlx_audio_r1.mgrd.decisions import Decision, DecisionFile, natural
from mlx_audio_r1.mgrd.evidence import evidence_of
from mlx_audio_r1.mgrd.filter_config import FilterConfig
from mlx_audio_r1.mgrd.grounded import lexicon_scores, ungrounded
from mlx_audio_r1.mgrd.judge_prompt import EXPECTS, JUDGE_PROMPT, judge_prompt, read_verdict
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.gold import gold_text
from mlx_audio_r1.tasks.reply import Reply, read_reply
from mlx_audio_r1.tasks.verify import judge as verdict_on
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.judging import completion_of

__all__ = ["KEPT", "SURPLUS", "Decision", "DecisionFile", "FilterConfig", "filter_candidates"]
GROUP = 16  # candidates at least that are decided together
KEPT, SURPLUS = "kept", "surplus"
PROMPT_FILE = "judge_prompt.txt"
SHOWN = 60  # characters of an unreadable verdict


@dataclass
class _Case:
    """A candidate under way: its reply as it is scored, what is known of it, and what rejected it."""

    candidate: Candidate
    reply: Reply
    scores: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    why: str = ""
    waits: bool = False  # for its judge

    @property
    def chain(self) -> Chain:
        return Chain(self.reply.thinking, self.reply.answer, self.candidate.item, self.reply.closed,
                     self.candidate.rollout.truncated)  # fmt: skip

    def reject(self, reason: str, why: str) -> None:
        """The first reason stands."""
        if why and not self.reason:
            self.reason, self.why = reason, why

    def decision(self) -> Decision:
        return Decision(*self.candidate.key, not self.reason, self.reason or KEPT, self.why, self.scores)


def filter_candidates(
    r1: AudioR1,
    candidates: Sequence[Candidate],
    features: Features,
    config: FilterConfig,
    folder: Path,
    judge: Judge | None = None,
) -> Iterator[Decision]:
    """The decision on every candidate, as it is made, written to decisions.jsonl of `folder`; those found
    there come at once. Leave the loop at any time; the next call goes on.

    judge: one that has an API key; that of the configuration where None. Raises TrainingError: another
    configuration decided before; a judge that cannot be asked, or has not answered all yet.
    """
    file = DecisionFile(folder, config)
    filters = _Filters(r1, candidates, features, config, _judge(config, folder, judge))
    waiting = 0
    for group in grouped(candidates):
        if any(candidate.key not in file.found for candidate in group):
            cases = filters.decide(group)
            left = sum(case.waits for case in cases)
            waiting += left
            for case in () if left else cases:
                if case.candidate.key not in file.found:
                    file.append(case.decision())
        yield from (file.found[c.key] for c in group if c.key in file.found)
    if waiting:
        raise TrainingError(f"{folder / REQUESTS}: {waiting:,} chains wait for a judge; answer them in "
                            f"{RESPONSES} and run again")  # fmt: skip


def grouped(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """All samples of some questions, at least GROUP, in natural order: the same whatever order they came in."""
    ordered = sorted(candidates, key=lambda candidate: natural(candidate.key))
    group: list[Candidate] = []
    for _, samples in groupby(ordered, key=lambda candidate: candidate.rollout.prompt):
        group += samples
        if len(group) >= GROUP:
            yield group
            group = []
    if group:
        yield group


def _judge(config: FilterConfig, folder: Path, judge: Judge | None) -> Judge | None:
    """The judge, if the configuration has one; its prompt goes into the folder."""
    if not config.judge:
        return None
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / PROMPT_FILE, JUDGE_PROMPT)
    return judge or open_judge(config.judge_config, folder, expects=EXPECTS)


class _Filters:
    """All filters of a configuration, in order."""

    def __init__(
        self, r1: AudioR1, candidates: Sequence[Candidate], features: Features, config: FilterConfig,
        judge: Judge | None,
    ):  # fmt: skip
        self._r1, self._features, self._config, self._judge = r1, features, config, judge
        self._pool = [chunk for candidate in candidates for chunk in candidate.prompt.sounds]

    def decide(self, group: Sequence[Candidate]) -> list[_Case]:
        """All of a group, each with what rejected it, if anything did and its judge does not wait."""
        cases = [_Case(c, read_reply(completion_of(c.rollout, self._r1.tokenizer))) for c in group]
        for case in cases:
            self._cheap(case)
        if self._config.evidence:
            self._evidence([case for case in cases if not case.reason])
        if self._judge:
            self._judged([case for case in cases if not case.reason], self._judge)
        if self._config.most_per_prompt and not any(case.waits for case in cases):
            self._surplus(cases, self._config.most_per_prompt)
        return cases

    def _cheap(self, case: _Case) -> None:
        for name, asked in CHEAP.items():
            if getattr(self._config, name) and (self._config.score_all or not case.reason):
                case.reject(name, asked(case, self._config))

    def _evidence(self, cases: Sequence[_Case]) -> None:
        config = self._config
        found = evidence_of(
            self._r1, [case.candidate for case in cases], self._features, control=config.control,
            pool=self._pool, seed=config.seed, max_tokens=config.max_tokens_per_batch,
        )  # fmt: skip
        for case, evidence in zip(cases, found, strict=True):
            if evidence is not None:
                case.scores |= evidence.scores()
                case.reject("evidence", _too_little(case.scores, config.evidence_limits))

    def _judged(self, cases: Sequence[_Case], judge: Judge) -> None:
        prompts = [judge_prompt(c.candidate.item, c.reply.thinking, c.reply.answer) for c in cases]
        for case, reply in zip(cases, judge.ask(prompts), strict=True):
            if reply is None:
                case.waits = True
                continue
            verdict = read_verdict(reply)
            if verdict is None:
                case.scores["judge_unreadable"] = 1.0
                case.reject("judge", f"the judge's verdict cannot be read: {reply[:SHOWN]!r}")
            else:
                case.scores |= {f"judge_{name}": float(value) for name, value in vars(verdict).items()}
                case.reject("judge", f"not {', not '.join(verdict.failed)}" if verdict.failed else "")

    def _surplus(self, cases: Sequence[_Case], most: int) -> None:
        """Of each question the best by gain stay, then by a draw of the seed."""
        kept = [case for case in cases if not case.reason]
        for _, of_prompt in groupby(kept, key=lambda case: case.candidate.rollout.prompt):
            for case in sorted(of_prompt, key=self._rank)[most:]:
                case.reject(SURPLUS, f"{most} of its question are kept")

    def _rank(self, case: _Case) -> tuple[float, str]:
        draw = hashlib.sha256(f"{self._config.seed}/{case.candidate.key}".encode()).hexdigest()
        return -case.scores.get("gain", float("-inf")), draw


# ---- the cheap filters: each writes its scores and says what is wrong, or ""


def _verdict(case: _Case, config: FilterConfig) -> str:
    found = verdict_on(case.reply, case.candidate.item)
    case.scores["correct"] = found.correct
    if found.correct >= config.least_correct:
        return ""
    said = f"answered {found.parsed}" if found.parsed is not None else f"no answer ({found.why})"
    return f"{said}, expected {gold_text(case.candidate.item)}"


def _format(case: _Case, config: FilterConfig) -> str:
    if case.candidate.rollout.truncated:
        return f"truncated: {case.candidate.rollout.finish_reason}"
    if not case.reply.closed:
        return "the reasoning is never closed"
    return "" if case.reply.has_reasoning else "no reasoning"


def _lexicon(case: _Case, config: FilterConfig) -> str:
    if not case.candidate.item.has_audio:
        return ""
    found = lexicon_scores(case.reply.thinking)
    case.scores |= found
    return ungrounded(case.reply.thinking, found, config.lexicon_limits)


def _coherence(case: _Case, config: FilterConfig) -> str:
    case.scores |= coherence_scores(case.chain, config.coherence_limits)
    failed = incoherence(case.chain, config.coherence_limits)
    return f"{failed[0]}: {failed[1]}" if failed else ""


def _too_little(scores: dict[str, float], limits: dict[str, float]) -> str:
    """The first score below its limit. One that is not there is not below it."""
    for name, least in limits.items():
        if name in scores and scores[name] < least:
            unit = "" if name == "grounded" else " nats a token"
            return f"{name} {scores[name]:.3g}{unit}, the least is {least:g}"
    return ""


CHEAP: dict[str, Callable[[_Case, FilterConfig], str]] = {
    "verdict": _verdict,
    "format": _format,
    "lexicon": _lexicon,
    "coherence": _coherence,
}
