"""MLX as if it stood on Metal, for the kernels built and called in a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from tests.metalsim.findings import LaunchReport
from tests.metalsim.options import options
from tests.metalsim.signature import KernelText


@dataclass(eq=False)
class Simulation:
    """What ran: every launch in its order, and every kernel's own text by its name."""

    launches: list[LaunchReport] = field(default_factory=list)
    kernels: dict[str, KernelText] = field(default_factory=dict)

    @property
    def last(self) -> LaunchReport:
        return self.launches[-1]

    def count(self, kernel: str) -> int:
        return sum(launch.kernel == kernel for launch in self.launches)


_running: list[Simulation] = []


def record(text: KernelText, report: LaunchReport) -> None:
    """A launch is seen by every simulation around it."""
    for simulation in _running:
        simulation.launches.append(report)
        simulation.kernels[text.name] = text


@contextmanager
def simulated(**changes: Any) -> Iterator[Simulation]:
    """Kernels run in the simulator: mx.fast.metal_kernel builds simulated ones, mx.metal.is_available() says
    yes, and mx.compile compiles nothing, because a simulated kernel needs its inputs' values. Changes are those
    of Options. A kernel must be built inside of such a block; it may be kept and called in a later one.
    """
    from tests.metalsim.kernel import metal_kernel

    simulation = Simulation()
    with ExitStack() as stack:
        stack.enter_context(patch.object(mx.fast, "metal_kernel", metal_kernel))
        stack.enter_context(patch.object(mx.metal, "is_available", lambda: True))
        stack.enter_context(options(**changes))
        stack.callback(_end, simulation)
        _running.append(simulation)
        mx.disable_compile()
        yield simulation


def _end(simulation: Simulation) -> None:
    _running.remove(simulation)
    if not _running:
        mx.enable_compile()
