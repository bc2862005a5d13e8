"""A kernel's Metal text, from metal/<name>.metal: helper functions, a line `// body`, the body."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx

FOLDER = Path(__file__).parent / "metal"
BODY = "// body\n"


@cache
def kernel(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    """The built kernel, kept, because another one would be compiled again. Only where there is Metal."""
    header, _, body = (FOLDER / f"{name}.metal").read_text(encoding="utf-8").rpartition(BODY)
    return mx.fast.metal_kernel(
        name=name, input_names=list(inputs), output_names=list(outputs), source=body, header=header
    )


def row_threads(width: int, most: int) -> int:
    """Threads of a group that works on one row: whole simdgroups, no more than the row has use for."""
    return min(most, (width + 31) // 32 * 32)
