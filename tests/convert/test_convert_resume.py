"""Killed, starved or interrupted, the same command goes on, and the bytes are the same."""

from __future__ import annotations

import random
import shutil
import time

import pytest

from tests.convert.checkpoints import BF16, copy_of, folder_bytes

SMALL = {"shard_bytes": 250_000}  # eight output shards of the tiny checkpoint
Q4 = {"quantize": True}


@pytest.fixture(scope="module")
def reference(driver, tmp_path_factory):
    """What an uninterrupted run makes, and how many file operations it takes."""
    out = tmp_path_factory.mktemp("reference") / "out"
    answer = driver.run(BF16, out, recipe=Q4, options=SMALL)
    assert answer["ok"] == str(out)
    return folder_bytes(out), answer["changes"]


def check_half_made(target) -> None:
    """No config.json where a loader would look, unless the folder is whole."""
    partial = target.with_name("out.partial")
    assert not (partial / "config.json").exists()
    if target.exists():
        assert (target / "config.json").exists()


def kill_at(driver, reference, tmp_path, moments) -> None:
    expected, _ = reference
    target = tmp_path / "out"
    for moment in moments:
        assert driver.run(BF16, target, recipe=Q4, options=SMALL, kill_at=moment) == {}
        check_half_made(target)
        answer = driver.run(BF16, target, recipe=Q4, options=SMALL)
        if moment < reference[1] - 1:
            assert answer.get("ok") == str(target), (moment, answer)
        else:  # all was done but the removal of an empty folder
            assert "exists" in answer["error"]
        assert folder_bytes(target) == expected, moment
        assert list(tmp_path.iterdir()) == [target], moment
        shutil.rmtree(target)


def test_killed_before_any_of_the_last_file_operations(driver, reference, tmp_path):
    """Writing config.json, renaming into place and cleaning up are the delicate moments."""
    count = reference[1]
    kill_at(driver, reference, tmp_path, range(count - 20, count))


def test_killed_before_a_sample_of_file_operations(driver, reference, tmp_path):
    kill_at(driver, reference, tmp_path, range(1, reference[1] - 20, 4))


@pytest.mark.long
def test_killed_before_every_file_operation(driver, reference, tmp_path):
    kill_at(driver, reference, tmp_path, range(1, reference[1]))


def kill_at_random(driver, reference, tmp_path, kills, rounds, seed) -> None:
    rng = random.Random(seed)
    expected, _ = reference
    target = tmp_path / "out"

    def moment() -> None:
        time.sleep(rng.uniform(0, 0.3))

    for _ in range(rounds):
        for _ in range(kills):
            driver.run_and_kill(BF16, target, moment, recipe=Q4, options=SMALL, step_delay=0.008)
            check_half_made(target)
            if target.exists():  # the kill came too late, or so late that only the cleaning up was left
                break
        whole = target.exists()
        answer = driver.run(BF16, target, recipe=Q4, options=SMALL)
        assert "exists" in answer["error"] if whole else answer["ok"] == str(target)
        assert folder_bytes(target) == expected
        shutil.rmtree(target)


def test_killed_at_random_moments_again_and_again(driver, reference, tmp_path):
    kill_at_random(driver, reference, tmp_path, kills=4, rounds=3, seed=1)


@pytest.mark.long
def test_killed_at_random_moments_two_hundred_times(driver, reference, tmp_path):
    kill_at_random(driver, reference, tmp_path, kills=5, rounds=40, seed=2)


def test_a_resumed_run_keeps_what_was_done(driver, reference, tmp_path):
    """It says so, and does not start at the first tensor again."""
    target = tmp_path / "out"
    assert driver.run(BF16, target, recipe=Q4, options=SMALL, kill_after=60) == {}
    answer = driver.run(BF16, target, recipe=Q4, options=SMALL)
    (line,) = answer["said"]
    done = int(line.split(" of ")[0].rpartition(" ")[2])
    # The notes are as old as the last finished shard, source or output.
    assert line.startswith("going on with") and 40 < done < 60
    assert folder_bytes(target) == reference[0]


def test_other_options_are_refused_until_forced(driver, tmp_path):
    target = tmp_path / "out"
    driver.run(BF16, target, recipe=Q4, options=SMALL, kill_after=60)
    answer = driver.run(BF16, target, recipe={"quantize": True, "bits": 8}, options=SMALL)
    assert answer["kind"] == "CheckpointError"
    assert f"unfinished conversion of {BF16} -q; give those options" in answer["error"]
    answer = driver.run(BF16, target, recipe={"quantize": True, "bits": 8}, options={"force": True})
    assert answer["ok"] and answer["said"][0].startswith("starting over")
    assert b'"bits": 8' in (target / "config.json").read_bytes()


def test_a_source_that_changed_meanwhile_is_refused_until_forced(driver, tmp_path):
    source, target = copy_of(BF16, tmp_path / "in"), tmp_path / "out"
    driver.run(source, target, recipe=Q4, options=SMALL, kill_after=60)
    shard = source / "model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    answer = driver.run(source, target, recipe=Q4, options=SMALL)
    assert "has changed since; start over with --force" in answer["error"]
    assert driver.run(source, target, recipe=Q4, options={"force": True})["ok"]


def test_damaged_unfinished_shard_is_noticed(driver, tmp_path):
    target = tmp_path / "out"
    driver.run(BF16, target, recipe=Q4, options=SMALL, kill_after=60)
    newest = sorted((tmp_path / "out.partial" / "model").glob("*.safetensors"))[0]
    newest.write_bytes(newest.read_bytes()[:50])
    answer = driver.run(BF16, target, recipe=Q4, options=SMALL)
    assert answer["kind"] == "CheckpointError" and "--force" in answer["error"]


def test_full_disk_is_one_line_and_the_next_run_goes_on(driver, reference, tmp_path):
    """RLIMIT_FSIZE stops a write in the middle of a tensor, as a full disk does."""
    target = tmp_path / "out"
    answer = driver.run(BF16, target, recipe=Q4, options=SMALL, file_limit=150_000)
    assert answer["kind"] == "DiskError"
    assert answer["error"].endswith(
        "the disk is full; make room and run the same command again, it goes on where it stopped"
    )
    assert not target.exists()
    assert driver.run(BF16, target, recipe=Q4, options=SMALL)["ok"]
    assert folder_bytes(target) == reference[0]


def test_no_right_to_write_is_one_line(driver, tmp_path):
    (tmp_path / "file").write_text("")
    answer = driver.run(BF16, tmp_path / "file" / "out", recipe=Q4)
    assert answer["kind"] == "DiskError" and "\n" not in answer["error"]


def test_killed_while_replacing_a_finished_folder(driver, reference, tmp_path):
    """At every moment there is the old folder, the new one, or a run that brings the new one."""
    target = tmp_path / "out"
    options = {**SMALL, "force": True}
    driver.run(BF16, target)
    count = driver.run(BF16, target, recipe=Q4, options=options)["changes"]
    for moment in range(count - 12, count):
        driver.run(BF16, target, options={"force": True})
        assert driver.run(BF16, target, recipe=Q4, options=options, kill_at=moment) == {}
        assert driver.run(BF16, target, recipe=Q4, options=options)["ok"], moment
        assert folder_bytes(target) == reference[0]
        assert list(tmp_path.iterdir()) == [target]


def test_two_conversions_into_one_folder_do_not_mix(driver, tmp_path):
    import fcntl

    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{}")
    with open(partial / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = driver.run(BF16, tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "DiskError" and "another conversion" in answer["error"]
