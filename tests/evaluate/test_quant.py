"""Checkpoints against a reference, on nano, nano in bits, and nano again."""

import json

import mlx.nn as nn
import pytest
from click.testing import CliRunner

from mlx_audio_r1 import load
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.choosing import Choosing
from mlx_audio_r1.evaluate.importing import ImportOptions
from mlx_audio_r1.evaluate.quant import DISTRIBUTIONS, DIVERGENCES, MARKDOWN, TABLE, Checkpoint, Work, quant
from mlx_audio_r1.evaluate.results import ITEMS, RESULTS
from mlx_audio_r1.evaluate.run import Running

WORK = Work(("acoustic-world",), Running(grounding="off"), Choosing(limit=6), ImportOptions(per_task=1))
THREE = [Checkpoint("whole", "nano"), Checkpoint("again", "nano"), Checkpoint("2bit", "2")]


def open_model(name):
    """nano; of a number, nano's MLPs in so many bits."""
    r1 = load()
    if name.isdigit():
        for layer in r1.model.language_model.layers:
            nn.quantize(layer.mlp, group_size=32, bits=int(name))
    return r1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("quant")
    return out, quant(THREE, WORK, out, open_model)


def test_every_checkpoint_is_held_against_the_first(made):
    _, table = made
    whole, again, bits = table["rows"]
    assert table["reference"] == whole["name"] == "whole" and (again["name"], bits["name"]) == ("again", "2bit")
    assert "kl" not in whole and "difference" not in whole["benches"]["acoustic-world"]
    assert again["kl"][0] == pytest.approx(0, abs=1e-6) and again["agreement"][0] == 1.0
    same = again["benches"]["acoustic-world"]
    assert tuple(same["difference"]) == (0.0, 0.0, 0.0) and same["p"] == 1.0 and same["n"] == 6
    low, high = bits["kl"][1:]
    assert 1e-3 < low < bits["kl"][0] < high and bits["places"] == again["places"] > 60
    assert bits["bytes"] < whole["bytes"] == again["bytes"]


def test_the_table_is_in_two_files(made):
    out, table = made
    assert json.loads((out / TABLE).read_text())["rows"][2]["kl"] == pytest.approx(list(table["rows"][2]["kl"]))
    lines = (out / MARKDOWN).read_text().splitlines()
    assert len(lines) == 5 and lines[2].startswith("| acoustic-world | whole |") and "| reference |" in lines[2]
    assert "% (" in lines[4]
    assert len(list((out / "whole" / DISTRIBUTIONS).iterdir())) == 6


def test_the_same_again_makes_no_row_anew(made):
    """Cut at places where a kill may leave it: a divergence torn, a distribution missing."""
    out, table = made
    before = {name: (out / name / RESULTS).read_bytes() for name in ("whole", "again", "2bit")}
    file = out / "2bit" / DIVERGENCES
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    next((out / "whole" / DISTRIBUTIONS).iterdir()).unlink()
    found = quant(THREE, WORK, out, open_model)
    assert {name: (out / name / RESULTS).read_bytes() for name in before} == before
    assert file.read_bytes() == whole
    for old, new in zip(table["rows"], found["rows"], strict=True):
        assert {**new, "wall_seconds": 0} == {**old, "wall_seconds": 0}


@pytest.mark.parametrize("given", [THREE[:1], [THREE[0], THREE[0]]])
def test_names_must_differ(tmp_path, given):
    with pytest.raises(EvaluationError, match="two or more, each with a name of its own"):
        quant(given, WORK, tmp_path, open_model)
    assert not list(tmp_path.iterdir())


def test_the_command_asks_as_many_of_each_task_as_it_is_told(tmp_path):
    given = "eval quant acoustic-world --per-task 1 --max-tokens 4 --model a=nano --model b=nano -o"
    done = CliRunner().invoke(cli, [*given.split(), str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "a" / ITEMS).read_text().splitlines()) == 16  # of 16 tasks


def test_a_checkpoint_that_is_not_there_is_said_before_the_first_is_asked(tmp_path):
    out = tmp_path / "q"
    asked = ["eval", "quant", "acoustic-world", "--model", "nano", "--model", "b=gone", "-o", str(out)]
    run = CliRunner().invoke(cli, asked)
    assert run.exit_code == 1 and not out.exists()
    assert run.stderr == "Error: gone: no such folder; give a checkpoint folder or owner/name\n"
