"""Audio MultiChallenge: a judge reads the conversation and one point of its rubric: is it met?

    audiomc.judge    the share of conversations that meet every point (APR), which is what is published
    audiomc.ars      the mean share of points met (ARS)

Both ask the same, so the second costs nothing. The surprise: a verdict that cannot be read is a point not met.
Needs of an item: a Judged with the rubric, ref["conversation"] as {"role", "text"} up to the last question.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import object_in, unread
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

WORDS = Words(
    "Does the last reply of the assistant meet this point?\n\nConversation:\n«conversation_history»\n\nPoint:\n"
    '«rubric_item»\n\nWrite only JSON: {"explanation": "...", "criteria_met": true or false}'
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    turns = [*item.ref["conversation"], {"role": "assistant", "text": reply.answer}]
    history = "\n\n".join(f"{turn['role']}: {turn['text']}" for turn in turns)
    return [filled(words.user, {"«conversation_history»": history, "«rubric_item»": point})
            for point in item.target.rubric]  # fmt: skip


def met(text: str) -> bool | None:
    """The verdict on a point, None where there is none."""
    found = object_in(text)
    verdict = found.get("criteria_met") if found else None
    return verdict if isinstance(verdict, bool) else None


def passed(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    score = share(item, reply, said)
    return Score(float(score.value == 1), score.parsed, score.how, score.counts)


def share(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    verdicts = [met(text) for text in said]
    points = sum(verdict is True for verdict in verdicts)
    missing = sum(verdict is None for verdict in verdicts)
    told = f"{points} of {len(said)} points" + (f", {missing} verdicts cannot be read" if missing else "")
    parsed = None if missing == len(said) else f"{points}/{len(said)}"
    return Score(points / len(said), parsed, told, unread(missing))


_EXPECTS = {"explanation": "why", "criteria_met": "true or false"}
_PARAMS = {"temperature": 1.0, "max_tokens": 1024}
_MUST = ("«conversation_history»",)
APR = JudgeScorer("audiomc.judge", "all points met (APR)", prompts, passed, WORDS, must=_MUST,
                  expects=_EXPECTS, params=_PARAMS)  # fmt: skip
ARS = JudgeScorer("audiomc.ars", "points met (ARS)", prompts, share, WORDS, must=_MUST,
                  expects=_EXPECTS, params=_PARAMS)  # fmt: skip
