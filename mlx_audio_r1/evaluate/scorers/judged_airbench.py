"""AIR-Bench, chat: two assistants are marked from 1 to 10, the reference and the model; in both orders.

The mark is the model's, the mean of the two orders. A line that is not two integers with one space between is
left out, as in the official script. The surprise: that script asks half of its questions, drawn by chance, at a
temperature of 2; here all are asked at 1.
Needs of an item: ref["description"] of the sound, a Judged with the answer.
Source: OFA-Sys/AIR-Bench score_chat.py, cal_score.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import asked, said, unread
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

BEST = 10
WORDS = Words(
    "Two assistants answered a question about a sound.\n\nThe sound: XAudioX\nQuestion: XQuestionX\n\nFirst "
    "assistant: XAssistant1X\n\nSecond assistant: XAssistant2X\n\nHow helpful, relevant, right and complete is "
    "each, from 1 to 10? Write one line: the two marks, first and second, with a space between."
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    reference = references(item)[0]
    shown = {"XAudioX": str(item.ref.get("description") or ""), "XQuestionX": asked(item)}
    orders = ((reference, reply.answer), (reply.answer, reference))
    return [filled(words.user, {**shown, "XAssistant1X": a, "XAssistant2X": b}) for a, b in orders]


def marks_of(text: str) -> tuple[int, int] | None:
    """The two marks of a line."""
    pieces = said(text).replace("\n", "").split(" ")
    try:
        first, second = map(int, pieces)
    except ValueError:
        return None
    return (first, second) if min(first, second) >= 0 and max(first, second) <= BEST else None


def read(item: Item, reply: Reply, replies: Sequence[str]) -> Score:
    pairs = [marks_of(text) for text in replies]
    own = [pair[1 - at] for at, pair in enumerate(pairs) if pair]  # second, then first
    counts = unread(len(pairs) - len(own))
    if not own:
        return Score(None, None, "left out: no line of two marks", counts)
    mark = sum(own) / len(own)
    return Score(mark / BEST, f"{mark:g}", f"mean of {len(own)} orders", counts)


CHAT = JudgeScorer(
    "airbench.chat", "judge, both orders", prompts, read, WORDS, {"user": "system_prompt"}, ("XAssistant2X",),
    "16a47aebb418d06865eaef0a29eba901e4eb33c8c0842a38503e5fb145c2843c",
    expects="two integers of 1 to 10 in one line", params={"temperature": 1.0, "max_tokens": 1024},
)  # fmt: skip
