"""Which questions are worth learning from (section 4.3 of the paper)."""

import json
import shutil

import pytest
from click.testing import CliRunner

from mlx_audio_r1 import load
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.curate import Curation, curate
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import read_rollouts
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.watch import Silent
from tests.train.talker import talking_checkpoint, write_questions


@pytest.mark.parametrize(("curation", "samples", "kept"), [
    (Curation(), 8, [3, 4, 5, 6]), (Curation(), 16, [*range(6, 13)]), (Curation(), 4, [2, 3]),
    (Curation("failed"), 8, [0]), (Curation("all"), 8, [*range(9)]), (Curation(low=8, high=8), 8, [8]),
])  # fmt: skip
def test_right_replies_that_are_kept(curation, samples, kept):
    assert [passed for passed in range(samples + 1) if curation.keeps(passed, samples)] == kept


@pytest.mark.parametrize("given", [{"strategy": "hard"}, {"low": 6, "high": 3}, {"low": -1}, {"high": 9}])
def test_bounds_that_cannot_be_are_refused(given):
    with pytest.raises(TrainingError):
        Curation(**given)


# ---- whole


def config(data, out, **given):
    told = {"data": str(data), "adapter_path": str(out), "group_size": 4, "max_seq_length": 128,
            "value": "none", "max_completion_length": 6, **given}  # fmt: skip
    return resolve("rl", told, kind=RLConfig)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return talking_checkpoint(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture(scope="module")
def r1(checkpoint):
    return load(checkpoint)


@pytest.fixture(scope="module")
def everything(r1, questions, tmp_path_factory):
    """All questions, whatever became of them."""
    out = tmp_path_factory.mktemp("curated") / "all"
    return out, curate(r1, config(questions, out), out, Curation("all"))


def counts(out):
    return [json.loads(line) for line in (out / "pass_counts.jsonl").read_text().splitlines()]


def asked(row):
    parts = [part for turn in row.history for part in turn.message.parts]
    return [part if isinstance(part, str) else str(part.source) for part in parts]


def lines_of(path):
    return path.read_text().splitlines()


def test_counts_are_those_of_the_rollouts(everything):
    out, found = everything
    rollouts = read_rollouts(out / "rollouts.jsonl")
    assert found.questions == found.kept == found.sampled == 6 and len(rollouts) == 24
    for row in counts(out):
        own = [r for r in rollouts if r.prompt == row["prompt"]]
        assert row["samples"] == len(own) == 4 and row["kept"]
        assert row["passed"] == sum(r.scores["correct"] == 1 for r in own)
    assert sum(found.counts.values()) == 6
    assert len({row["passed"] for row in counts(out)}) > 1  # or the other tests would show little


def test_what_is_kept_are_the_questions_themselves(everything, questions):
    out, _ = everything
    before, after = list(read_rows(questions / "train.jsonl")), list(read_rows(out / "train.jsonl"))
    assert [row.columns["passed"] for row in after] == [row["passed"] for row in counts(out)]
    for old, new in zip(before, after, strict=True):
        assert asked(old) == asked(new) and new.kind == "prompt"
        assert {k: v for k, v in new.columns.items() if k != "passed"} == old.columns
    assert len(lines_of(out / "valid.jsonl")) == 2


def test_known_rollouts_are_counted_and_nothing_is_sampled(r1, questions, everything, tmp_path):
    out, _ = everything
    found = curate(r1, config(questions, tmp_path), tmp_path, Curation(low=1, high=6), out / "rollouts.jsonl")
    assert found.sampled == 0 and not (tmp_path / "rollouts.jsonl").exists()
    told = {row["prompt"]: row["passed"] for row in counts(out)}
    assert {row["prompt"]: row["kept"] for row in counts(tmp_path)} == {
        name: 1 * 4 <= passed * 8 <= 6 * 4 for name, passed in told.items()
    }
    assert found.kept == len(lines_of(tmp_path / "train.jsonl")) < 6


def test_only_what_has_no_rollouts_is_sampled(r1, questions, everything, tmp_path):
    out, _ = everything
    some = tmp_path / "some.jsonl"
    kept = [line for line in lines_of(out / "rollouts.jsonl") if "train.jsonl:6" not in line]
    some.write_text("\n".join(kept) + "\n")
    found = curate(r1, config(questions, tmp_path / "out"), tmp_path / "out", Curation("all"), some)
    assert found.sampled == 1
    assert {r.prompt for r in read_rollouts(tmp_path / "out/rollouts.jsonl")} == {"train.jsonl:6"}


class Stop(Silent):
    """Leaves in the middle of sampling."""

    def counting(self, what, done, total):
        if what == "replies" and done == 7:
            raise KeyboardInterrupt


def test_left_in_the_middle_it_goes_on(r1, questions, everything, tmp_path):
    told = config(questions, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        curate(r1, told, tmp_path, Curation("all"), watch=Stop())
    assert len(read_rollouts(tmp_path / "rollouts.jsonl")) == 7 and not (tmp_path / "train.jsonl").exists()
    torn = (tmp_path / "rollouts.jsonl").read_bytes()[:-9]
    (tmp_path / "rollouts.jsonl").write_bytes(torn)
    curate(r1, told, tmp_path, Curation("all"))
    def drawn(folder):
        return sorted((r.key, r.ids) for r in read_rollouts(folder / "rollouts.jsonl"))

    assert drawn(tmp_path) == drawn(everything[0])
    assert lines_of(tmp_path / "train.jsonl") == lines_of(everything[0] / "train.jsonl")


def test_replies_of_another_run_are_not_counted(r1, questions, everything, tmp_path):
    shutil.copytree(everything[0], tmp_path / "out")
    with pytest.raises(TrainingError, match="sampled with another seed"):
        curate(r1, config(questions, tmp_path / "out", seed=5), tmp_path / "out", Curation("all"))


def test_nothing_kept_is_said_in_one_line(r1, questions, everything, tmp_path):
    right = {row["passed"] for row in counts(everything[0])}
    absent = next(n for n in range(5) if n not in right)
    none = Curation(low=2 * absent, high=2 * absent)
    with pytest.raises(DataError, match=r"of 6 questions none is kept by moderate \(\d with"):
        curate(r1, config(questions, tmp_path), tmp_path, none, everything[0] / "rollouts.jsonl")
    assert not (tmp_path / "train.jsonl").exists()


def test_the_questions_are_never_written_over(r1, questions):
    with pytest.raises(DataError, match="holds the questions themselves"):
        curate(r1, config(questions, questions), questions)


def test_the_command(checkpoint, questions, everything, tmp_path):
    out, _ = everything
    command = ["data", "curate", str(questions), "-o", str(tmp_path / "out"), "--model", str(checkpoint),
               "--strategy", "all", "--max-seq-length", "128", "--rollouts", str(out / "rollouts.jsonl"),
               "--json"]  # fmt: skip
    said = CliRunner().invoke(cli, command)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["kept"] == 6 and told["folder"] == str(tmp_path / "out")
    bad = CliRunner().invoke(cli, [*command[:5], "--keep", "a-b"])
    assert bad.exit_code == 2 and "expected two numbers" in bad.output
