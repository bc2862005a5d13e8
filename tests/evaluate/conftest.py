"""Nano, and questions about clips of the acoustic world, made once."""

import pytest

from tests.evaluate.world_run import write_items


@pytest.fixture(scope="session")
def nano():
    from mlx_audio_r1 import load

    return load("nano")


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "items"
    write_items(folder)
    return folder
