"""Nano, questions about clips of the acoustic world, and a run over them with all there is, made once."""

import pytest

from tests.evaluate.world_run import run_world, write_items

TASKS = ("source", "contour", "count", "compare", "loudness", "register", "first", "longer")
ALL = {"budgets": (0,), "controls": ("silence",), "grounding": "full"}


@pytest.fixture(scope="session")
def nano():
    from mlx_audio_r1 import load

    return load("nano")


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """Six questions, three of them with options."""
    folder = tmp_path_factory.mktemp("world") / "items"
    write_items(folder)
    return folder


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory):
    """Nine questions, five of them with options."""
    folder = tmp_path_factory.mktemp("large") / "items"
    write_items(folder, [(100 + i, TASKS[i % 8]) for i in range(9)])
    return folder


@pytest.fixture(scope="session")
def large_run(nano, large_folder, tmp_path_factory):
    return run_world(nano, large_folder, tmp_path_factory.mktemp("large_run") / "out", **ALL)
