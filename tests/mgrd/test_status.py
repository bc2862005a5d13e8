"""How far a run of MGRD is said to be, from its files."""

import json

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mgrd.status import duration, status
from tests.mgrd.run_folder import PHASES, a_run, write_object


@pytest.fixture
def run(tmp_path):
    return a_run(tmp_path / "run")


def of(folder, phases):
    write_object(folder / "state.json", {"phases": phases})
    return status(folder)


def test_phases_with_what_they_still_take(run):
    now = status(run)
    assert [phase.left for phase in now.phases] == [0, 0, 0, 0, 1_800, 3_600, 36_000]
    # 30 of 40 in 5,400 s; twice as many to filter as in round 1, which took 1,800 s; as long as round 1's
    assert now.running.name == "2/sample" and now.left == 41_400 and now.all_known
    assert now.seconds == 600 + 7_200 + 1_800 + 36_000 + 5_400


def test_counts_of_the_filters(run):
    first, second = status(run).filtered
    assert (first.round, first.candidates, first.kept) == (1, 44, 9) and second.kept == 13
    assert list(first.reasons) == ["verdict", "format", "lexicon", "coherence", "evidence", "judge", "surplus",
                                   "kept"]
    assert sum(first.reasons.values()) == 44


def test_lines_for_a_terminal(run):
    lines = status(run).lines()
    assert lines[0].startswith("first, ") and len(lines) == 1 + len(PHASES) + 2 + 1
    assert [" ".join(line.split()) for line in lines[4:7]] == [
        "done 1/rl 30 of 30 10 h, 2 retries",
        "running 2/sample 30 of 40 1 h 30 min, about 30 min left",
        "waiting 2/filter 0 of 80 about 1 h",
    ]
    assert "round 1: 9 of 44 samples kept (20 %); verdict 2, format 3" in lines[8]
    assert lines[-1].startswith("4 of 7 phases done in 14 h 10 min; about 11 h 30 min left; last written ")


def test_a_dict_for_json(run):
    found = json.loads(json.dumps(status(run).as_dict()))
    assert found["counts"] == {"done": 4, "running": 1, "waiting": 2, "failed": 0}
    assert found["running"] == "2/sample" and found["left"] == 41_400 and found["left_is_known"] is True
    assert found["phases"][4]["left"] == 1_800 and found["filtered"][0]["reasons"]["judge"] == 7


def test_what_nobody_knows_is_said_as_at_least(tmp_path):
    now = of(tmp_path, [{"name": "1/sample", "state": "running", "done": 1, "total": 3, "seconds": 60},
                        {"name": "1/rl", "state": "waiting", "done": 0, "total": 9, "seconds": 0}])  # fmt: skip
    assert [phase.left for phase in now.phases] == [120, None] and not now.all_known
    assert "at least 2 min left" in now.lines()[-1]
    done = {"name": "2/sample", "state": "done", "done": 3, "total": 3, "seconds": 60}
    other = of(tmp_path, [done, {"name": "self/sample", "state": "waiting"}, {"name": "3/sample"}])
    assert [phase.left for phase in other.phases] == [0, None, 60]  # self/sample is no round's
    nothing = of(tmp_path, [{"name": "1/sample", "state": "running"}])
    assert nothing.phases[0].left is None and "what is left is not known yet" in nothing.lines()[-1]


def test_a_run_that_is_over_or_failed(tmp_path):
    over = of(tmp_path, [{"name": "1/rl", "state": "done", "done": 5, "total": 5, "seconds": 61}])
    assert over.lines()[-1] == "1 of 1 phases done in 1 min 1 s" and over.left == 0
    phase = {"name": "1/rl", "state": "failed", "done": 1, "total": 2, "seconds": 10, "note": "disk"}
    failed = of(tmp_path, [phase])
    assert "failed: 1/rl" in failed.lines()[-1] and failed.running is None and "disk" in failed.lines()[1]


def test_a_run_that_has_only_a_config_or_an_odd_state(tmp_path):
    write_object(tmp_path / "mgrd.json", {"name": "new"})
    assert status(tmp_path).lines() == [f"new, {tmp_path}", "no phase has begun"]
    odd = of(tmp_path, ["?", {"state": "done"}, {"name": "1/sft", "done": None, "seconds": "long"}])
    assert [phase.name for phase in odd.phases] == ["1/sft"] and odd.phases[0].state == "waiting"
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(TrainingError, match=r"state.json: not JSON"):
        status(tmp_path)


def test_the_command(run, tmp_path):
    told = CliRunner().invoke(cli, ["mgrd", "status", str(run)])
    assert told.exit_code == 0 and "running  2/sample" in told.output
    facts = json.loads(CliRunner().invoke(cli, ["mgrd", "status", str(run), "--json"]).output)
    assert facts["name"] == "first"
    none = CliRunner().invoke(cli, ["mgrd", "status", str(tmp_path)])
    assert none.exit_code == 1 and "no mgrd.json and no state.json; give the folder" in none.output


@pytest.mark.parametrize(("seconds", "words"), [
    (0.2, "0 s"), (61, "1 min 1 s"), (3_600, "1 h"), (3_725, "1 h 2 min"), (93_784, "1 day 2 h"),
    (200_000, "2 days 7 h"),
])
def test_durations_as_people_say_them(seconds, words):
    assert duration(seconds) == words
