"""Step-DU (dialogue understanding): a mark of 0, 0.5 or 1 against a label that may have several parts.

The words come from the benchmark's download. The surprise: any mark between 0 and 1 is taken, because the
authors' prompt only prefers the three.
Needs of an item: a Judged with the label, groups["dimension"], ref["question"].
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import asked, no_score, number_in, object_in
from mlx_audio_r1.evaluate.scorers.rows import references
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

WORDS = Words(
    "How much of the label does the answer give?\n\nSubject: {secondary_dimension}\nQuestion: {question}\n"
    "Label: {reference_answer}\nAnswer: {model_answer}\n\nOf the label counts what stands before a colon; "
    "between slashes any one is enough; between semicolons all are needed. Other words for the same are right. "
    'Write only JSON: {"score": 0, 0.5 or 1, "reason": "..."}'
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    fields = {
        "{secondary_dimension}": str(item.groups.get("dimension", "")), "{question}": asked(item),
        "{reference_answer}": references(item)[0], "{model_answer}": reply.answer,
    }  # fmt: skip
    return [filled(words.user, fields)]


def read(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    found = object_in(said[0])
    mark = number_in(found.get("score"), 0, 1) if found else None
    return no_score() if mark is None else Score(mark, str(mark), "mark")


JUDGE = JudgeScorer(
    "du.judge", "judge", prompts, read, WORDS, must=("{model_answer}",), expects={"score": "0, 0.5 or 1"},
    params={"temperature": 0, "max_tokens": 1024},
)  # fmt: skip
