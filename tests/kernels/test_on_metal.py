"""What stands for the simulation on a Mac's GPU: it counts launches, and skips what it cannot know."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.metalsim.on_metal import on_metal
from tests.metalsim.simulate import Simulation


def test_launches_are_counted_and_the_rest_is_skipped(simulation: Simulation) -> None:
    with on_metal() as running:
        twice = mx.fast.metal_kernel(name="twice", input_names=["x"], output_names=["out"],
                                     source="uint i = thread_position_in_grid.x; out[i] = 2.0f * x[i];")
        for _ in range(2):
            (out,) = twice(inputs=[mx.ones(9)], grid=(9, 1, 1), threadgroup=(9, 1, 1),
                           output_shapes=[(9,)], output_dtypes=[mx.float32])
    assert out.tolist() == [2.0] * 9
    assert running.count("twice") == len(running.launches) == 2 and running.last.findings == []
    for known in (lambda: running.last.traffic, lambda: running.last.steps, lambda: running.kernels):
        with pytest.raises(pytest.skip.Exception, match="is known in the simulator alone"):
            known()


@pytest.mark.skipif(mx.metal.is_available(), reason="there is Metal here")
def test_without_metal_it_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="no Metal here"), on_metal():
        pass
