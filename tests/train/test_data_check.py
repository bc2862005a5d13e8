"""A data set with every fault in it: each is found, with its line, and what is sound is counted."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import DataError
from mlx_audio_r1.train.data_check import CheckOptions, check
from tests.helpers import GOLDEN
from tests.train.data_sets import asked, tone, write_rows, write_wav

TINY = GOLDEN / "tiny-fp32"
GOOD = "<think>\nsteady\n</think>\nA tone"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Sounds of every kind."""
    folder = tmp_path_factory.mktemp("sounds")
    write_wav(folder / "a.wav", tone(1.0))
    write_wav(folder / "b.wav", tone(0.5, 880))
    write_wav(folder / "long.wav", tone(30.0, 500.3))
    write_wav(folder / "silent.wav", np.zeros(8_000))
    write_wav(folder / "short.wav", tone(0.02))
    shutil.copy(folder / "a.wav", folder / "copy.wav")
    (folder / "cut.wav").write_bytes((folder / "a.wav").read_bytes()[:20_044])
    (folder / "text.wav").write_text("no sound")
    return folder


@pytest.fixture
def found(tmp_path, clips):
    """Check these rows; in them {} is the folder of the sounds."""
    for clip in clips.iterdir():
        (tmp_path / clip.name).symlink_to(clip)

    def run(train, valid=(), **options):
        write_rows(tmp_path / "train.jsonl", train)
        if valid:
            write_rows(tmp_path / "valid.jsonl", valid)
        return check(tmp_path, TINY, CheckOptions(**options))

    return run


def told(faults, kind):
    """(line, text) of the faults of a kind."""
    return [(f.where.rpartition("/")[2], f.text) for f in faults if f.kind == kind]


def test_questions_without_replies_are_checked_too(found):
    rows = [{"prompt": f"<audio>Question {i}?", "solution": str(i), "audios": ["b.wav"]} for i in range(40)]
    report = found(rows)
    assert report.ok and report.splits["train"]["rows"]["prompt"] == 40


def test_what_is_sound_is_counted(found):
    rows = [asked("Q", GOOD, "a.wav", "b.wav"), asked("Q?", "A", "long.wav"), asked("2 + 2", "4"),
            {"prompt": "<audio>", "chosen": "A", "rejected": "B", "audios": ["b.wav"]},
            {"prompt": "<audio>", "solution": "A", "audios": ["b.wav"]}]  # fmt: skip
    report = found(rows, [asked("V", GOOD)])
    train = report.splits["train"]
    assert report.ok and train["lines"] == 5 and train["rows"] == {"sft": 3, "preference": 1, "prompt": 1}
    assert (train["clips"], train["files"], train["distinct_sounds"], train["text_only_rows"]) == (5, 3, 3, 1)
    assert train["longer_than_a_chunk"] == 1
    assert train["hours"] == round(31.5 / 3600, 4) and train["hours_heard"] == round(32.5 / 3600, 4)
    assert (train["with_reasoning"], train["without_reasoning"]) == (1, 3)
    # one token a byte, and one a special token: the frame of a prompt is 27, a reply 22 or "\n</think>\nA" 11
    assert train["tokens"]["max"] == 27 + len("Q?") + (313 + 2) + (63 + 2) + 11 + 1
    assert train["learnt_tokens"] == (22 + 1) + 4 * (11 + 1)
    assert {*report.splits["valid"]["tokens"].values()} == {27 + 1 + 23}  # of the only row


