"""The source that mx.fast.metal_kernel makes, byte for byte: MLX 0.32.4, backend/common/metal_kernel.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx

MAX_CONSTANT_ARRAY_SIZE = 8  # smaller inputs stand in constant memory

TYPES = {
    "float32": "float", "float16": "float16_t", "bfloat16": "bfloat16_t", "complex64": "complex64_t",
    "bool": "bool", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t", "float64": "double",
}

_TRIPLES = """dispatch_threads_per_threadgroup grid_origin grid_size thread_position_in_grid
thread_position_in_threadgroup threadgroup_position_in_grid threadgroups_per_grid threads_per_grid
threads_per_threadgroup"""
_NUMBERS = """dispatch_quadgroups_per_threadgroup dispatch_simdgroups_per_threadgroup
quadgroup_index_in_threadgroup quadgroups_per_threadgroup simdgroup_index_in_threadgroup
simdgroups_per_threadgroup thread_execution_width thread_index_in_quadgroup
thread_index_in_simdgroup thread_index_in_threadgroup threads_per_simdgroup"""
ATTRIBUTES = dict(sorted([(a, "uint3") for a in _TRIPLES.split()] + [(a, "uint") for a in _NUMBERS.split()]))

Template = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class KernelText:
    """What a kernel is made of, as given to mx.fast.metal_kernel."""

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    source: str
    header: str = ""
    atomic_outputs: bool = False

    def extras(self, name: str) -> list[str]:
        """Which of shape, strides and ndim the source names; a substring counts, even in a comment."""
        return [extra for extra in ("shape", "strides", "ndim") if f"{name}_{extra}" in self.source]


@dataclass(frozen=True)
class ArrayType:
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def constant(self) -> bool:
        return prod(self.shape) < MAX_CONSTANT_ARRAY_SIZE

    @property
    def suffix(self) -> str:
        return TYPES[self.dtype] + ("s" if not self.shape else "c" if self.constant else "")


def dtype_name(dtype: mx.Dtype) -> str:
    return str(dtype).rsplit(".", 1)[-1].rstrip("_")


@dataclass(frozen=True)
class Generated:
    name: str           # the function's
    expression: str     # with its template arguments
    text: str           # all of it, but for
    instantiation: str


def generate(
    kernel: KernelText,
    inputs: Sequence[ArrayType],
    outputs: Sequence[str],
    template: Template | None = None,
    marks: tuple[str, str] = ("", ""),
) -> Generated:
    """MLX's text for these types; marks stand before the header and before the body (`#line`)."""
    arguments = ", ".join(_argument(v) for _, v in template or ())
    name = "_".join([
        f"custom_kernel_{kernel.name}",
        *([f"_{arguments}".replace(", ", "_").replace("-", "_")] if template else []),
        *(i.suffix for i in inputs), *(TYPES[o] for o in outputs),
    ])
    expression = f"{name}<{arguments}>" if template else name
    head = f"template <{', '.join(_parameter(n, v) for n, v in template)}>\n" if template else ""
    signature = f"[[kernel]] void {name}(\n{_parameters(kernel, inputs, outputs)}"
    text = f"{marks[0]}{kernel.header}{head}{signature}{marks[1]}{kernel.source}\n}}\n"
    made = f'\ntemplate [[host_name("{name}")]] [[kernel]] decltype({expression}) {expression};\n'
    return Generated(name, expression, text, made if template else "")


def _argument(value: Any) -> str:
    return str(int(value)) if isinstance(value, int) else TYPES[dtype_name(value)]


def _parameter(name: str, value: Any) -> str:
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "typename"
    return f"{kind} {name}"


def _buffers(kernel: KernelText, inputs: Sequence[ArrayType], outputs: Sequence[str]) -> list[str]:
    spelled = {"shape": "int*", "strides": "int64_t*", "ndim": "int&"}
    found = []
    for name, array in zip(kernel.input_names, inputs, strict=True):
        space, mark = "constant" if array.constant else "device", "*" if array.shape else "&"
        found.append(f"const {space} {TYPES[array.dtype]}{mark} {name}")
        if array.shape:
            found += [f"const constant {spelled[e]} {name}_{e}" for e in kernel.extras(name)]
    for name, dtype in zip(kernel.output_names, outputs, strict=True):
        kind = f"atomic<{TYPES[dtype]}>" if kernel.atomic_outputs else TYPES[dtype]
        found.append(f"device {kind}* {name}")
    return found


def _parameters(kernel: KernelText, inputs: Sequence[ArrayType], outputs: Sequence[str]) -> str:
    """MLX compares a buffer's index with the number of arrays, so that with shape, strides or ndim, several
    outputs and no attribute the list is closed too early, and the kernel does not compile. The same here."""
    buffers = _buffers(kernel, inputs, outputs)
    attributes = [f"  {t} {a} [[{a}]]" for a, t in ATTRIBUTES.items() if a in kernel.source]
    text = ""
    for i, buffer in enumerate(buffers):
        is_output = i >= len(buffers) - len(outputs)
        more = not is_output or i < len(inputs) + len(outputs) - 1 or attributes
        text += f"  {buffer} [[buffer({i})]]" + (",\n" if more else ") {\n")
    return text + ",\n".join(attributes) + (") {\n" if attributes else "")
