"""What others have published, as the paper's tables have it, in percent. Facts, with their source.

R1: arXiv 2511.15848, Table 1 (speech to text). R1.5: arXiv 2604.25719 and the README of its release. The
surprise: the two papers of one author give Step-Audio-R1 different numbers; both are here, and together they
are the band to compare with.
"""

from __future__ import annotations

TABLE_1 = ("big-bench-audio", "spoken-mqa", "mmsu", "mmau", "wildspeech")  # its columns, behind the average
_R1 = {
    "Step-Audio 2": (59.1, 88.8, 64.3, 78.0, 51.1),
    "Gemini 2.5 Pro": (96.1, 94.8, 79.3, 77.4, 60.0),
    "Gemini 3 Pro": (92.1, 95.3, 82.9, 78.9, 76.4),
    "Step-Audio-R1": (98.7, 95.2, 75.9, 77.7, 70.6),
}
_R15_COLUMNS = ("audio-mc", "big-bench-audio", "mmsu", "mmau", "spoken-mqa", "step-caption", "step-dialogue",
                "step-spqa")  # fmt: skip
_R15 = {
    "Gemini 3 Flash (R1.5)": (56.42, 96.80, 76.64, 75.90, 95.37, 65.12, 80.46, 73.80),
    "Gemini 3 Pro (R1.5)": (66.37, 99.40, 83.70, 79.80, 96.56, 75.55, 72.41, 63.60),
    "qwen3.5-omni-flash (R1.5)": (25.44, 59.59, 72.50, 77.20, 93.39, 73.57, 83.91, 78.80),
    "qwen3.5-omni-plus (R1.5)": (39.38, 73.03, 82.74, 79.60, 96.03, 74.93, 85.63, 74.80),
    "Step-Audio-R1 (R1.5)": (24.61, 98.29, 75.68, 77.00, 95.06, 70.60, 64.37, 74.36),
    "Step-Audio-R1.5 (R1.5)": (41.15, 98.30, 79.03, 77.90, 93.74, 71.48, 82.76, 79.40),
}
OURS = ("Step-Audio-R1", "Step-Audio-R1 (R1.5)")  # the band that a port is held against
PUBLISHED: dict[str, dict[str, float]] = {  # model -> bench -> percent
    **{model: dict(zip(TABLE_1, row, strict=True)) for model, row in _R1.items()},
    **{model: dict(zip(_R15_COLUMNS, row, strict=True)) for model, row in _R15.items()},
}


def average(row: dict[str, float]) -> float | None:
    """The paper's Avg: the unweighted mean of the five; None where one is missing."""
    return sum(row[name] for name in TABLE_1) / len(TABLE_1) if all(name in row for name in TABLE_1) else None


def band(bench: str) -> tuple[float, float] | None:
    """The least and the most that Step-Audio-R1 is said to have, in percent."""
    values = [PUBLISHED[model][bench] for model in OURS if bench in PUBLISHED[model]]
    return (min(values), max(values)) if values else None
