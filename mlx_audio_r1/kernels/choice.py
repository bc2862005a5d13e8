"""Which runs: a kernel, or the plain operations beside it.

    off    the plain operations
    on     the kernel, wherever it can
    auto   the faster of the two, measured once a device, MLX version, op and size, and kept in a file

Where nothing is said it is `auto` for the ops whose every case held on this device (`audio-r1 kernels
--verify`), and `off` for the others: nobody has run these kernels on a GPU but those who did that.

A kernel never runs without Metal, on shapes or dtypes that its op does not fit, or after it failed to compile
on this device or gave other numbers than the plain operations: then these do, with one warning (trial.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.kernels import found, proofs
from mlx_audio_r1.kernels.found import Found
from mlx_audio_r1.kernels.trial import made_up, times, tried

MODES = ("off", "auto", "on")
EXACT_UP_TO = 16  # axes up to it are tried one by one, longer ones up to the next power of two
MOST_ASKED = 4096
Arrays = tuple[mx.array, ...]


@dataclass(frozen=True, eq=False)
class Op:
    """reference and launch: the same function of arrays and keywords, to one array or a tuple.
    fits: whether the kernel can take these arguments. bytes: what its launches read and write then, in all, as
    its module's docstring counts. made_up: arrays like the given ones, of which only shape and dtype are known,
    to try and to measure it with; needed where normal numbers and noughts make no sense. measure: what a first
    try is compared with where the reference is rounded so much that it could be taken for a fault."""

    name: str
    reference: Callable[..., Any]
    launch: Callable[..., Any]
    fits: Callable[..., bool]
    bytes: Callable[..., int]
    made_up: Callable[..., Sequence[mx.array]] | None = None
    measure: Callable[..., Any] | None = None

    def __call__(self, *arrays: mx.array, **options: Any) -> Any:
        side = self.launch if self.runs(*arrays, **options) else self.reference
        return side(*arrays, **options)

    def runs(self, *arrays: mx.array, **options: Any) -> bool:
        """Whether the kernel would be called, for callers with plain operations of their own beside it."""
        return _chosen(self, arrays, options)

    @property
    def is_off(self) -> bool:
        """Whether the kernel cannot run here, so that nothing need be made ready for it."""
        return not allowed(self.name)


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Make an op known by its name, to the switch and to lists of them."""
    OPS[op.name] = op
    return op


@dataclass
class Choice:
    """The switch, the file, what it held, and what was found out in this process."""

    default: str | None = None
    per_op: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    found: Found = field(default_factory=Found)
    asked: dict[Hashable, bool] = field(default_factory=dict)  # by op and arguments: whether the kernel runs
    decided: dict[Hashable, bool] = field(default_factory=dict)  # the same by arguments that are near
    broken: dict[str, str] = field(default_factory=dict)  # op -> why its kernel does not run here
    compile_ms: dict[str, float] = field(default_factory=dict)

    def mode(self, op: str) -> str:
        proven = self.found.verified.get(found.place(), {}).get(op, False)
        return self.per_op.get(op) or self.default or ("auto" if proven else "off")


_choice = Choice()


def current() -> Choice:
    return _choice


def configure(switch: str = "", file: Path | None = None) -> None:
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
    default, per_op = None, {}
    known = OPS.keys() | set(proofs.names())
    for part in filter(None, map(str.strip, switch.split(","))):
        op, _, mode = part.rpartition("=")
        if mode not in MODES:
            raise AudioR1Error(f"'{part}' is not a mode of kernels; use {', '.join(MODES)} or op=mode")
        if op and op not in known:
            raise AudioR1Error(f"there is no op '{op}'; there are {', '.join(sorted(known))}")
        if op:
            per_op[op] = mode
        else:
            default = mode
    return Choice(default, per_op, file, found.read(file))


def _chosen(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> bool:
    """Whether the kernel runs. Asked for every op of every layer of every token, so that of the same arguments
    it is known at once."""
    if op.name in _choice.broken or not on_metal():
        return False
    asked = op.name, *((x.dtype, x.shape) for x in arrays), *options.items()
    chosen = _choice.asked.get(asked)
    if chosen is None:
        if len(_choice.asked) >= MOST_ASKED:
            _choice.asked.clear()
        chosen = _choice.asked[asked] = _decided(op, arrays, options)
    return chosen


def _decided(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> bool:
    """Tried once, and measured once, for all sizes that are near enough."""
    mode = _choice.mode(op.name)
    if mode == "off" or not op.fits(*arrays, **options):
        return False
    key = (op.name, *((x.dtype, *map(_near, x.shape)) for x in arrays),
           *((name, _kind(value, _near)) for name, value in options.items()))
    if key not in _choice.decided:
        _choice.decided[key] = _works(op, arrays, options) and (mode == "on" or _wins(op, arrays, options))
    return _choice.decided[key]


def allowed(*ops: str) -> bool:
    """Whether the switch lets any of these run a kernel here."""
    return any(_choice.mode(op) != "off" for op in ops) and on_metal()


def on_metal() -> bool:
    """Whether kernels can run: Metal, and no call for the CPU where there is a GPU."""
    return mx.metal.is_available() and (mx.default_device().type == mx.gpu or not mx.is_available(mx.gpu))


def _near(axis: int) -> int:
    return axis if axis <= EXACT_UP_TO else _power(axis)


def _power(axis: int) -> int:
    """The next power of two: a cache grows by a token at a time."""
    return 1 << (axis - 1).bit_length() if axis else 0


def _kind(value: Any, near: Callable[[int], int]) -> Hashable:
    """Of an option. A float is given to the kernel as it is, not compiled in, but for where it does something:
    every temperature or top_p of a request shares one trial. What is more than a number tells its own."""
    if hasattr(value, "kind"):
        return value.kind
    if isinstance(value, float):
        return "between 0 and 1" if 0 < value < 1 else "any"
    return near(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else value


def _works(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> bool:
    trial = tried(op, arrays, options)
    if trial.compile_ms is not None:
        _choice.compile_ms[op.name] = max(trial.compile_ms, _choice.compile_ms.get(op.name, 0.0))
    if trial.why is None:
        return True
    _choice.broken[op.name] = trial.why
    what = "gives other numbers than plain operations" if trial.compiles else "does not run"
    warnings.warn(f"the kernel {op.name} {what} on this device, plain operations stand in: {trial.why}",
                  RuntimeWarning, stacklevel=5)
    return False


def _wins(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> bool:
    """Whether the kernel is the faster one, on made-up inputs or as the file says. Where there is no memory to
    measure in, plain operations run; that is not kept for the next process."""
    winners, key = _choice.found.winners, winner_key(op, arrays, options)
    if key not in winners:
        try:
            inputs = made_up(op, arrays, options)
            mx.eval(inputs)
            plain, kernel = times(op, inputs, options)
        except RuntimeError:
            return False
        winners[key] = {"kernel": kernel < plain, "ratio": round(plain / kernel, 3)}
        found.keep(_choice.file, _choice.found)
    return bool(winners[key]["kernel"])


def winner_key(op: Op, arrays: Arrays, options: Mapping[str, Any]) -> str:
    """Place, op, and the arguments with every axis up to the next power of two."""
    shown = [f"{str(x.dtype).rpartition('.')[2]}[{','.join(str(_power(n)) for n in x.shape)}]" for x in arrays]
    given = [f"{name}={_kind(value, _power)}".replace(" ", "-") for name, value in sorted(options.items())]
    return " ".join([found.place(), op.name, *shown, *given])


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
