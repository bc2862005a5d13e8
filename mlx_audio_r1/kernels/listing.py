"""What is known of every op here: the switch, whether its kernel runs, whether it was proven, who wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlx_audio_r1.kernels import found
from mlx_audio_r1.kernels.choice import current, on_metal
from mlx_audio_r1.kernels.proof import Proof
from mlx_audio_r1.kernels.proofs import names
from mlx_audio_r1.kernels.trial import tried


@dataclass(frozen=True)
class Winner:
    shape: str  # dtypes, axes up to the next power of two, options
    winner: str
    ratio: float  # plain operations' time over the kernel's


@dataclass(frozen=True)
class Row:
    op: str
    mode: str
    state: str  # runs, no Metal, does not compile, wrong numbers
    why: str | None
    verified: bool | None  # None: nobody looked, with this MLX and this version on this device
    compile_ms: float | None
    winners: list[Winner] = field(default_factory=list)


def listed(proofs: Iterable[Proof]) -> list[Row]:
    """A row for each op; where there is Metal its kernel is tried, at the first of the model's shapes."""
    return [_row(proof) for proof in proofs]


def summary() -> str:
    """The switch in a few words."""
    if not on_metal():
        return "no Metal, plain operations run"
    modes = Counter(current().mode(op) for op in names())
    return ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items())) + "; see audio-r1 kernels"


def _row(proof: Proof) -> Row:
    choice, op = current(), proof.op
    state, why, compile_ms = "no Metal", None, None
    if on_metal():
        case = next(iter(proof.shapes()))
        trial = tried(op, case.arrays, case.options)
        state = "runs" if trial.why is None else "wrong numbers" if trial.compiles else "does not compile"
        why, compile_ms = trial.why, trial.compile_ms
    verified = choice.found.verified.get(found.place(), {}).get(op.name)
    return Row(op.name, choice.mode(op.name), state, why, verified, compile_ms, _winners(op.name))


def _winners(op: str) -> list[Winner]:
    """Of this place, from the file."""
    begins = f"{found.place()} {op} "
    return [Winner(key.removeprefix(begins), "kernel" if row["kernel"] else "plain", row["ratio"])
            for key, row in sorted(current().found.winners.items()) if key.startswith(begins)]


def record(op: str, passed: bool) -> None:
    """Keep the outcome of a verification in the file: from now on `auto` stands where nothing is said."""
    choice = current()
    choice.found.verified.setdefault(found.place(), {})[op] = passed
    found.keep(choice.file, choice.found)
