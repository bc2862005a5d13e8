"""Self-cognition (the paper's section 6.3): a model's own replies -> rows that teach it that it hears.

    judged = [judged_reply(row, n, reply.thinking, reply.answer) for ...]
    write_rows(folder / "train.jsonl", distilled(judged))        # for train sft
    write_rows(folder / "train.jsonl", preferred(judged))        # for train dpo

The first stage learns the replies that do not deny. The second sets one of them against a denial: the
model's own where it wrote one to the same question, else one of a list, and the column `rejected_by`
says which. The paper made 8,000 pairs and published none. The surprise: a reply that denies in its
thinking alone is no error, but nothing is learnt from it either.
"""

# ruff: noqa: RUF001  (full-width marks are meant)
from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_audio_r1.tasks.lexicon import grounding
from mlx_audio_r1.tasks.self_cognition import Denial, judge_denial
from mlx_audio_r1.train.replies import with_reasoning
from mlx_audio_r1.train.row_forms import Row
from mlx_audio_r1.train.row_writer import row_as_json

DENIALS: Mapping[str, tuple[tuple[str, str], ...]] = {  # language -> (thinking, answer)
    "en": (
        ("The user sends a sound. I only read text.", "I am a text model and cannot hear audio."),
        ("There is only text here.", "I cannot listen to audio."),
        ("I have no ears.", "I am unable to process audio files."),
        ("A recording is mentioned.", "As a language model, I cannot hear sounds."),
        ("I should say that I only handle text.", "I only process text."),
    ),
    "zh": (
        ("用户发来声音，我只能看文字。", "我是文本模型，无法听到音频。"),
        ("这里只有文字。", "我无法听音频。"),
        ("我没有听觉。", "我只能处理文本。"),
        ("问题提到一段录音。", "作为语言模型，我不能听录音。"),
    ),
}
_CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class JudgedReply:
    """One sampled reply to the question of a row. finished: it ended by itself. correct: what a verifier
    says, 0-1, None where nobody knows."""

    row: Row
    sample: int
    thinking: str
    answer: str
    denial: Denial
    finished: bool = True
    correct: float | None = None

    @property
    def text(self) -> str:
        return with_reasoning(self.thinking, self.answer)


@dataclass(frozen=True)
class Keeping:
    """What a reply must be to be learnt from, beside not denying. correct: at least this, 0-1, where the
    truth is known. acoustic: thinking and answer must name something that is heard. per_question: so many
    different replies at most."""

    correct: float | None = None
    acoustic: bool = False
    per_question: int | None = None


def judged_reply(
    row: Row, sample: int, thinking: str, answer: str, finished: bool = True, correct: float | None = None
) -> JudgedReply:
    """A reply with what the rules say of it."""
    return JudgedReply(row, sample, thinking, answer, judge_denial(thinking, answer), finished, correct)


def fate(reply: JudgedReply, keeping: Keeping = Keeping()) -> str:
    """`kept`, or the first reason not to learn from it."""
    if not reply.finished or not reply.answer.strip():
        return "unfinished"
    if reply.denial.answer:
        return "denies hearing"
    if reply.denial.thinking:
        return "denies hearing in its thinking"
    if not reply.thinking.strip():
        return "no thinking"
    if keeping.correct is not None and reply.correct is not None and reply.correct < keeping.correct:
        return "wrong"
    if keeping.acoustic and not grounding(f"{reply.thinking} {reply.answer}").terms:
        return "names nothing that is heard"
    return "kept"


def kept(replies: Iterable[JudgedReply], keeping: Keeping = Keeping()) -> list[JudgedReply]:
    """The replies to learn from, in order; of equal ones to one question the first."""
    chosen: list[JudgedReply] = []
    seen: dict[str, set[str]] = {}
    for reply in replies:
        texts = seen.setdefault(reply.row.where, set())
        full = keeping.per_question is not None and len(texts) >= keeping.per_question
        if not full and reply.text not in texts and fate(reply, keeping) == "kept":
            texts.add(reply.text)
            chosen.append(reply)
    return chosen


def distilled(replies: Iterable[JudgedReply], keeping: Keeping = Keeping()) -> list[dict[str, Any]]:
    """Rows for `train sft`: questions with the model's own replies that do not deny."""
    return [row_as_json(r.row, reply=r.text) for r in kept(replies, keeping)]


def preferred(
    replies: Sequence[JudgedReply],
    keeping: Keeping = Keeping(per_question=1),
    seed: int = 0,
    lang: str | None = None,
) -> list[dict[str, Any]]:
    """Rows for `train dpo`: a kept reply against a denial of the same question.

    Every kept reply makes a pair. Own denials are used once each; where there are fewer, `seed` and the
    question's place draw one of DENIALS in the question's language, or in `lang`.
    """
    own: dict[str, list[str]] = {}
    for reply in replies:
        if reply.denial.wrong and reply.finished:
            own.setdefault(reply.row.where, []).append(reply.text)
    pairs = []
    for number, reply in enumerate(kept(replies, keeping)):
        denials = own.get(reply.row.where)
        rejected, by = (
            (denials.pop(0), "model") if denials else (template(reply.row, seed + number, lang), "template")
        )
        pairs.append(row_as_json(reply.row, reply=reply.text, rejected=rejected, rejected_by=by))
    return pairs


def template(row: Row, seed: int, lang: str | None = None) -> str:
    """A denial of the list, in the language of the question or in `lang`; row and seed decide which."""
    ways = DENIALS[lang or ("zh" if _CHINESE.search(row.history[-1].text) else "en")]
    digest = hashlib.sha256(f"{seed} {row.name}".encode()).digest()
    return with_reasoning(*ways[np.random.default_rng([*digest]).integers(len(ways))])
