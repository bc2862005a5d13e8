"""Every case of an op's proof on the device at hand: values, gradients, and the time to compile.

The same on a GPU through MLX and in the simulator. Nothing here chooses: the kernel is launched whatever the
switch says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_audio_r1.kernels.proof import EPSILON, Case, Proof, Verdict, bound, error, exact, noise
from mlx_audio_r1.kernels.trial import outputs, reason, seconds

MOST_FAILURES = 5  # of an op, then it is given up
PLAIN_GRADIENTS = 30  # where the gradient is that of the plain operations, whatever the size


@dataclass(frozen=True)
class Failure:
    case: str
    why: str
    runs: bool  # False: it does not compile, or the device cannot launch it


@dataclass
class Result:
    """worst: the verdict nearest to its bound or beyond it, and its case. compile_ms: of the slowest case, its
    first launch less its second; what MLX has compiled before costs nothing."""

    op: str
    cases: int = 0
    gradients: int = 0
    worst: Verdict | None = None
    worst_case: str = ""
    compile_ms: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.cases > 0 and not self.failures


def verify(proof: Proof, cases: Iterable[Case] | None = None) -> Result:
    """Check an op on all its cases, or on these."""
    result = Result(proof.op.name)
    for case in proof.cases() if cases is None else cases:
        result.cases += 1
        try:
            _check(proof, case, result)
        except (RuntimeError, ValueError) as problem:  # what does not compile, or not fit
            result.failures.append(Failure(case.name, reason(problem), runs=False))
        if len(result.failures) >= MOST_FAILURES:
            break
    return result


def _check(proof: Proof, case: Case, result: Result) -> None:
    if not proof.op.fits(*case.arrays, **case.options):
        raise ValueError("the kernel does not take these arguments")
    result.compile_ms = max(result.compile_ms, _compile_ms(proof, case))
    verdicts = values(proof, case)
    if proof.gradient and (proof.exact_gradient or result.gradients < PLAIN_GRADIENTS):
        result.gradients += 1
        verdicts += gradients(proof, case)
    for verdict in verdicts:
        if not verdict.error <= verdict.bound:
            why = f"{verdict.what} is off by {verdict.error:.3g}, allowed are {verdict.bound:.3g}"
            result.failures.append(Failure(case.name, why, runs=True))
        if result.worst is None or verdict.share > result.worst.share:
            result.worst, result.worst_case = verdict, case.name


def _compile_ms(proof: Proof, case: Case) -> float:
    mx.eval(case.arrays)
    first, second = (seconds(proof.op.launch, case.arrays, case.options) for _ in range(2))
    return max(0.0, first - second) * 1000


def values(proof: Proof, case: Case) -> list[Verdict]:
    """A verdict for each output."""
    got = outputs(proof.op.launch(*case.arrays, **case.options))
    if proof.judge is not None:
        return proof.judge(case, got[0])
    assert proof.exact is not None  # the other of the two
    plain = outputs(proof.op.reference(*case.arrays, **case.options))
    want = proof.exact(*case.arrays, **case.options)
    return [_verdict(f"output {at}", *each) for at, each in enumerate(zip(got, plain, want, strict=True))]


def gradients(proof: Proof, case: Case) -> list[Verdict]:
    """A verdict for each array that has a gradient, with random cotangents."""
    plain = outputs(proof.op.reference(*case.arrays, **case.options))
    cotangents = [noise(x.shape, x.dtype, 4 + at) for at, x in enumerate(plain)]
    got, plain = (_pulled(proof, side, case, cotangents) for side in (proof.op.launch, proof.op.reference))
    names = [f"gradient {at}" for at in proof.gradient]
    if proof.exact_gradient is None:
        # The gradient of plain operations on both sides: no more than a rounding apart.
        return [Verdict(name, error(g, exact(p)), EPSILON[p.dtype] * float(mx.abs(p.astype(mx.float32)).max()))
                for name, g, p in zip(names, got, plain, strict=True)]
    want = proof.exact_gradient(*case.arrays, cotangents=cotangents, **case.options)
    return [_verdict(name, g, p, *w) for name, g, p, w in zip(names, got, plain, want, strict=True)]


def _pulled(proof: Proof, side: object, case: Case, cotangents: list[mx.array]) -> list[mx.array]:
    def of_some(*some: mx.array) -> list[mx.array]:
        arrays = list(case.arrays)
        for at, array in zip(proof.gradient, some, strict=True):
            arrays[at] = array
        return list(outputs(side(*arrays, **case.options)))  # type: ignore[operator]

    return list(mx.vjp(of_some, [case.arrays[at] for at in proof.gradient], cotangents)[1])


def _verdict(what: str, got: mx.array, plain: mx.array, want: object, terms: float = 0.0) -> Verdict:
    if got.dtype != plain.dtype:
        return Verdict(f"{what}, which is {got.dtype} and not {plain.dtype},", math.inf, 0.0)
    return Verdict(what, error(got, want), bound(plain, want, terms))
