"""One launch: memory laid out with guard pages between buffers, the runtime called, its report read."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tests.metalsim import compiler, findings
from tests.metalsim.findings import WARNINGS, Finding, LaunchReport, SimulationError, Traffic
from tests.metalsim.options import ORDERS, Options, current
from tests.metalsim.signature import ATTRIBUTES

Size = tuple[int, int, int]
Array = np.ndarray[Any, Any]

PAGE = 4096
MAX_BUFFERS = 31
_WRITABLE, _INITIALISED = 1, 2
_FINE_CELLS = 1 << 18  # bytes up to which every byte is followed on its own

PROLOGUE = '#include "msl.h"\n#include "mlx/backend/metal/kernels/utils.h"\n'


@dataclass(frozen=True)
class Buffer:
    name: str
    array: Array
    writable: bool = False
    initialised: bool = True


@dataclass(frozen=True)
class Program:
    """A kernel ready to compile: C++ text, the call with its template arguments, the parameters."""

    name: str
    text: str
    call: str
    parameters: Sequence[tuple[str, str]]
    fast_math: bool = False


_U32, _U64, _POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Buffer(ctypes.Structure):  # MslBuffer of runtime/abi.h
    _fields_ = [
        ("start", _POINTER), ("size", _U64), ("flags", _U32), ("granule", _U32), ("name", ctypes.c_char_p),
        ("bytes_read", _U64), ("bytes_written", _U64),
    ]


class _Launch(ctypes.Structure):  # MslLaunch
    _fields_ = [
        *_fields(_POINTER, "entry ranges"),
        ("buffers", ctypes.POINTER(_Buffer)), ("buffer_count", _U64),
        ("arguments", ctypes.POINTER(_POINTER)), ("arena", _POINTER), ("arena_size", _U64),
        *_fields(_U32 * 3, "grid threadgroup"),
        *_fields(_U32, "order seed flush_denormals fast_ulps check max_reports max_seconds unused"),
        ("max_steps", _U64), ("report", ctypes.c_char_p), ("report_size", _U64),
        *_fields(_U64, "steps accesses threadgroup_bytes repeated_writes"),
    ]


class _Arena:
    """The buffers in one block, each at a page's start and with a page that is nobody's after it."""

    def __init__(self, buffers: Sequence[Buffer], misalign: int) -> None:
        self.buffers = buffers
        self.offsets, end = [], PAGE
        for b in buffers:
            shift = 0 if b.writable else misalign * b.array.itemsize
            self.offsets.append(end + shift)
            end += -(-(shift + b.array.nbytes) // PAGE) * PAGE + PAGE
        self.size = end
        raw = np.full(end + PAGE, 0xFF, np.uint8)
        self.memory = raw[-raw.ctypes.data % PAGE :][:end]
        for b, offset in zip(buffers, self.offsets, strict=True):
            if b.initialised:
                self._bytes(b, offset)[:] = b.array.reshape(-1).view(np.uint8)

    def _bytes(self, b: Buffer, offset: int) -> Array:
        return self.memory[offset : offset + b.array.nbytes]

    def address(self, i: int) -> int:
        return int(self.memory.ctypes.data) + self.offsets[i]

    def table(self) -> ctypes.Array[_Buffer]:
        table = (_Buffer * len(self.buffers))()
        for i, b in enumerate(self.buffers):
            flags = _WRITABLE * b.writable | _INITIALISED * b.initialised
            granule = 1 if b.array.nbytes <= _FINE_CELLS else min(b.array.itemsize, 8)
            table[i] = _Buffer(self.address(i), b.array.nbytes, flags, granule, b.name.encode())
        return table

    def result(self, i: int) -> Array:
        b = self.buffers[i]
        return self._bytes(b, self.offsets[i]).view(b.array.dtype).reshape(b.array.shape).copy()


@dataclass(frozen=True)
class Result:
    outputs: dict[int, Array]  # of the writable buffers, by their index
    report: LaunchReport

    def must_be_clean(self) -> None:
        """SimulationError if there are findings, but for warnings and those allowed."""
        bad = [f for f in self.report.findings if f.kind not in WARNINGS | current().allow]
        if bad:
            error = SimulationError(self.report.kernel, bad)
            error.outputs = self.outputs
            raise error


def run(program: Program, buffers: Mapping[int, Buffer], grid: Size, threadgroup: Size) -> Result:
    wanted = current()
    _check_sizes(grid, threadgroup, wanted)
    indices = _buffer_indices(program)
    if len(indices) > MAX_BUFFERS:
        raise ValueError(f"{program.name} has {len(indices)} buffers; Metal binds {MAX_BUFFERS}")
    absent = Buffer("an absent buffer", np.zeros(0, np.uint8))
    arena = _Arena([buffers.get(i, absent) for i in indices], wanted.misalign)
    report = LaunchReport(program.name)
    library, path = _load(program, indices, wanted, report)
    _call(library, path, arena, (grid, threadgroup), wanted, report)
    outputs = {i: arena.result(k) for k, i in enumerate(indices) if arena.buffers[k].writable}
    return Result(outputs, report)


def _check_sizes(grid: Size, threadgroup: Size, wanted: Options) -> None:
    if min(*grid, *threadgroup) <= 0:
        raise ValueError(f"grid {grid} and threadgroup {threadgroup} must be positive")
    if prod(threadgroup) > wanted.max_threads:
        raise ValueError(f"Thread group size ({prod(threadgroup)}) is greater than the maximum allowed threads "
                         f"per threadgroup ({wanted.max_threads}).")


def _buffer_index(attribute: str) -> int | None:
    m = re.fullmatch(r"buffer\((\d+)\)", attribute)
    return int(m[1]) if m else None


def _buffer_indices(program: Program) -> list[int]:
    found = (_buffer_index(attribute) for _, attribute in program.parameters)
    return list(dict.fromkeys(i for i in found if i is not None))


def _call_text(program: Program, indices: Sequence[int]) -> str:
    """How the entry calls the kernel."""
    arguments = []
    for declaration, attribute in program.parameters:
        index = _buffer_index(attribute)
        if index is not None:
            kind = "msl_reference" if "&" in declaration else "msl_pointer"
            arguments.append(f"{kind}{{buffers[{indices.index(index)}]}}")
        elif ATTRIBUTES[attribute] == "uint3":
            arguments.append(f"msl_triple{{attributes->{attribute}}}")
        else:
            arguments.append(f"attributes->{attribute}")
    return f"{program.call}({', '.join(arguments)})"


def _load(program: Program, indices: Sequence[int], wanted: Options,
          report: LaunchReport) -> tuple[ctypes.CDLL, str]:
    entry = f'\n#line 1 "entry"\n#define MSL_CALL {_call_text(program, indices)}\n#include "entry.h"\n'
    fast = program.fast_math
    contract = "fast" if fast else wanted.contract
    defines = ("__FAST_MATH__=1", "MSL_FAST_MATH=1") if fast else ()
    began = time.perf_counter()
    loaded = compiler.load_kernel(PROLOGUE + program.text + entry, wanted.check, contract, defines)
    report.compile_seconds = time.perf_counter() - began
    return loaded


def _call(library: ctypes.CDLL, path: str, arena: _Arena, sizes: tuple[Size, Size], wanted: Options,
          report: LaunchReport) -> None:
    table, text = arena.table(), ctypes.create_string_buffer(1 << 16)
    entry, ranges = (ctypes.cast(f, _POINTER) for f in (library.msl_entry, library.msl_ranges))
    addresses = (ctypes.c_void_p * 128)(*(arena.address(i) for i in range(len(table))))
    launch = _Launch(
        entry=entry, ranges=ranges, buffers=table, buffer_count=len(table), arguments=addresses,
        arena=arena.memory.ctypes.data, arena_size=arena.size,
        grid=(ctypes.c_uint32 * 3)(*sizes[0]), threadgroup=(ctypes.c_uint32 * 3)(*sizes[1]),
        order=ORDERS.index(wanted.order), seed=wanted.seed, flush_denormals=wanted.flush_denormals,
        fast_ulps=wanted.fast_ulps, check=wanted.check, max_reports=40, max_seconds=wanted.max_seconds,
        max_steps=wanted.max_steps, report=ctypes.cast(text, ctypes.c_char_p), report_size=len(text),
    )
    began = time.perf_counter()
    compiler.runtime().msl_launch(ctypes.byref(launch))
    report.seconds = time.perf_counter() - began
    _read(launch, table, report)
    report.findings = findings.parse(text.value.decode(errors="replace"), path)
    if (used := report.threadgroup_bytes) > wanted.threadgroup_bytes:
        message = f"{used} bytes of threadgroup memory; the limit is {wanted.threadgroup_bytes}"
        report.findings.append(Finding("threadgroup_memory", message, report.kernel))


def _read(launch: _Launch, table: ctypes.Array[_Buffer], report: LaunchReport) -> None:
    report.steps, report.accesses = launch.steps, launch.accesses
    report.threadgroup_bytes, report.repeated_writes = launch.threadgroup_bytes, launch.repeated_writes
    report.traffic = {b.name.decode(): Traffic(b.size, b.bytes_read, b.bytes_written) for b in table}
