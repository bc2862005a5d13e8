"""`audio-r1 eval run` and `score` as a person calls them, from a download to the report."""

import json

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import import_bench
from tests.evaluate import layouts, layouts_second

SHORT = ["--model", "nano", "-m", "40", "--temp", "0", "--grounding", "off"]
FILES = {"imports", "items.jsonl", "results.jsonl", "run.json", "scores.jsonl", "summary.json", "report.html",
         "report.md", "predictions", "grounding.jsonl"}  # fmt: skip


def called(*arguments):
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)])


def imported(folder, names):
    """Folders of imports of these layouts."""
    made = []
    for name in names:
        known = {**layouts.LAYOUTS, **layouts_second.LAYOUTS}[name]
        (folder / name).mkdir(parents=True)
        import_bench(bench(known[0]), known[1](folder / name), folder / f"{name}-in")
        made.append(folder / f"{name}-in")
    return made


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return imported(tmp_path_factory.mktemp("downloads"), ["mmau-json", "big-bench"])


def test_from_an_import_to_the_report(folders, tmp_path):
    out = tmp_path / "out"
    asked = ["run", *folders, "-o", out, *SHORT, "--limit", "3"]
    found = called(*asked, "--json")
    assert found.exit_code == 0, found.output
    summary = json.loads(found.stdout)
    assert summary["benches"].keys() == {"mmau", "big-bench-audio"}
    assert all(own["items"] == 3 and own["replies"] == 3 for own in summary["benches"].values())
    assert {p.name for p in out.iterdir()} == FILES - {"imports", "grounding.jsonl"} | {".lock"}
    assert "3 of 8 items" in summary["benches"]["mmau"]["comparable"]["reasons"]
    rows = (out / "results.jsonl").read_bytes()
    again = called(*asked)
    assert again.exit_code == 0 and (out / "results.jsonl").read_bytes() == rows
    assert again.stdout.splitlines()[1].split()[:2] == ["mmau", "3"]
    assert "mmau: not paper-comparable: an unknown version" in again.stderr
    other = called(*asked, "--temp", "0.5")
    assert other.exit_code == 1 and "another mmau temperature (0.0, now 0.5)" in other.stderr
    assert other.stderr.strip().count("\n") <= 2  # nano says what it is, and one line
    score = called("score", out, "--json")
    assert score.exit_code == 0 and json.loads(score.stdout) == summary


def test_a_reply_that_is_an_error_is_told_by_the_exit_code(folders, tmp_path):
    place = tmp_path / "import"
    place.mkdir()
    lines = (folders[0] / "items.jsonl").read_text().splitlines(keepends=True)
    (place / "items.jsonl").write_text(lines[0])  # its sound is not here
    found = called("run", place, "-o", tmp_path / "out", *SHORT)
    assert found.exit_code == 3 and "1 replies are errors; --retry-failed" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["run", "mmau", "-o", "OUT"], "audio-r1 eval import mmau PATH -o DIR"),
     (["run", "nowhere", "-o", "OUT"], "no such file, folder or benchmark"),
     (["run", "acoustic-world", "-o", "OUT", "--budgets", "a"], "numbers of tokens with commas"),
     (["run", "acoustic-world", "-o", "OUT", "--controls", "quiet"], "no control 'quiet'"),
     (["run", "acoustic-world", "-o", "OUT", "--temp", "-1"], "temperature is -1.0"),
     (["score", "OUT"], "give a folder of audio-r1 eval run")],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(arguments, said, tmp_path):
    found = called(*(tmp_path / "out" if a == "OUT" else a for a in arguments))
    assert found.exit_code == 1 and said in found.stderr and found.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path):
    both = called("run", "acoustic-world", "-o", tmp_path / "out", "--preset", "mini", "--limit", "3")
    assert both.exit_code == 2 and "exclude each other" in both.stderr
    assert called("score", tmp_path, "--judge-model", "gpt-4o-mini").exit_code == 2
    wrong = called("score", tmp_path, "--judge", "file", "--judge-prompt", "prompt.txt")
    assert wrong.exit_code == 2 and "SCORER=FILE" in wrong.stderr


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Glyph")  # of Chinese groups, where no font has them
def test_every_layout_from_its_download_to_the_report(tmp_path):
    first = {known[0]: name for name, known in {**layouts.LAYOUTS, **layouts_second.LAYOUTS}.items()}
    out = tmp_path / "out"
    found = called("run", *imported(tmp_path, first.values()), "self-cognition", "--per-task", "1", "-o", out,
                   *SHORT, "--limit", "3", "--controls", "silence", "--budgets", "0", "--json")  # fmt: skip
    assert found.exit_code == 0, found.output
    benches = json.loads(found.stdout)["benches"]
    assert benches.keys() == {*first, "self-cognition"} and len(benches) >= 26
    for name, own in benches.items():
        assert own["errors"] == 0 and own["replies"] == own["items"] > 0
        if own["comparable"]["reasons"][-1] != "not judged":
            primary = own["scorers"][own["primary"]]
            assert primary["n"] + primary["left_out"] == own["items"], name