def test_every_fault_is_found_with_its_line(found):
    report = found([
        asked("Q", "A", "none.wav", "text.wav"), "not json", asked("Q", ""), asked("<audio>", "A"),
        asked("Q", "A", "none.wav"), {"text": "x"}, asked("Q " * 9_000, "A"), asked("Q" * 600, "A"),
        asked("Q " * 40_000, "A"), {"messages": [{"role": "user", "content": "Q"},
                                                 {"role": "assistant", "content": "A", "loss": False}]},
    ], max_seq_length=500)  # fmt: skip
    assert [(line, text.partition(": ")[2]) for line, text in told(report.errors, "audio")] == [
        ("train.jsonl:1", "no such file; check the path"),
        ("train.jsonl:1", told(report.errors, "audio")[1][1].partition(": ")[2]),
        ("train.jsonl:5", "no such file; check the path"),
    ]
    assert "not sound but text, beginning with 'no sound'" in told(report.errors, "audio")[1][1]
    lines = {kind: [line for line, _ in told(report.errors, kind)] for kind in
             ("json", "empty", "marks", "form", "long", "fit")}  # fmt: skip
    assert lines == {"json": ["train.jsonl:2"], "empty": ["train.jsonl:3"], "marks": ["train.jsonl:4"],
                     "form": ["train.jsonl:6"], "long": ["train.jsonl:7", "train.jsonl:8"],
                     "fit": ["train.jsonl:9", "train.jsonl:10"]}  # fmt: skip
    assert report.splits["train"]["errors"] == {"audio": 3, "json": 1, "empty": 1, "marks": 1, "form": 1,
                                                "long": 2, "fit": 2}  # fmt: skip
    assert not report.ok


def test_long_rows_that_will_be_dropped_are_listed_and_no_error(found):
    report = found([asked("Q", "A"), asked("Q" * 600, "A")], max_seq_length=500, over_long="drop")
    assert report.ok
    (long,) = report.splits["train"]["over_long"]
    assert long["where"].endswith("train.jsonl:2") and long["tokens"] == 27 + 600 + 12


def test_sounds_are_listened_to(found):
    names = ("silent.wav", "short.wav", "cut.wav", "a.wav", "copy.wav", "a.wav")
    rows = [asked("Q", "A", name) for name in names]
    report = found(rows)
    assert report.ok
    assert [line for line, _ in told(report.warnings, "silent")] == ["train.jsonl:1"]
    assert told(report.warnings, "short")[0][1].endswith("short.wav lasts 20 ms")
    assert "its header declares 32000 bytes" in told(report.warnings, "damaged")[0][1]
    ((line, text),) = told(report.warnings, "same_sound")
    assert line == "train.jsonl:5" and "copy.wav holds the same sound as" in text and "(" in text
    quick = found(rows, decode=False)
    assert not told(quick.warnings, "silent") and quick.splits["train"]["distinct_sounds"] == 5
    assert quick.splits["train"]["tokens"]["max"] == report.splits["train"]["tokens"]["max"]


def test_leaks_across_the_files_are_found_by_content(found):
    report = found([asked("Q", GOOD, "a.wav"), asked("R", GOOD, "b.wav")],
                   [asked("Q", GOOD, "copy.wav"), asked("S", GOOD, "copy.wav"), asked("T", GOOD, "long.wav")])
    ((line, text),) = told(report.warnings, "leak")
    assert line == "valid.jsonl:1" and "copy.wav is heard in" in text and "train.jsonl:1 too, there" in text
    assert told(report.warnings, "repeated")[0][0] == "valid.jsonl:1"  # the same question about the same sound


def test_repeats_and_contradictions(found):
    report = found([asked("Q", "A", "a.wav"), asked("Q", "A", "copy.wav"), asked("Q", "B", "a.wav"),
                    asked("Q", "<think>\nx\n</think>\na", "a.wav"), asked("Q", "B", "b.wav")])
    assert [line for line, _ in told(report.warnings, "repeated")] == ["train.jsonl:2"]
    ((line, text),) = told(report.warnings, "contradiction")
    assert line == "train.jsonl:3" and text.startswith("answers 'B' to what") and text.endswith("answers 'A'")


