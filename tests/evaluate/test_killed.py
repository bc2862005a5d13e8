"""A run killed at any moment, and started again, ends with the rows of one that nobody disturbed."""

import subprocess
import sys
import time

import numpy as np
import pytest

from mlx_audio_r1.evaluate.grounding_summary import read_measured
from mlx_audio_r1.evaluate.results import RESULTS
from tests.evaluate.world_run import rows, run_world, write_items

ASKED = {"budgets": (0, 6), "controls": ("silence",), "grounding": "fast", "seed": 3, "max_rows": 4,
         "settings": {"temperature": 0.7, "max_tokens": 120}}  # fmt: skip
OPTIONS = ["--no-progress", "--budgets", "0,6", "--controls", "silence", "--seed", "3", "--max-rows", "4",
           "--temp", "0.7", "-m", "120"]  # fmt: skip
LIBRARY = """
import sys
from pathlib import Path
from mlx_audio_r1 import load
from tests.evaluate.world_run import run_world
run_world(load("nano"), *map(Path, sys.argv[1:3]), **{asked!r})
"""
PROGRAM = "from mlx_audio_r1.cli.main import main; main()"


def started(*command):
    return subprocess.Popen([sys.executable, "-c", *map(str, command)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def lines(out):
    path = out / RESULTS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_after(process, out, more):
    """Kill it when so many lines have been added, wherever it is then; False where it ended before."""
    least = lines(out) + more
    while lines(out) < least and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    return process.returncode == -9


def same(torn, whole):
    """The same rows, and measures up to what another batch rounds otherwise."""
    assert rows(torn) == rows(whole)
    expected = {m.key: {name: pytest.approx(value, abs=1e-3) for name, value in m.values.items()}
                for m in read_measured(whole)}  # fmt: skip
    return {m.key: dict(m.values) for m in read_measured(torn)} == expected


def test_killed_among_the_budgets(nano, tmp_path):
    folder, whole, torn = (tmp_path / name for name in ("items", "whole", "torn"))
    write_items(folder, [(40, "count"), (41, "source")])
    process = started(LIBRARY.format(asked=ASKED), folder, torn)
    assert killed_after(process, torn, 1 + 2 + 1)
    there = len(rows(torn))
    assert 3 <= there < 8
    for out in (whole, torn):
        run_world(nano, folder, out, **ASKED)
    assert same(torn, whole) and len(rows(torn)) == 8


@pytest.mark.long
def test_killed_many_times_at_random(tmp_path):
    """Before the first row, between phases, within the grounding, in the middle of a line."""
    folder, whole, torn = (tmp_path / name for name in ("items", "whole", "torn"))
    write_items(folder, [(40 + i, ("count", "source", "compare")[i % 3]) for i in range(12)])

    def start(out):
        return started(PROGRAM, "eval", "run", folder, "-o", out, "--model", "nano", "-n", "2", *OPTIONS)

    rng = np.random.default_rng(0)
    died = sum(killed_after(start(torn), torn, more) for more in [0, *rng.integers(0, 12, 9).tolist(), 400])
    assert died >= 8
    for out in (whole, torn):
        process = start(out)
        assert b"acoustic-world" in process.communicate(timeout=280)[0] and process.returncode == 0
    assert same(torn, whole) and len(rows(whole)) == 12 * 2 * 4
