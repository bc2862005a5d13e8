"""Lines of `audio-r1 kernels` for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_audio_r1.kernels import bench, listing, verify

VERIFIED = {True: "yes", False: "failed", None: "not yet"}


def listed_lines(rows: list[listing.Row]) -> Iterator[str]:
    """One for each op, and below it one for each shape that was measured."""
    from mlx_audio_r1.kernels.found import place

    yield place()
    yield f"{'op':<26}{'mode':<6}{'verified':<10}{'compile':>9}  state"
    for row in rows:
        compiled = "-" if row.compile_ms is None else f"{row.compile_ms:.0f} ms"
        state = row.state if row.why is None else f"{row.state}: {row.why}"
        yield f"{row.op:<26}{row.mode:<6}{VERIFIED[row.verified]:<10}{compiled:>9}  {state}"
        for measured in row.winners:
            yield f"  {measured.winner:<6} {measured.ratio:>6.2f}x  {measured.shape}"


def verified_lines(result: verify.Result) -> Iterator[str]:
    """One for an op, and one for each case that failed."""
    worst = result.worst
    if worst is None:
        numbers = "nothing compared"
    else:
        numbers = f"error at most {worst.error:.2g} of {worst.bound:.2g} ({worst.what}, {result.worst_case})"
    yield (f"{result.op:<26}{'right' if result.passed else 'WRONG':<7}{result.cases:>4} cases  "
           f"{result.gradients:>3} gradients  compiled in {result.compile_ms:.0f} ms  {numbers}")
    for failure in result.failures:
        yield f"  {failure.case}: {failure.why}"


def bandwidth() -> float | None:
    """GB/s of this Mac, None where it is not known."""
    from mlx_audio_r1.kernels.found import device
    from mlx_audio_r1.rates import CHIPS, chip_called

    chip = chip_called(device())
    return CHIPS[chip].bandwidth if chip else None


def bench_head(known: float | None) -> Iterator[str]:
    yield f"bandwidth: {f'{known:.0f} GB/s' if known else 'unknown for this device'}"
    yield f"{'op':<26}{'shape':<52}{'plain':>13}{'kernel':>13}{'ratio':>8}{'GB/s':>8}{'share':>9}"


def bench_line(row: bench.Row, known: float | None) -> str:
    share = row.share(known)
    shown = "unknown" if share is None else f"{share:.0%}"
    return (f"{row.op:<26}{row.shape:<52}{row.plain * 1e6:>10.0f} us{row.kernel * 1e6:>10.0f} us"
            f"{row.ratio:>7.2f}x{row.gigabytes_a_second:>8.1f}{shown:>9}")
