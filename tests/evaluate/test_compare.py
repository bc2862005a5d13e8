"""Two runs over the same items, on folders written by hand."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.compare import compare
from mlx_audio_r1.evaluate.results import FULL, ITEMS, REAL, RUN, SCORES
from mlx_audio_r1.evaluate.score_rows import ScoreRow, read_scores, write_scores
from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json


def folder(path, values, *, bench="b", scorer="world", groups=lambda i: {}, **run):
    """A run: values[i] of item i, one a sample; None left out by the scorer."""
    path.mkdir()
    (path / RUN).write_text(json.dumps({"model": path.name, **run}))
    rows, items = [], []
    for i, samples in values.items():
        turns = (Turn("user", ("?",)),)
        items.append(Item(f"{bench}:{i}", turns, Boolean(True), bench=bench, groups=groups(i)))
        for sample, value in enumerate(samples):
            rows.append(ScoreRow(f"{bench}:{i}", bench, sample, FULL, REAL, {scorer: Score(value)}))
            rows.append(ScoreRow(f"{bench}:{i}", bench, sample, 0, REAL, {scorer: Score(0.0)}))
            rows.append(ScoreRow(f"{bench}:{i}", bench, sample, FULL, "silence", {scorer: Score(0.0)}))
    (path / ITEMS).write_text("".join(json.dumps(item_to_json(item)) + "\n" for item in items))
    write_scores(path, rows)
    return path


def test_rows_come_back_as_they_were(tmp_path):
    scores = {"s": Score(None, "Härp", "how", {"edits": 3}), "t": Score(1.0)}
    rows = [ScoreRow("u", "b", 2, 64, "noise", scores)]
    write_scores(tmp_path, rows)
    assert read_scores(tmp_path) == rows and not rows[0].plain


def test_numbers_of_a_table_of_four(tmp_path):
    """40 both right, 25 both wrong, 12 A alone, 3 B alone."""
    a = {i: [float(i < 52)] for i in range(80)}
    b = {i: [float(i < 40 or 52 <= i < 55)] for i in range(80)}
    found = compare(folder(tmp_path / "a", a), folder(tmp_path / "b", b))
    [row] = found.rows
    assert (row.n, row.better_a, row.better_b) == (80, 12, 3)
    assert (row.a, row.b) == (52 / 80, 43 / 80)
    assert row.p == pytest.approx(stats.binomtest(3, 15).pvalue)
    change = [b[i][0] - a[i][0] for i in range(80)]
    drawn = stats.bootstrap((change,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    assert row.difference[0] == pytest.approx(-9 / 80)
    assert row.difference[1:] == pytest.approx(tuple(drawn.confidence_interval), abs=0.013)  # one item's worth
    assert len(found.flips) == 15 and found.missing == (0, 0)
    assert found.settings == {"model": ("a", "b")}


def test_samples_of_an_item_are_its_mean_and_groups_are_split(tmp_path):
    groups = lambda i: {"task": "music" if i else "sound"}  # noqa: E731
    a = folder(tmp_path / "a", {0: [1.0, 0.0], 1: [1.0, 1.0], 2: [0.0, 0.0]}, groups=groups)
    b = folder(tmp_path / "b", {0: [1.0, 1.0], 1: [1.0, 0.0], 2: [0.0, 0.0]}, groups=groups)
    found = compare(a, b, groups=["task"])
    assert [(r.group, r.n, r.a, r.b) for r in found.rows] == [
        ("", 3, 0.5, 0.5), ("task=music", 2, 0.5, 0.25), ("task=sound", 1, 0.5, 1.0)]  # fmt: skip
    assert (found.rows[0].better_a, found.rows[0].better_b, found.rows[0].p) == (1, 1, 1.0)
    assert found.flips == (("b:0", 0.5, 1.0), ("b:1", 1.0, 0.5))


def test_what_one_run_alone_has_takes_no_part_and_is_counted(tmp_path):
    a = folder(tmp_path / "a", {0: [1.0], 1: [1.0], 2: [None]})
    b = folder(tmp_path / "b", {1: [0.0], 2: [1.0], 3: [0.0], 4: [0.0]})
    found = compare(a, b)
    assert found.rows[0].n == 1 and found.missing == (1, 3)


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path):
    a = folder(tmp_path / "a", {0: [1.0]})
    b = folder(tmp_path / "b", {0: [1.0]}, bench="other")
    with pytest.raises(EvaluationError, match="no item is in both"):
        compare(a, b)
    with pytest.raises(EvaluationError, match=r"no scores by 'num\.resolve' in .*; there are world"):
        compare(a, a, "num.resolve")
    with pytest.raises(EvaluationError, match="no group 'key'; there are none"):
        compare(a, a, groups=["key"])
    (b / SCORES).unlink()
    with pytest.raises(EvaluationError, match="No such file or directory; run audio-r1 eval score"):
        compare(a, b)
    (b / SCORES).write_text('{"uid": 1}\n')
    with pytest.raises(EvaluationError, match="no scores"):
        compare(a, b)
    (a / RUN).unlink()
    with pytest.raises(EvaluationError, match="cannot be read; give a folder of audio-r1 eval run"):
        compare(a, folder(tmp_path / "c", {0: [1.0]}))


def test_of_error_rates_the_corpus_counts_and_the_lower_one_is_better(tmp_path):
    def transcripts(path, errors):
        made = folder(path, {i: [0.0] for i in range(len(errors))}, scorer="asr.wer")
        rows = [ScoreRow(f"b:{i}", "b", 0, FULL, REAL,
                         {"asr.wer": Score(min(1.0, e / w), "x", "", {"substitutions": e, "words": w})})
                for i, (e, w) in enumerate(errors)]  # fmt: skip
        write_scores(made, rows)
        return made

    [row] = compare(transcripts(tmp_path / "a", [(2, 10), (0, 40), (5, 2)]),
                    transcripts(tmp_path / "b", [(1, 10), (0, 40), (9, 2)])).rows  # fmt: skip
    assert (row.a, row.b) == pytest.approx((7 / 52, 10 / 52))
    assert row.difference[0] == pytest.approx(3 / 52) and row.difference[1] < 0 < row.difference[2]
    assert (row.better_a, row.better_b) == (0, 1)  # beyond one error a word an item cannot get worse


def test_the_command_prints_a_table_and_what_differs(tmp_path):
    a = folder(tmp_path / "a", {i: [float(i < 6)] for i in range(8)}, settings={"n": 1})
    b = folder(tmp_path / "b", {i: [float(i < 2)] for i in range(9)}, settings={"n": 2})
    run = CliRunner().invoke(cli, ["eval", "compare", str(a), str(b), "--flips", "1"])
    assert run.exit_code == 0, run.output
    [_, line] = run.stdout.splitlines()
    assert line.split()[:5] == ["b", "(world)", "8", "75.0%", "25.0%"]
    assert line.split()[-3:] == ["4", "0", "0.12"]
    assert run.stderr.splitlines() == [
        "b:2: 1 in A, 0 in B", "3 more items differ; --flips 4 names all",
        'the runs differ in model: "a" and "b"', 'the runs differ in settings: {"n": 1} and {"n": 2}',
        "not compared: 0 items of A alone, 1 of B alone",
    ]  # fmt: skip
    run = CliRunner().invoke(cli, ["eval", "compare", str(a), str(b), "--json"])
    found = json.loads(run.stdout)
    assert found["rows"][0]["better_a"] == 4 and len(found["flips"]) == 4
    run = CliRunner().invoke(cli, ["eval", "compare", str(a), str(tmp_path)])
    assert run.exit_code == 1 and len(run.stderr.splitlines()) == 1
