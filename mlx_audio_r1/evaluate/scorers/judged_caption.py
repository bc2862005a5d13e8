"""Step-Caption: a description of voices against labels; every field of every speaker has a mark of 0 to 1.

    caption.judge         overall_score as the judge gives it, 0 where one speaker was taken for several
    caption.recomputed    the mean over speakers of the mean over their fields, from the judge's own marks

Fields whose label is 无法判断 or 无法识别 are skipped; a speaker the judge leaves out has 0. The surprise:
judges do not add up well, so the two differ.
Needs of an item: ref["speakers"], its labels; the words of its download in ref["judge"].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_audio_r1.evaluate.judge_words import Words, filled
from mlx_audio_r1.evaluate.scorers.judged_reading import no_score, number_in, object_in
from mlx_audio_r1.evaluate.scoring import JudgeScorer, Score
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reply import Reply

SKIPPED = ("无法判断", "无法识别")
WORDS = Words(
    "How well does a description of a recording agree with its labels?\n\nSpeakers: {ground_truth} "
    "({num_speakers})\n\nDescription:\n{model_output}\n\nLabels:\n{speakers_str}\n\nFirst: does it have one "
    "speaker where there is one, and several where there are several? If not, everything is 0. Then give every "
    "field of every speaker a mark from 0 to 1; leave out fields labelled 无法判断 or 无法识别. Write only "
    'JSON: {"multi_speaker_judgment_correct": true or false, "overall_score": 0 to 1, "speakers": '
    '[{"speaker_index": 1, "field_scores": {"gender": {"score": 0 to 1}, ...}, "average_score": 0 to 1}]}'
)


def prompts(item: Item, reply: Reply, words: Words) -> list[str]:
    speakers = item.ref["speakers"]
    fields = {
        "{ground_truth}": "多人" if item.ref.get("several") else "单人",
        "{num_speakers}": str(len(speakers)),
        "{model_output}": reply.answer,
        "{speakers_str}": "\n\n".join(_labels(n, speaker) for n, speaker in enumerate(speakers, start=1)),
    }
    return [filled(words.user, fields)]


def _labels(number: int, speaker: Mapping[str, Any]) -> str:
    return "\n".join([f"speaker {number}:", *(f"- {name}: {value}" for name, value in speaker.items())])


def read(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    found = object_in(said[0])
    told = found.get("multi_speaker_judgment_correct") if found else None
    if told is False:
        return Score(0.0, "0", "another number of speakers")
    mark = number_in(found.get("overall_score"), 0, 1) if found and told is True else None
    return no_score() if mark is None else Score(mark, str(mark), "overall mark")


def recomputed(item: Item, reply: Reply, said: Sequence[str]) -> Score:
    found = object_in(said[0])
    told = found.get("multi_speaker_judgment_correct") if found else None
    if told is False:
        return Score(0.0, "0", "another number of speakers")
    marks = speaker_marks(found, item.ref["speakers"]) if found and told is True else None
    if not marks:
        return no_score()
    mark = sum(marks) / len(marks)
    return Score(mark, f"{mark:.4f}", "mean of fields and speakers")


def speaker_marks(found: Mapping[str, Any], labelled: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """A mark for each speaker; None where the judge gives none that can be read."""
    given = found.get("speakers")
    if not isinstance(given, list):
        return None
    by_index = {_index(one, at): one for at, one in enumerate(given, start=1) if isinstance(one, Mapping)}
    marks = [_mark(by_index.get(n), labels) for n, labels in enumerate(labelled, start=1)]
    readable = any(_fields(one, labelled[0]) for one in by_index.values()) if labelled else False
    return [mark for mark in marks if mark is not None] if readable else None


def _index(speaker: Mapping[str, Any], at: int) -> int:
    index = number_in(speaker.get("speaker_index"), 1, 1000)
    return int(index) if index is not None else at


def _mark(speaker: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> float | None:
    """The mean of a speaker's fields; 0 for one who is left out, None where every field is skipped."""
    if all(_skipped(value) for value in labels.values()):
        return None
    marks = _fields(speaker, labels) if speaker else []
    return sum(marks) / len(marks) if marks else 0.0


def _fields(speaker: Mapping[str, Any], labels: Mapping[str, Any]) -> list[float]:
    """The marks of fields that count; a field without one is passed over."""
    given = speaker.get("field_scores")
    found = given.items() if isinstance(given, Mapping) else ()
    values = [
        number_in(value.get("score") if isinstance(value, Mapping) else value, 0, 1)
        for name, value in found
        if name in labels and not _skipped(labels[name])
    ]
    return [value for value in values if value is not None]


def _skipped(label: Any) -> bool:
    return str(label).strip() in SKIPPED


_EXPECTS = {"multi_speaker_judgment_correct": "true or false", "overall_score": "0 to 1", "speakers": "a list"}
_PARAMS = {"temperature": 0, "max_tokens": 4096}
JUDGE = JudgeScorer("caption.judge", "judge's overall mark", prompts, read, WORDS, must=("{model_output}",),
                    expects=_EXPECTS, params=_PARAMS)  # fmt: skip
RECOMPUTED = JudgeScorer("caption.recomputed", "judge's marks, added up", prompts, recomputed, WORDS,
                         must=("{model_output}",), expects=_EXPECTS, params=_PARAMS)  # fmt: skip
