"""The interface of mx.fast.metal_kernel, run by the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metalsim import launch, lint, rewrite, simulate
from tests.metalsim.arrays import filled, spanned, to_mlx, to_numpy
from tests.metalsim.findings import HEADER_LINE, Finding, SimulationError
from tests.metalsim.launch import Array, Buffer, Program, Size
from tests.metalsim.options import current
from tests.metalsim.signature import ArrayType, Generated, KernelText, Template, dtype_name, generate


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
    compile_options: dict[str, str] | None = None,
) -> SimulatedKernel:
    """As mx.fast.metal_kernel: a callable that launches the kernel, here in the simulator."""
    if not output_names:
        raise ValueError("[metal_kernel] Must specify at least one output.")
    given = compile_options or {}
    if set(given) - {"math_mode"} or given.get("math_mode", "safe") not in ("safe", "relaxed", "fast"):
        raise ValueError(f"[metal_kernel] bad compile_options {given}")
    text = KernelText(name, tuple(input_names), tuple(output_names), source, header, atomic_outputs)
    return SimulatedKernel(text, ensure_row_contiguous, given.get("math_mode") == "fast")


@dataclass(frozen=True)
class SimulatedKernel:
    text: KernelText
    ensure_row_contiguous: bool
    fast_math: bool

    def __call__(
        self,
        *,
        inputs: Sequence[Any],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: Size,
        threadgroup: Size,
        template: Template | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
    ) -> list[mx.array]:
        _same_count("inputs", inputs, self.text.input_names)
        _same_count("output_shapes", output_shapes, self.text.output_names)
        _same_count("output_dtypes", output_dtypes, self.text.output_names)
        text, dtypes = _edited(self.text), [dtype_name(d) for d in output_dtypes]
        arrays = [to_numpy(x) for x in inputs]
        if "float64" in (*dtypes, *(name for _, name in arrays)):
            raise ValueError(f"{text.name}: float64 is not supported on the GPU")
        made = _generate(text, arrays, dtypes, template)
        if verbose:
            print(made.text)
        if current().lint:
            _must_be_clean(text, made)
        shapes = [tuple(s) for s in output_shapes]
        buffers = self._inputs(text, [a for a, _ in arrays]) + _outputs(text, shapes, dtypes, init_value)
        done = launch.run(self._program(made), dict(enumerate(buffers)), _size(grid), _size(threadgroup))
        simulate.record(self.text, done.report)
        done.must_be_clean()
        return [to_mlx(a, dtype) for a, dtype in zip(done.outputs.values(), dtypes, strict=True)]

    def _program(self, made: Generated) -> Program:
        parameters = rewrite.kernel_parameters(made.text, made.name)
        return Program(self.text.name, rewrite.to_cxx(made.text), made.expression, parameters, self.fast_math)

    def _inputs(self, text: KernelText, arrays: Sequence[Array]) -> list[Buffer]:
        buffers = []
        for name, a in zip(text.input_names, arrays, strict=True):
            x = np.ascontiguousarray(a).reshape(a.shape) if self.ensure_row_contiguous else a
            extra: dict[str, Array] = {
                "shape": np.array(x.shape, np.int32),
                "strides": np.array([s // x.itemsize for s in x.strides], np.int64),
                "ndim": np.array([x.ndim], np.int32),
            }
            buffers.append(Buffer(name, spanned(x)))
            buffers += [Buffer(f"{name}_{e}", extra[e]) for e in text.extras(name) if x.ndim]
        return buffers


def _same_count(what: str, got: Sequence[Any], names: Sequence[str]) -> None:
    if len(got) != len(names):
        raise ValueError(f"[metal_kernel] Expected `{what}` to have size {len(names)} but got size {len(got)}.")


def _size(given: Sequence[int]) -> Size:
    x, y, z = map(int, given)
    return x, y, z


def _edited(text: KernelText) -> KernelText:
    edits = current().edits
    return replace(text, source=edits.get(text.source, text.source), header=edits.get(text.header, text.header))


def _generate(text: KernelText, arrays: Sequence[tuple[Array, str]], dtypes: Sequence[str],
              template: Template | None) -> Generated:
    types = [ArrayType(name, a.shape) for a, name in arrays]
    marks = f'#line {HEADER_LINE} "{text.name}.header"\n', f'#line 1 "{text.name}"\n'
    return generate(text, types, dtypes, template, marks)


def _outputs(text: KernelText, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str],
             init_value: float | None) -> list[Buffer]:
    initialised = init_value is not None
    return [
        Buffer(name, filled(shape, dtype, init_value), writable=True, initialised=initialised)
        for name, shape, dtype in zip(text.output_names, shapes, dtypes, strict=True)
    ]


def _must_be_clean(text: KernelText, made: Generated) -> None:
    found = _lint(text, made, current().metal)
    if found:
        raise SimulationError(text.name, [Finding("lint", f, text.name) for f in found])


@lru_cache(maxsize=512)
def _lint(text: KernelText, made: Generated, metal: tuple[int, int]) -> tuple[str, ...]:
    return (
        *(f"header, {x}" for x in lint.check_header(text.header, metal)),
        *lint.check_tokens(text.source, metal),
        *lint.check_includes(text.header, text.source),
        *lint.check_compile(rewrite.to_cxx(made.text), made.expression),
    )
