"""Run MLX's custom Metal kernels on a CPU, with checks, without Metal. See README.md."""

from tests.metalsim.compiler import CompileError
from tests.metalsim.findings import Finding, LaunchReport, SimulationError, Traffic
from tests.metalsim.headers import Output, run_header_kernel
from tests.metalsim.kernel import metal_kernel
from tests.metalsim.mutate import MutationReport, mutation_test
from tests.metalsim.options import ORDERS, Options, options
from tests.metalsim.simulate import Simulation, simulated

__all__ = [
    "ORDERS",
    "CompileError",
    "Finding",
    "LaunchReport",
    "MutationReport",
    "Options",
    "Output",
    "Simulation",
    "SimulationError",
    "Traffic",
    "metal_kernel",
    "mutation_test",
    "options",
    "run_header_kernel",
    "simulated",
]
