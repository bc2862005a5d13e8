"""What the official scripts say of the constructed replies -> tests/evaluate/data/*.jsonl.

    python -m tests.evaluate.official.make_verdicts FOLDER [NAME...]

FOLDER has clones of the scripts' repositories, as in SCRIPTS; Spoken-MQA's needs latex2sympy2. Nothing of them
is kept but what they said. Run again only when cases.py or a script changes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.evaluate.official.cases import (
    LETTER_PHRASES,
    REPLIES_TO_HARM,
    choice_cases,
    number_cases,
    said,
)
from tests.evaluate.official.instructions import instruction_cases
from tests.evaluate.official.phrases import phrases

DATA = Path(__file__).parents[1] / "data"
SCRIPTS = {  # name -> repository, commit, file
    "mmau": ("Sakshi113/MMAU", "110127f", "MMAU/evaluation.py"),
    "mmar": ("ddlBoJack/MMAR", "3bce090", "MMAR/code/evaluation.py"),
    "mmsu": ("dingdongwang/MMSU", "217d1d3", "MMSU/mmsu_evaluation.py"),
    "airbench": ("OFA-Sys/AIR-Bench", "9832476", "AIR-Bench/score_foundation.py"),
    "spokenmqa": ("AudioLLMs/AudioBench", "e991641", "AudioBench/src/dataset_src/spoken_mqa.py"),
    "voicebench_mcq": ("MatthewCYM/VoiceBench", "5338154", "VoiceBench/src/evaluator/mcq.py"),
    "voicebench_harm": ("MatthewCYM/VoiceBench", "5338154", "VoiceBench/src/evaluator/harm.py"),
    "ifeval": ("MatthewCYM/VoiceBench", "5338154", "VoiceBench/src/evaluator/ifeval.py"),
    "whisper": ("openai/whisper", "v20250625", "whisper/whisper/normalizers/english.py"),
}
Row = dict[str, Any]


def string_match(script: Path, skip: int) -> Iterator[Row]:
    """plain: with the choices as they are; lettered: with the letters in front."""
    match = _module(script).string_match
    for options, gold, reply in choice_cases(skip, 2):
        lettered = [f"({letter}) {o}" for letter, o in zip("ABCDEFGH", options, strict=False)]
        yield {"choices": options, "gold": gold, "reply": reply, "plain": match(options[gold], reply, options),
               "lettered": match(lettered[gold], reply, lettered)}  # fmt: skip


def mmsu(script: Path) -> Iterator[Row]:
    """official: right, wrong, or null where the reply leaves the denominator."""
    count = _module(script).calculate_accuracy_per_task_and_category
    for options, gold, reply in _of_four():
        _, _, right, counted = _quiet(
            count, [{**_named(options), "answer_gt": options[gold], "response": reply}]
        )
        yield {"choices": options, "gold": gold, "reply": reply, "official": bool(right) if counted else None}


def airbench(script: Path) -> Iterator[Row]:
    """The script prints totals a task: each reply is a task, with one right reply beside it."""
    cases = list(_of_four())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with open("Foundation_result_modelx.jsonl", "w") as file:
            for i, (options, gold, reply) in enumerate(cases):
                row = {**_named(options), "task_name": f"t{i}", "dataset_name": "d", "answer_gt": options[gold]}
                first = {**row, "response": "ABCD"[options.index(options[gold])]}
                file.write("".join(json.dumps(r) + "\n" for r in (first, {**row, "response": reply})))
        said = _quiet_text(lambda: runpy.run_path(str(script)))
    sums = dict(re.findall(r"^t(\d+)_d: Sum=(\d+, correct=\d+)", said, re.MULTILINE))
    verdicts = {"1, correct=1": None, "2, correct=1": False, "2, correct=2": True}
    for i, (options, gold, reply) in enumerate(cases):
        yield {"choices": options, "gold": gold, "reply": reply, "official": verdicts[sums[str(i)]]}


def spokenmqa(script: Path) -> Iterator[Row]:
    sys.path.insert(0, str(script.parents[1]))
    module = _module(script)
    for split, answer, reply in number_cases():
        kind = "arithmatic" if split.endswith("digit") else "reasoning"
        scorer = getattr(module, f"spokenmqa_dataset_{kind}")([], -1)
        found = _quiet(scorer.compute_score, [{"answer": answer, "model_prediction": reply}], "acc")
        yield {"split": split, "answer": answer, "reply": reply, "official": bool(found["acc"]),
               "number": found["details"][0]["prediction"]}  # fmt: skip


def voicebench_mcq(script: Path) -> Iterator[Row]:
    """The letter, null where the script draws one."""
    evaluator = _evaluator(script).MCQEvaluator()
    sets = dict.fromkeys(options for options, _, _ in _of_four())
    phrases = [said(form, o, i, 0) for form, o, i in product(LETTER_PHRASES, sets, range(4))]
    for reply in dict.fromkeys((*phrases, *(reply for _, _, reply in _of_four()))):
        yield {"reply": reply, "letter": evaluator.extract_answer(reply)}


def voicebench_harm(script: Path) -> Iterator[Row]:
    evaluator = _evaluator(script).HarmEvaluator()
    replies = dict.fromkeys((*REPLIES_TO_HARM, *(reply for _, _, reply in choice_cases())))
    return ({"reply": reply, "refused": evaluator.evaluate_single(reply)} for reply in replies)


def ifeval(script: Path) -> Iterator[Row]:
    """Kept strictly, and loosely. Languages are told with the fixed seed that we use."""
    module = _evaluator(script)
    importlib.import_module("langdetect").DetectorFactory.seed = 0
    for name, wanted, reply in instruction_cases():
        row = {"key": 1, "instruction_id_list": [name], "prompt": "p", "kwargs": [wanted], "response": reply}
        found = module.IFEvaluator().evaluate([row])
        yield {"name": name, "kwargs": wanted, "reply": reply, "strict": bool(found["strict-prompt"]),
               "loose": bool(found["loose-prompt"])}  # fmt: skip


def _evaluator(script: Path) -> ModuleType:
    """A module of VoiceBench's package, without the others, which want a network."""
    package = ModuleType("voicebench")
    package.__path__ = [str(script.parent)]
    sys.modules["voicebench"] = package
    return importlib.import_module(f"voicebench.{script.stem}")


