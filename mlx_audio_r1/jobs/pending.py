"""What of a list of recordings is still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_audio_r1.errors import JobError
from mlx_audio_r1.jobs.asking import Asking
from mlx_audio_r1.jobs.records import Output
from mlx_audio_r1.jobs.sources import Item


@dataclass(frozen=True)
class Pending:
    """items to do, which samples of each, how many are done already, and how many of those failed."""

    items: list[Item]
    samples: dict[str, tuple[int, ...]]
    skipped: int
    failed_before: int


def pending(items: Sequence[Item], output: Output, asking: Asking) -> Pending:
    """Compare a list with an output. Raises JobError when the output answers another question."""
    _same_question(items, output, asking)
    samples = {}
    for item in items:
        missing = tuple(i for i in range(asking.num_samples) if (item.id, i) not in output.done)
        if missing and (item.id, None) not in output.done:
            samples[item.id] = missing
    return Pending(
        items=[item for item in items if item.id in samples],
        samples=samples,
        skipped=len(items) - len(samples),
        failed_before=sum(item.id in output.failed for item in items if item.id not in samples),
    )


def _same_question(items: Sequence[Item], output: Output, asking: Asking) -> None:
    wanted = {item.id: (item.path, asking.text(item.prompt)) for item in items}
    other = [id_ for id_, asked in wanted.items() if output.asked.get(id_, asked) != asked]
    if other:
        raise JobError(
            f"{output.name}: {len(other)} of its lines answer another question or are of another file, "
            f"such as that of {other[0]}; choose another -o, or --overwrite"
        )
