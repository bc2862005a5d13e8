"""Which runs: a kernel, or the plain operations beside it.

    off    the plain operations
    on     the kernel, wherever it can
    auto   the faster of the two, measured once a device, MLX version, op and size, and kept in a file

A kernel never runs without Metal, on shapes or dtypes that its op does not fit, or after it failed to compile
on this device: then the plain operations do, with one warning. The surprise: MLX compiles a kernel when its
result is computed, long after the call, so each is tried on made-up inputs of the same shapes first.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.errors import AudioR1Error, DiskError
from mlx_audio_r1.files import write_file

MODES = ("off", "auto", "on")
REPEATS = 5        # timings of each side, the least counts
BURST = 4          # calls in one timing
Arrays = tuple[mx.array, ...]


@dataclass(frozen=True, eq=False)
class Op:
    """reference and launch: the same function of arrays and keywords, to one array or a tuple.
    fits: whether the kernel can take these arguments. bytes: what its launches read and write then, in all, as
    its module's docstring counts."""

    name: str
    reference: Callable[..., Any]
    launch: Callable[..., Any]
    fits: Callable[..., bool]
    bytes: Callable[..., int]

    def __call__(self, *arrays: mx.array, **options: Any) -> Any:
        side = self.launch if _chosen(self, arrays, options) else self.reference
        return side(*arrays, **options)


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Make an op known by its name, to the switch and to lists of them."""
    OPS[op.name] = op
    return op


@dataclass
class Choice:
    """The switch, the file of winners, and what was found out in this process."""

    default: str = "off"
    per_op: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    winners: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key: kernel, ratio
    tried: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)  # op -> why its kernel does not run here

    def mode(self, op: str) -> str:
        return self.per_op.get(op, self.default)


_choice = Choice()


def configure(switch: str = "off", file: Path | None = None) -> None:
    """Set the switch: `off`, `auto` or `on`, and `op=mode` for single ops, by commas: `auto,add_rms_norm=off`.

    file: where `auto` keeps its winners; without one they last as long as the process. Raises AudioR1Error
    on a mode or an op that is not there.
    """
    global _choice
    _choice = _parsed(switch, file)


@contextmanager
def configured(switch: str, file: Path | None = None) -> Iterator[Choice]:
    """As `configure`, until the block ends."""
    global _choice
    before, _choice = _choice, _parsed(switch, file)
    try:
        yield _choice
    finally:
        _choice = before


def _parsed(switch: str, file: Path | None) -> Choice:
    default, per_op = "off", {}
    for part in filter(None, map(str.strip, switch.split(","))):
        op, _, mode = part.rpartition("=")
        if mode not in MODES:
            raise AudioR1Error(f"kernels: '{part}' is not a mode; use {', '.join(MODES)} or op=mode")
        if op and op not in OPS:
            raise AudioR1Error(f"kernels: there is no op '{op}'; there are {', '.join(sorted(OPS))}")
        if op:
            per_op[op] = mode
        else:
            default = mode
    return Choice(default, per_op, file, _read(file))


def _read(file: Path | None) -> dict[str, dict[str, Any]]:
    """The winners kept before; a damaged file is as none, they are measured again."""
    if file is None:
        return {}
    with suppress(OSError, ValueError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            return {key: row for key, row in kept.items() if _is_row(row)}
    return {}


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("kernel"), bool) and isinstance(row.get("ratio"), float)


def _keep(choice: Choice) -> None:
    """Another process may have written since: its winners stay. No room to write costs only the memory."""
    if choice.file is None:
        return
    with suppress(DiskError, OSError):
        choice.file.parent.mkdir(parents=True, exist_ok=True)
        rows = {**_read(choice.file), **choice.winners}
        write_file(choice.file, json.dumps(rows, indent=1, sort_keys=True) + "\n")


def _chosen(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> bool:
    """Whether the kernel runs."""
    mode = _choice.mode(op.name)
    if mode == "off" or op.name in _choice.broken or not on_metal() or not op.fits(*arrays, **options):
        return False
    key = _key(op, arrays, options)
    if key not in _choice.tried and not _works(op, arrays, options, key):
        return False
    if mode == "on":
        return True
    if key not in _choice.winners:
        _choice.winners[key] = _measured(op, arrays, options)
        _keep(_choice)
    return _choice.winners[key]["kernel"]


def allowed(*ops: str) -> bool:
    """Whether the switch lets any of these run a kernel here. A name that is no op follows the mode for all."""
    return any(_choice.mode(op) != "off" for op in ops) and on_metal()


def on_metal() -> bool:
    """Whether kernels can run: Metal, and no call for the CPU where there is a GPU."""
    return mx.metal.is_available() and (mx.default_device().type == mx.gpu or not mx.is_available(mx.gpu))


def _key(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> str:
    """Device, MLX, op, and the arguments; the sizes up to the next power of two, since a cache grows."""
    shown = [f"{str(x.dtype).rpartition('.')[2]}[{x.ndim}]{1 << (x.size - 1).bit_length() if x.size else 0}"
             for x in arrays]
    given = [f"{name}={value}" for name, value in sorted(options.items())]
    return " ".join([_device(), f"mlx-{mx.__version__}", op.name, *shown, *given])


def _device() -> str:
    return str(mx.device_info().get("device_name", "unknown")).replace(" ", "-")


def _works(op: Op, arrays: Arrays, options: Mapping[str, Any], key: str) -> bool:
    """Compile and run the kernel once. MLX raises RuntimeError for what does not compile, ValueError for a
    threadgroup that is too large for it."""
    try:
        mx.eval(op.launch(*_made_up(arrays), **options))
    except (RuntimeError, ValueError) as error:
        _choice.broken[op.name] = str(error)
        first = str(error).strip().splitlines()[:1]
        warnings.warn(f"the kernel {op.name} does not run on this device, plain operations stand in: "
                      f"{''.join(first)}", RuntimeWarning, stacklevel=5)
        return False
    _choice.tried.add(key)
    return True


def _made_up(arrays: Arrays) -> list[mx.array]:
    """Of the same shapes and dtypes; the given ones may be tracers, whose values are not there yet."""
    key = mx.random.key(0)
    return [mx.random.normal(x.shape, x.dtype, key=key) if mx.issubdtype(x.dtype, mx.floating)
            else mx.zeros(x.shape, x.dtype) for x in arrays]


def _measured(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> dict[str, Any]:
    """The time of both on made-up inputs, in turns, so that a device that warms up favours neither."""
    inputs = _made_up(arrays)
    mx.eval(inputs)
    sides = (op.reference, op.launch)
    times = [[_seconds(side, inputs, options) for side in sides] for _ in range(REPEATS + 1)][1:]
    reference, kernel = (min(column) for column in zip(*times, strict=True))
    return {"kernel": kernel < reference, "ratio": round(reference / max(kernel, 1e-9), 3)}


def _seconds(side: Callable[..., Any], inputs: list[mx.array], options: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    mx.eval([side(*inputs, **options) for _ in range(BURST)])
    return time.perf_counter() - start


def with_gradient(launch: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
    """The launch, with the gradient of the plain operations, which compute the values again for it."""

    def differentiable(*arrays: mx.array, **options: Any) -> Any:
        @mx.custom_function
        def forward(*arrays: mx.array) -> Any:
            return launch(*arrays, **options)

        @forward.vjp
        def backward(primals: Any, cotangents: Any, outputs: Any) -> Any:
            given = list(primals) if isinstance(primals, (list, tuple)) else [primals]
            above = list(cotangents) if isinstance(cotangents, (list, tuple)) else [cotangents]
            return tuple(mx.vjp(lambda *a: reference(*a, **options), given, above)[1])

        return forward(*arrays)

    return differentiable
