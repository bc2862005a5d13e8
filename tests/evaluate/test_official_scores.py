"""Whole prediction files under the authors' own scripts: the same totals as our summary, over all and by group.

The scripts are no part of this repository. Clone their repositories into one folder (names as in
official/make_verdicts.py), install latex2sympy2 and tqdm for them, and say where:

    OFFICIAL_SCRIPTS=FOLDER pytest tests/evaluate/test_official_scores.py
"""

import json
import os
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_audio_r1.evaluate.arrange import arranged, with_sounds
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.benches.spoken_mqa import SPLITS
from mlx_audio_r1.evaluate.results import Result
from mlx_audio_r1.evaluate.scorers import scorer
from mlx_audio_r1.evaluate.scoring import RuleScorer
from mlx_audio_r1.tasks.choice import Choice
from tests.evaluate import hand, layouts
from tests.evaluate.official.cases import ALONE, FORMS, NO_NUMBERS, NUMBER_FORMS
from tests.evaluate.official.make_verdicts import SCRIPTS

FOLDER = os.environ.get("OFFICIAL_SCRIPTS")
COMPARE = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "official_scores.py"))["compare"]

MAKERS = {  # bench -> (its questions on disk, the name in SCRIPTS)
    "mmau": (lambda path: layouts.mmau_json(path, layouts.mmau_rows(120)), "mmau"),
    "mmar": (lambda path: layouts.mmar_jsonl(path, layouts.mmar_rows(120)), "mmar"),
    "mmsu": (lambda path: layouts.mmsu_jsonl(path, layouts.mmsu_rows(120)), "mmsu"),
    "spoken-mqa": (lambda path: spoken_mqa(path, 80), "spokenmqa"),
    "air-bench-foundation": (lambda path: air_bench(path, 120), "airbench"),
}


def spoken_mqa(path, n):
    for split in SPLITS:
        layouts.write_parquet(path / "data" / f"{split}.parquet", layouts.spoken_mqa_rows(split, n))
    return path


def air_bench(path, n):
    """With questions of two and three choices, which have null or nothing for the other letters."""
    choices = (["bell", "drum", "horn", "flute"], ["yes", "no"], ["high", "low", "neither"])
    rows = [
        {
            "path": f"{k}.wav",
            "question": f"Which, {k}?",
            "task_name": f"task{k % 2}",
            "dataset_name": "made",
            "uniq_id": k,
            **dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), choices[k % 3], strict=False)),
            "answer_gt": choices[k % 3][k % 2],
        }
        for k in range(n)
    ]
    layouts.write_json(path / "Foundation_meta.json", rows)
    return path


def replies(item, number):
    """A constructed reply: right or wrong, in one of the forms, and every tenth never ended."""
    if isinstance(item.target, Choice):
        forms = (*FORMS, *ALONE)
        meant = item.target.gold[0] if number % 3 else (item.target.gold[0] + 1) % len(item.target.options)
        shown = item.target.options[meant]
        return (
            forms[number % len(forms)]
            .replace("{{", "{")
            .replace("}}", "}")
            .replace("{l}", "ABCDEFGH"[meant])
            .replace("{t}", shown)
            .replace("{m}", "A")
            .replace("{u}", item.target.options[0])
        )
    forms = (*NUMBER_FORMS, *NO_NUMBERS)
    value = item.target.value if number % 3 else item.target.value + 1
    return forms[number % len(forms)].replace("{n}", f"{float(value):g}")


def run_folder(path, name):
    """A run over a whole synthetic benchmark, with its prediction files."""
    known = bench(name)
    if name == "spoken-mqa":
        pytest.importorskip("pyarrow")
    questions = known.read(MAKERS[name][0](path / "download"))
    items = [arranged(q, known.profile(), f"{name}:{q.split}:{q.id}") for q in questions]
    items = [replace(with_sounds(item, ["a.wav"]), bench=name) for item in items]
    results = [
        Result(item.uid, name, answer=replies(item, i), closed=i % 10 != 9) for i, item in enumerate(items)
    ]
    rules = [
        n
        for n in known.scorers
        if n.endswith(("official", "official_plain")) and isinstance(scorer(n), RuleScorer)
    ]
    out = hand.write_run(path / "run", items, results, rules)
    (out / "predictions").mkdir()
    for file, text in known.predictions(items, {r.uid: r.reply for r in results}).items():
        (out / "predictions" / file).write_text(text, encoding="utf-8")
    return out


@pytest.mark.skipif(not FOLDER, reason="OFFICIAL_SCRIPTS names no folder with the authors' scripts")
@pytest.mark.parametrize("name", MAKERS)
def test_the_authors_script_gives_our_numbers(tmp_path, name):
    out = run_folder(tmp_path, name)
    script = Path(FOLDER) / SCRIPTS[MAKERS[name][1]][2]
    rows = COMPARE(name, script.parents[1] if name == "spoken-mqa" else script, out)
    assert rows and [row for row in rows if not row.same] == []
    assert any(0 < row.ours[0] < row.ours[1] for row in rows)


@pytest.mark.parametrize("name", MAKERS)
def test_prediction_files_have_every_question(tmp_path, name):
    out = run_folder(tmp_path, name)
    files = sorted((out / "predictions").iterdir())
    text = [file.read_text(encoding="utf-8") for file in files]
    rows = [json.loads(t) if f.suffix == ".json" else [json.loads(x) for x in t.splitlines()]
            for f, t in zip(files, text, strict=True)]  # fmt: skip
    asked = len((out / "items.jsonl").read_text().splitlines())
    assert {len(found) for found in rows} == {asked} or sum(map(len, rows)) == asked
