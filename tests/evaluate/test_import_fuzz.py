"""Rows spoiled at random: an import, or one line of an AudioR1Error, and nothing else."""

import json
import random

import pytest

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import ImportOptions, import_bench
from mlx_audio_r1.tasks.item_files import read_items
from tests.evaluate import layouts

VALUES = [
    None, "", 0, -1, 1e400, float("nan"), True, [], {}, [None], [[]], ["x"], {"text": None}, "x" * 5_000,
    "a/b\0c", "../../x", "/dev/zero", "/", "\ud800", "(A) x", "[1]", "[", "{", "#### ", "1/0", [1, 2],
    ["a"] * 30, 10**30,
    "http://x/y.wav", [True, False], "nan", "١٢",
]  # fmt: skip
MADE = {  # bench -> its rows, what writes a download of them, the file they are in
    "mmau": (layouts.mmau_rows, layouts.mmau_json, "mmau-test-mini.json"),
    "mmsu": (layouts.mmsu_rows, layouts.mmsu_jsonl, "question/mmsu.jsonl"),
    "mmar": (layouts.mmar_rows, layouts.mmar_jsonl, "MMAR-meta.jsonl"),
    "big-bench-audio": (layouts.big_bench_rows, layouts.big_bench, "metadata.jsonl"),
    "generic": (layouts.generic_rows, layouts.generic, "mine.jsonl"),
}


def spoiled(rng, rows):
    """One or two columns, or parts of them, are something else or gone."""
    for _ in range(rng.randrange(1, 3)):
        row = rng.choice(rows)
        name = rng.choice(list(row))
        inside = row[name]
        if rng.random() < 0.2 and len(row) > 1:
            del row[name]
        elif isinstance(inside, list | dict) and inside and rng.random() < 0.5:
            key = rng.randrange(len(inside)) if isinstance(inside, list) else rng.choice(list(inside))
            inside[key] = rng.choice(VALUES)
        else:
            row[name] = rng.choice(VALUES)
    return rows


def check(name, folder, seeds):
    rows, make, file = MADE[name]
    make(folder)
    for seed in seeds:
        rng = random.Random(f"{name}{seed}")
        made = spoiled(rng, json.loads(json.dumps(rows())))
        text = json.dumps(made) if file.endswith("json") else "".join(json.dumps(row) + "\n" for row in made)
        (folder / file).write_text(text)
        try:
            options = ImportOptions(allow_missing=rng.random() < 0.5)
            report = import_bench(bench(name), folder, folder.parent / "out", options)
        except AudioR1Error as error:
            assert "\n" not in str(error) and len(str(error)) < 700, (name, seed)
        else:
            assert report.items == sum(1 for _ in read_items(folder.parent / "out" / "items.jsonl"))


@pytest.mark.parametrize("name", MADE)
def test_a_spoiled_row_is_imported_or_told_about(tmp_path, name):
    check(name, tmp_path / "p", range(20))


@pytest.mark.long
@pytest.mark.parametrize("name", MADE)
def test_a_thousand_spoiled_rows_are_imported_or_told_about(tmp_path, name):
    check(name, tmp_path / "p", range(20, 1_020))
