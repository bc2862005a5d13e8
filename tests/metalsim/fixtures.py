"""The fixture for tests of kernels. tests/conftest.py makes it known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.metalsim.compiler import why_unavailable
from tests.metalsim.on_metal import on_metal
from tests.metalsim.simulate import Simulation, simulated


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """Metal, simulated with every check and the lint for the length of a test; a skip if nothing compiles.
    With --on-metal it is Metal itself."""
    if request.config.getoption("--on-metal"):
        with on_metal() as running:
            yield running
        return
    if reason := why_unavailable():
        pytest.skip(f"{reason}; on a Mac with a GPU: --on-metal")
    with simulated(lint=True) as running:
        yield running
