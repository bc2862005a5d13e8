"""The embedded model with its questions, made once."""

import pytest

from tests.mgrd.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("mgrd"))
