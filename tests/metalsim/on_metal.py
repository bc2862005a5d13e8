"""The same tests on a real GPU: `pytest tests/kernels --on-metal` on a Mac.

Kernels are built and launched by MLX itself, and only counted. What the simulator alone knows (bytes of a
buffer, threadgroup memory, the text of a kernel to be broken on purpose) skips the test that asks for it;
orders of lanes and limits that a test sets have no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import pytest

from tests.metalsim.findings import Finding

_running: list[OnMetal] = []


class _Known:
    """What is not among its fields is known to the simulator alone."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        pytest.skip(f"`{name}` is known in the simulator alone")


@dataclass
class MetalLaunch(_Known):
    kernel: str
    findings: list[Finding] = field(default_factory=list)  # none: nothing looks for any


@dataclass(eq=False)
class OnMetal(_Known):
    """Stands for a Simulation."""

    launches: list[MetalLaunch] = field(default_factory=list)

    @property
    def last(self) -> MetalLaunch:
        return self.launches[-1]

    def count(self, kernel: str) -> int:
        return sum(launch.kernel == kernel for launch in self.launches)


@contextmanager
def on_metal() -> Iterator[OnMetal]:
    """Count the launches of kernels that are built in such a block and called in it or in a later one."""
    if not mx.metal.is_available():
        pytest.fail("--on-metal, and there is no Metal here")
    running, real = OnMetal(), mx.fast.metal_kernel

    def metal_kernel(name: str, *given: Any, **named: Any) -> Callable[..., Any]:
        built = real(name, *given, **named)

        def launch(*arrays: Any, **options: Any) -> Any:
            for counting in _running:
                counting.launches.append(MetalLaunch(name))
            return built(*arrays, **options)

        return launch

    _running.append(running)
    try:
        with patch.object(mx.fast, "metal_kernel", metal_kernel):
            yield running
    finally:
        _running.remove(running)