def test_habits_of_a_whole_file(found):
    same = [asked(f"Q{i}", "yes") for i in range(20)]
    report = found([*same, asked("\nQ", "<think>x</think>no", "a.wav"), asked("Q", "A " * 300)])
    assert told(report.warnings, "newline")[0][1].startswith("1 row has a newline behind <audio>")
    assert "inside a line" in told(report.warnings, "layout")[0][1]
    assert told(report.warnings, "unbalanced")[0][1].startswith("91% of the answers are 'yes'")
    assert "stands in one row" in told(report.warnings, "heavy")[0][1]


def test_lopsided_preferences(found):
    pair = {"chosen": "<think>\na long look at it\n</think>\nyes", "rejected": "no"}
    same = {"prompt": "Q", "chosen": "A", "rejected": "A"}
    report = found([*({"prompt": f"Q{i}", **pair} for i in range(20)), same])
    assert told(report.warnings, "length")[0][1].startswith("the chosen replies are 2.")
    assert "20 chosen replies reason where the rejected ones do not" in told(report.warnings, "reasoning")[0][1]
    assert told(report.warnings, "same")[0][0] == "train.jsonl:21"


def test_the_folder_as_a_whole(found, tmp_path):
    write_rows(tmp_path / "val.jsonl", [asked("Q", "A")])
    report = found([asked("Q", "A"), {"prompt": "Q"}])
    assert "no valid.jsonl" in told(report.warnings, "missing")[0][1]
    assert told(report.warnings, "unread")[0][0] == "val.jsonl"
    assert "1 sft, 1 prompt" in told(report.warnings, "kinds")[0][1]
    with pytest.raises(DataError, match="no train"):
        check(tmp_path / "..", TINY)


def test_samples_show_what_is_learnt(found):
    rows = [asked(f"Q{i}", GOOD, "a.wav") for i in range(30)]
    (one, two) = found(rows, sample=2).samples
    prompt, reply = one.pieces
    assert prompt[0].startswith("<|BOT|>human\n<audio_start><audio_patch>*13<audio_end>Q")
    assert prompt[0].endswith("assistant\n<think>\n") and reply == ("steady\n</think>\nA tone<|EOT|>", True)
    lines = [int(s.where.rpartition(":")[2]) for s in (one, two)]
    assert lines == sorted(lines) and [s.where for s in found(rows, sample=2).samples] == [one.where, two.where]
    preference = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    assert [s.what for s in found([preference], sample=5).samples] == ["chosen", "rejected"]


# The command


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "check", *map(str, arguments), "--model", str(TINY)])


def test_the_command_prints_the_report_and_its_exit_code_is_the_verdict(found, tmp_path):
    found([asked("Q", GOOD, "a.wav"), asked("Q", GOOD, "copy.wav")])
    done = run(tmp_path, "--sample", 1)
    assert done.exit_code == 0 and done.stderr == ""
    assert "rows          2 of 2 lines: 2 sft" in done.stdout
    assert "<think>\n⟦steady\n</think>\nA tone<|EOT|>⟧" in done.stdout
    assert "training will take this: 0 errors, 3 warnings" in done.stdout
    found([asked("Q", "A", "none.wav")] * 15)
    done = run(tmp_path)
    assert done.exit_code == 1 and "training will refuse this: 15 errors" in done.stdout
    assert done.stdout.count("no such file") == 10
    assert "and 5 more like these (audio); --json has all" in done.stdout


def test_json_has_every_problem(found, tmp_path):
    found([asked("Q", "A", "none.wav")] * 15)
    done = run(tmp_path, "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 1 and not report["ok"] and len(report["errors"]) == 15
    assert report["errors"][0].keys() == {"where", "kind", "text"} and report["model"] == str(TINY)
    assert report["splits"]["train"]["rows"] == {"sft": 15, "preference": 0, "prompt": 0}


def test_a_folder_without_rows_is_one_line(tmp_path):
    done = run(tmp_path)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_one_file_may_be_checked_by_itself(found, tmp_path):
    found([asked("Q", GOOD, "a.wav")])
    done = run(tmp_path / "train.jsonl")
    assert done.exit_code == 0 and "0 errors, 0 warnings" in done.stdout
