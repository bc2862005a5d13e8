"""Two judges that say one word: Big Bench Audio (CORRECT or INCORRECT) and SPQA (YES or NO).

SPQA asks a judge only where the reply is not equal to the reference or its label already. The surprise: Big
Bench Audio's questions are spoken and come without a transcript, so its judge sees the answers alone.
Needs of an item: extra["official_answer"]; of SPQA's a reference, and the words of its task in ref["judge"].
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.dialogue import spqa
from mlx_audio_r1.evaluate.scorers.judged_reading import asked, no_score, one_of
from mlx_audio_r1.evaluate.scorers.rows import gold_text, references
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

RIGHT, WRONG = "CORRECT", "INCORRECT"
UNSEEN = "(it was spoken, and is not written down)"
BBA_WORDS = Words(
    "Does the answer of a student agree with the right answer? Judge the final answer alone; numbers may be "
    "spelled out.\n\nQuestion: {question}\n\nRight answer: {official_answer}\n\nAnswer of the student: "
    "{candidate_answer}\n\nWrite one word: CORRECT or INCORRECT."
)
SPQA_WORDS = Words(
    "Do these two descriptions of a voice or a sound mean the same?\n\nReference: {text1}\nAnswer: {text2}\n\n"
    "Write one word: YES or NO."
)


def bba_prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    fields = {
        "{question}": asked(item) or UNSEEN, "{candidate_answer}": reply.answer,
        "{official_answer}": str(item.extra.get("official_answer") or gold_text(item)),
    }  # fmt: skip
    return [filled(words.user, fields)]


def bba_read(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    verdict = one_of(said[0], (RIGHT, WRONG))
    return Score(float(verdict == RIGHT), verdict, "verdict") if verdict else no_score()


def spqa_prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    if spqa(reply.answer, item).value:
        return []
    return [filled(words.user, {"{text1}": references(item)[0], "{text2}": reply.answer})]


def spqa_read(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    if not said:
        return Score(1.0, reply.answer.strip(), "equal, no judge asked")
    verdict = one_of(said[0], ("YES", "NO"))
    return Score(float(verdict == "YES"), verdict, "verdict") if verdict else no_score()


BBA = JudgeScorer(
    "bba.judge", "judge", bba_prompts, bba_read, BBA_WORDS, must=("{candidate_answer}",),
    expects="CORRECT or INCORRECT", params={"temperature": 0},
)  # fmt: skip
SPQA = JudgeScorer(
    "spqa.judge", "equal, or judge", spqa_prompts, spqa_read, SPQA_WORDS, must=("{text2}",),
    expects="YES or NO", params={"temperature": 0},
)  # fmt: skip
