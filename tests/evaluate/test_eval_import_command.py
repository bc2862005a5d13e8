"""`audio-r1 eval list` and `import`: tables for people, JSON for programs, one line and code 1 for faults."""

import json
import re

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.evaluate.import_report import read_report
from tests.evaluate import layouts


def run(*arguments):
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)])


def test_every_benchmark_is_listed_with_what_to_download():
    listed = run("list").stdout
    rows = json.loads(run("list", "--json").stdout)["benches"]
    assert [row["name"] for row in rows] == list(BENCHES)
    for row in rows:
        assert re.search(rf"(?m)^{row['name']} +{re.escape(row['title'])} \(", listed)
        assert row["source"] and f"download: {row['source']}\n" in listed


@pytest.mark.parametrize("name", BENCHES)
def test_what_a_benchmark_counts_by_and_scores_with_has_a_name(name):
    found = bench(name)
    assert found.name == name and found.title and found.scorers
    assert set(found.expected) - {""} <= set(found.group_by)
    assert set(found.comparable) <= set(found.versions.values())


@pytest.mark.parametrize("name", ["mmau", "mmsu", "mmar", "big-bench-audio", "spoken-mqa"])
def test_the_groups_of_a_benchmark_sum_up_to_all_of_it(name):
    expected = bench(name).expected
    assert {sum(values.values()) for values in expected.values()} == {expected[""][""]}


def test_an_import_shows_counts_what_is_wrong_and_the_next_step(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    (path / "test-mini-audios" / "00-mmau.wav").unlink()
    result = run("import", "auto", path, "-o", tmp_path / "out", "--allow-missing")
    assert result.exit_code == 0
    assert result.stdout.startswith("MMAU, test-mini: 7 questions, 0.00 h of sound, version unknown/")
    assert "  task          sound                                  2, expected 333\n" in result.stdout
    told = "\nitems not paper-comparable: an unknown version, published numbers are of v05.15.25; 1 items"
    assert told in result.stdout
    assert result.stdout.endswith(f"audio-r1 eval run {tmp_path / 'out'}\n")
    assert result.stderr.startswith("left out: mmau:test-mini:00-mmau: ")


def test_as_json_the_report_alone_is_on_stdout(tmp_path):
    result = run("import", "generic", layouts.generic(tmp_path / "p"), "-o", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert read_report(tmp_path / "out").items == 4


def test_the_world_is_made_without_a_path(tmp_path):
    result = run("import", "acoustic-world", "-o", tmp_path / "out", "--n", 1, "--seed", 5)
    assert result.exit_code == 0 and "comparable" not in result.stdout
    assert len(list((tmp_path / "out" / "audio").glob("seed-5_*.wav"))) == read_report(tmp_path / "out").items


@pytest.mark.parametrize(("arguments", "message"), [
    (("mmau", "{}"), "no mmau-test-mini.json"), (("nothing", "{}"), "no benchmark 'nothing'; there are mmau"),
    (("auto", "{}"), "no benchmark has this layout"), (("mmau",), "give the path of your download"),
])  # fmt: skip
def test_faults_are_one_line_and_exit_code_1(tmp_path, arguments, message):
    arguments = [a.format(tmp_path) for a in arguments]
    result = run("import", *arguments, "-o", tmp_path / "out")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("Error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_auto_needs_something_to_look_at(tmp_path):
    result = run("import", "auto", "-o", tmp_path)
    assert result.exit_code == 2 and "give the PATH" in result.stderr
