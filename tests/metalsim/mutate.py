"""Break a kernel in every small way, and see whether its test notices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from tests.metalsim.compiler import CompileError
from tests.metalsim.findings import SimulationError
from tests.metalsim.rewrite import blank_comments, end_of, split
from tests.metalsim.simulate import Simulation, simulated

Arrays = Sequence[mx.array]
Run = Callable[[], Arrays]

_OPERAND = r"(?<=[\w)\]] )", r"(?= [\w(!\-])"  # spaces around it: a comparison, not template arguments
# What is broken -> the pattern, and what stands there instead; \1 and so on are its groups.
OPERATORS: dict[str, tuple[str, str]] = {
    "drop barrier": (r"(?:metal::)?(?:threadgroup|simdgroup)_barrier\([^;]*\);", ";"),
    "fence nothing": (r"mem_flags::mem_(?:threadgroup|device)", "mem_flags::mem_none"),
    "barrier of the simdgroup only": (r"threadgroup_barrier", "simdgroup_barrier"),
    "< to <=": (rf"{_OPERAND[0]}<{_OPERAND[1]}", "<="),
    "<= to <": (rf"{_OPERAND[0]}<={_OPERAND[1]}", "<"),
    "> to >=": (rf"{_OPERAND[0]}>{_OPERAND[1]}", ">="),
    ">= to >": (rf"{_OPERAND[0]}>={_OPERAND[1]}", ">"),
    "== to !=": (rf"{_OPERAND[0]}=={_OPERAND[1]}", "!="),
    "!= to ==": (rf"{_OPERAND[0]}!={_OPERAND[1]}", "=="),
    "== 0 to == 1": (r"== 0(?=[) ])", "== 1"),
    "&& to ||": (r"&&", "||"),
    "|| to &&": (r"\|\|", "&&"),
    "drop the sum over lanes": (r"\bsimd_sum\(", "("),
    "max over lanes to min": (r"\bsimd_max\(", "simd_min("),
    "max to min": (r"(?<!_)\bmax\(", "min("),
    "min to max": (r"(?<!_)\bmin\(", "max("),
    "twice the mask": (r"simd_shuffle_xor\(([^,;]+), ([^();]+)\)", r"simd_shuffle_xor(\1, (\2) * 2)"),
    "+= to =": (r"\+=", "="),
}
_INDEX = re.compile(r"(?<=[\w)\]])\[(?![\[\]])")
_DECLARATION = re.compile(  # its brackets are sizes, not indices
    r"\s*(?:(?:threadgroup|thread|const|constexpr|static)\s+)*(?!return\b|else\b|case\b)[A-Za-z_][\w:]*(?:<[^;]*?>)?\s+"
    r"[A-Za-z_]"
)
_LIMITS = {"lint": False, "max_steps": 3_000_000, "max_seconds": 3}


@dataclass(frozen=True)
class Mutant:
    kernel: str
    operator: str
    line: str    # of the kernel, as it was, without its indentation
    original: str  # the text it stands for
    text: str

    def __str__(self) -> str:
        return f"{self.operator}: {self.line}"


@dataclass
class MutationReport:
    """Mutants by what became of them."""

    checked: list[Mutant] = field(default_factory=list)    # a check of the simulator found it
    different: list[Mutant] = field(default_factory=list)  # the numbers differ
    counted: list[Mutant] = field(default_factory=list)    # only its loads and stores do
    invalid: list[Mutant] = field(default_factory=list)    # it does not compile
    survived: list[Mutant] = field(default_factory=list)

    @property
    def killed(self) -> int:
        return len(self.checked) + len(self.different) + len(self.counted)

    def unexplained(self, explained: Iterable[str] = ()) -> list[str]:
        """Survivors beyond the explained, and explained ones that survive no more; equal lines are counted."""
        survivors, known = Counter(map(str, self.survived)), Counter(explained)
        stale = (known - survivors).elements()
        return sorted((survivors - known).elements()) + [f"no survivor: {e}" for e in sorted(stale)]


def mutants(text: str, kernel: str = "") -> Iterator[Mutant]:
    """Every mutant of a kernel's source or header."""
    for operator, start, end, instead in _changes(blank_comments(text)):
        line = text[text.rfind("\n", 0, start) + 1 :].split("\n", 1)[0].strip()
        yield Mutant(kernel, operator, line, text, text[:start] + instead + text[end:])


def _changes(clean: str) -> Iterator[tuple[str, int, int, str]]:
    """Operator, span and what stands there instead."""
    for operator, (pattern, instead) in OPERATORS.items():
        for m in re.finditer(pattern, clean):
            yield operator, m.start(), m.end(), m.expand(instead)
    for m in _INDEX.finditer(clean):
        end = end_of(clean, m.end(), "]")
        if not _is_size(clean, m.start()):
            yield "index + 1", m.start(), end + 1, f"[({clean[m.end() : end]}) + 1]"


def _is_size(clean: str, at: int) -> bool:
    start = max(clean.rfind(c, 0, at) for c in ";{}(") + 1
    declarators = split(clean[start:at])
    return bool(_DECLARATION.match(declarators[0])) and "=" not in declarators[-1]


def mutation_test(run: Run, expected: Arrays, tolerance: float,
                  orders: Sequence[str] = ("forward",)) -> MutationReport:
    """Mutate every kernel that `run` calls, its header too, and judge each mutant by run's outputs.

    A mutant is killed in any of the orders by a finding, by an output further than tolerance from the expected
    one, or by loads and stores that are not those of the kernel: its tests hold its logical bytes. `run` must
    build its kernels with mx.fast.metal_kernel, and give the same arrays each time.
    """
    judge = _Judge(run, expected, tolerance)
    counts = {}
    for order in orders:
        with simulated(order=order) as simulation:
            if judge.differs():
                raise AssertionError("the kernel as it is does not give what is expected")
        counts[order] = _counts(simulation)
    report = MutationReport()
    texts = {text: k.name for k in simulation.kernels.values() for text in (k.source, k.header)}
    for text, kernel in texts.items():
        for mutant in mutants(text, kernel):
            _verdict(report, mutant, judge, counts).append(mutant)
    return report


@dataclass(frozen=True)
class _Judge:
    run: Run
    expected: Arrays
    tolerance: float

    def differs(self) -> bool:
        """NaN differs from everything."""
        return not all(_error(o, e) <= self.tolerance for o, e in zip(self.run(), self.expected, strict=True))


def _counts(simulation: Simulation) -> list[tuple[object, ...]]:
    return [(launch.kernel, launch.traffic, launch.repeated_writes) for launch in simulation.launches]


def _verdict(report: MutationReport, mutant: Mutant, judge: _Judge,
             counts: Mapping[str, list[tuple[object, ...]]]) -> list[Mutant]:
    found = report.survived
    try:
        for order, count in counts.items():
            with simulated(order=order, edits={mutant.original: mutant.text}, **_LIMITS) as simulation:
                if judge.differs():
                    return report.different
            if _counts(simulation) != count:
                found = report.counted
    except SimulationError:
        return report.checked
    except CompileError:
        return report.invalid
    return found


def _error(output: mx.array, expected: mx.array) -> float:
    return float(mx.abs(output.astype(mx.float32) - expected.astype(mx.float32)).max())
