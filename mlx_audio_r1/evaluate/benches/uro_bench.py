"""URO-Bench: spoken questions in forty sets, English and Chinese, two levels; a judge, or an error rate.

Read is the test.jsonl of each set; give one set or the folder of all. `uro-repeat` has the two sets that are
repeated word for word, `uro-bench` those that a judge marks. The surprise: sets whose answer has to be
heard (GenEmotion, SRT) and those of several rounds, which want the model's own replies between, are not read;
what is left can be answered in text, but was made for answers in speech.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, Bench, Question
from mlx_audio_r1.evaluate.profiles import step_profile
from mlx_audio_r1.evaluate.rows import Row, locate, read_json
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.wording import Wording

FILE, REPEATED = "test.jsonl", "wer"
SETS = {  # name -> (how it is scored, level, how many there are)
    "AlpacaEval": ("open", "basic", 199), "CommonEval": ("open", "basic", 200),
    "WildchatEval": ("open", "basic", 349), "StoralEval": ("semi-open", "basic", 201),
    "Summary": ("semi-open", "basic", 118), "TruthfulEval": ("semi-open", "basic", 470),
    "GaokaoEval": ("qa", "basic", 303), "Gsm8kEval": ("qa", "basic", 582), "MLC": ("qa", "basic", 177),
    "Repeat": ("wer", "basic", 252), "AlpacaEval-zh": ("open", "basic", 147),
    "Claude-zh": ("open", "basic", 222),
    "Wildchat-zh": ("open", "basic", 299), "SQuAD-zh": ("qa", "basic", 153), "APE-zh": ("qa", "basic", 190),
    "MLC-zh": ("qa", "basic", 145), "OpenbookQA-zh": ("qa", "basic", 189), "HSK5-zh": ("qa", "basic", 100),
    "LCSTS-zh": ("semi-open", "basic", 119), "Repeat-zh": ("wer", "basic", 127),
    "CodeSwitching-en": ("semi-open", "pro", 70), "CodeSwitching-zh": ("semi-open", "pro", 70),
    "GenStyle-en": ("gs", "pro", 44), "GenStyle-zh": ("gs", "pro", 39), "MLCpro-en": ("qa", "pro", 91),
    "MLCpro-zh": ("qa", "pro", 64), "Safety-en": ("sf", "pro", 25), "Safety-zh": ("sf", "pro", 25),
    "UnderEmotion-en": ("ue", "pro", 137), "UnderEmotion-zh": ("ue", "pro", 79),
    "Multilingual": ("ml", "pro", 1108), "ClothoEval-en": ("qa", "pro", 265),
    "MuChoEval-en": ("qa", "pro", 311),
}  # fmt: skip
UNREAD = ("GenEmotion-en", "GenEmotion-zh", "SRT-en", "SRT-zh", "MtBenchEval-en", "SpeakerAware-en",
          "SpeakerAware-zh")  # fmt: skip
ABOUT = {"gs": "style", "ue": "emotion", "ml": "requirement"}  # mode -> the column that tells a judge more


def read(path: Path, modes: Container[str]) -> Iterator[Question]:
    """The questions of a download that are scored in one of these ways. Raises EvaluationError."""
    files = [path] if path.is_file() else sorted(path.rglob(FILE))
    known = [f for f in files if f.parent.name in SETS and SETS[f.parent.name][0] in modes]
    if not known:
        unread = [file.parent.name for file in files if file.parent.name in UNREAD]
        missing = f"no SET/{FILE} of this benchmark in it"
        why = f"{unread[0]} is answered by voice or in several rounds" if unread else missing
        raise EvaluationError(f"{path}: {why}; give the folder of URO-Bench, or of a set like Gsm8kEval")
    for file in known:
        for number, row in enumerate(read_json(file)):
            yield _question(row, file.parent.name, number, file.parent)


def _question(row: Row, name: str, number: int, folder: Path) -> Question:
    mode, level, _ = SETS[name]
    lang = "zh" if name.endswith("-zh") else "en"
    about = {"about": row.text(ABOUT[mode])} if mode in ABOUT else {}
    return Question(
        id=f"{name}:{row.text('id') if row.has('id') else number}",
        text="",
        sounds=(locate(folder, row.text("source_wav"), "wav", "audio"),),
        target=_target(row, mode, lang),
        groups={"set": name, "level": level, "language": lang, "mode": mode},
        lang=lang,
        ref={"transcript": row.text("source_text")},
        extra={"mode": mode, **about},
    )


def _target(row: Row, mode: str, lang: str) -> Any:
    texts = row.texts("target_text") if isinstance(row.values.get("target_text"), list) else (
        (row.text("target_text"),) if row.has("target_text") else (row.text("source_text"),)
    )  # fmt: skip
    if mode == REPEATED:
        return Wording(texts, "cer" if lang == "zh" else "wer")
    return Judged(texts)


def _bench(name: str, title: str, modes: Container[str], scorers: tuple[str, ...], judge: str = "") -> Bench:
    return Bench(
        name=name,
        title=title,
        read=partial(read, modes=modes),
        profiles=(step_profile("uro-bench", order=(AUDIO,)),),
        scorers=scorers,
        expected={"set": {one: count for one, (mode, _, count) in SETS.items() if mode in modes}},
        judge=judge,
        license="MIT",
        group_by=("language", "level", "mode", "set"),
        source="hub data set Honggao/URO-Bench: URO-Bench-data.zip, unpacked",
    )


ANSWERS = _bench("uro-bench", "URO-Bench, in text", {mode for mode, _, _ in SETS.values()} - {REPEATED},
                 ("uro.judge",), "gpt-4o-mini")  # fmt: skip
REPEAT = _bench("uro-repeat", "URO-Bench, repeating", {REPEATED}, ("uro.repeat",))
