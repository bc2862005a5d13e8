"""Run any [[kernel]] of a Metal source, such as those in the headers of MLX's wheel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metalsim import compiler, launch, rewrite, simulate
from tests.metalsim.arrays import filled, to_mlx, to_numpy
from tests.metalsim.launch import Buffer, Program, Size
from tests.metalsim.options import current
from tests.metalsim.signature import KernelText, dtype_name

_KERNELS = "mlx/backend/metal/kernels/"
# What every kernel of MLX's includes already.
_GIVEN = frozenset(f"{_KERNELS}{n}.h" for n in ("utils", "bf16", "bf16_math", "complex", "defines", "logging"))


@dataclass(frozen=True)
class Output:
    shape: tuple[int, ...]
    dtype: mx.Dtype


def header_source(name: str) -> str:
    """The text of a header in MLX's wheel, e.g. `sdpa_vector.h`."""
    return (compiler.mlx_include() / _KERNELS / name).read_text(encoding="utf-8")


def run_header_kernel(
    source: str,
    kernel: str,
    template: str,
    buffers: Mapping[int, Any],
    sizes: tuple[Size, Size],
    constants: Mapping[str, int] | None = None,
) -> dict[int, mx.array]:
    """Outputs by buffer index. buffers: arrays, numpy scalars, bytes or Output; sizes: grid and threadgroup."""
    edited = current().edits.get(source, source)
    text = rewrite.function_constants(edited, constants or {})
    parameters = rewrite.kernel_parameters(text, kernel)
    folders = [compiler.HERE / "msl", compiler.mlx_include()]
    text = rewrite.to_cxx(rewrite.inline_includes(text, folders, set(_GIVEN), kernel))
    program = Program(kernel, f'#line 1 "{kernel}"\n{text}', kernel + template, parameters)
    done = launch.run(program, {i: _buffer(i, b) for i, b in buffers.items()}, *sizes)
    simulate.record(KernelText(kernel, (), (), source), done.report)
    done.must_be_clean()
    wanted = {i: dtype_name(b.dtype) for i, b in buffers.items() if isinstance(b, Output)}
    return {i: to_mlx(done.outputs[i], dtype) for i, dtype in wanted.items()}


def _buffer(index: int, value: Any) -> Buffer:
    name = f"buffer {index}"
    if isinstance(value, Output):
        start = filled(value.shape, dtype_name(value.dtype), None)
        return Buffer(name, start, writable=True, initialised=False)
    if isinstance(value, bytes):
        return Buffer(name, np.frombuffer(value, np.uint8))
    if isinstance(value, np.generic):
        return Buffer(name, np.array([value]))
    return Buffer(name, np.ascontiguousarray(to_numpy(value)[0]))