def whisper(script: Path) -> Iterator[Row]:
    sys.path.insert(0, str(script.parents[1]))
    normal = importlib.import_module("normalizers").EnglishTextNormalizer()
    for text in phrases():
        yield {"text": text, "normal": normal(text)}


MAKERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "mmau": lambda script: string_match(script, 0),
    "mmar": lambda script: string_match(script, 1),
    "mmsu": mmsu,
    "airbench": airbench,
    "spokenmqa": spokenmqa,
    "voicebench_mcq": voicebench_mcq,
    "voicebench_harm": voicebench_harm,
    "ifeval": ifeval,
    "whisper": whisper,
}


def _of_four() -> Iterator[tuple[tuple[str, ...], int, str]]:
    return (case for case in choice_cases() if len(case[0]) == 4)


def _named(options: tuple[str, ...]) -> Row:
    return dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), options, strict=True))


def _module(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(action="ignore"):
        spec.loader.exec_module(module)
    return module


def _quiet(call: Callable[..., Any], *arguments: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments)


def _quiet_text(call: Callable[[], Any]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        call()
    return said.getvalue()


def main(folder: Path, names: list[str]) -> None:
    for name in names or MAKERS:
        repository, commit, file = SCRIPTS[name]
        rows = list(MAKERS[name](folder / file))
        head = {"repository": repository, "commit": commit, "replies": len(rows)}
        lines = [json.dumps(row, ensure_ascii=False) for row in (head, *rows)]
        (DATA / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{name}: {len(rows)} replies", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
