"""The authors' own script on our prediction files, beside our summary: the same numbers, or the command fails.

    python scripts/official_scores.py mmau ~/MMAU/evaluation.py RUN
    python scripts/official_scores.py spoken-mqa ~/AudioBench/src RUN     # the folder; needs latex2sympy2

RUN is a folder of `audio-r1 eval run`, with summary.json and predictions/. The script is yours: none is part of
this repository. What is compared are counts, right and all, over everything and in each group that the script
prints; a share printed with two decimals gives them back exactly up to 5,000 questions.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Counts = Mapping[tuple[str, str], tuple[int, int]]  # (group, its value) -> (right, all); ("", "") is everything
_SHARE = re.compile(r"^(.+?) ?: ([\d.]+)% over (\d+) samples", re.MULTILINE)
SPOKEN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from dataset_src import spoken_mqa
rows = json.load(open(sys.argv[2], encoding="utf-8"))
kind = "arithmatic" if "digit" in sys.argv[2] else "reasoning"
acc = getattr(spoken_mqa, f"spokenmqa_dataset_{kind}")([], -1).compute_score(rows, "acc")["acc"]
print(f"ACC {acc} {len(rows)}")
"""


@dataclass(frozen=True)
class Official:
    """files: pattern of prediction files -> the scorer whose numbers they must give."""

    files: Mapping[str, str]
    run: Callable[[Path, Path], Counts]


@dataclass(frozen=True)
class Row:
    scorer: str
    group: str
    ours: tuple[int, int] | None
    official: tuple[int, int]

    @property
    def same(self) -> bool:
        return self.ours == self.official


def compare(bench: str, script: Path, run: Path) -> list[Row]:
    """One row for each number that the script gives."""
    official = OFFICIAL[bench]
    if not (run / "predictions").is_dir():
        sys.exit(f"{run}: no predictions/ in it; give the folder of audio-r1 eval run")
    scorers = json.loads((run / "summary.json").read_text(encoding="utf-8"))["benches"][bench]["scorers"]
    rows: list[Row] = []
    for pattern, scorer in official.files.items():
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for file in sorted((run / "predictions").glob(pattern)):
            found.update(official.run(script, file))
        if found and ("", "") not in found:  # the split files of one benchmark: its number is over all
            right, n = map(sum, zip(*found.values(), strict=True))
            found["", ""] = right, n
        rows += [Row(scorer, "=".join(filter(None, key)), ours(scorers[scorer], *key), counts)
                 for key, counts in found.items() if counts[1]]  # fmt: skip
    return rows


def ours(summary: Mapping, group: str, value: str) -> tuple[int, int] | None:
    """(right, all) of a group of our summary."""
    found = summary if not group else summary["groups"].get(group, {}).get(value)
    return (round(found["value"] * found["n"]), found["n"]) if found and found["n"] else None


def by_sections(**sections: str) -> Callable[[Path, Path], Counts]:
    """MMAU's and MMAR's script. sections: a word of a heading -> the group's name."""

    def run(script: Path, file: Path) -> Counts:
        said = _run(script, "--input", str(file))
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for part in said.split("*" * 30):
            heading = part.strip().partition("\n")[0]
            name = next((group for word, group in sections.items() if word in heading), "")
            for value, share, n in _SHARE.findall(part):
                key = ("", "") if value == "Total Accuracy" else (name, value)
                found[key] = round(float(share) * int(n) / 100), int(n)
        return found

    return run


def mmsu(script: Path, file: Path) -> Counts:
    """Shares with four decimals; how many questions a category has, it does not say."""
    said = _run(script, str(file))
    n = int(re.search(r"Total count: (\d+)", said)[1])
    return {("", ""): (round(float(re.search(r"Overall Accuracy: ([\d.]+)", said)[1]) * n), n)}


def airbench(script: Path, file: Path) -> Counts:
    """It reads one name in the folder it runs in."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, Path(folder) / "Foundation_result_modelx.jsonl")
        said = _run(script, folder=folder)
    found = re.findall(r"^(.+): Sum=(\d+), correct=(\d+)", said, re.MULTILINE)
    return {("", ""): (sum(int(right) for _, _, right in found), sum(int(n) for _, n, _ in found))}


def spoken_mqa(source: Path, file: Path) -> Counts:
    said = _run("-c", SPOKEN, str(source), str(file))
    share, n = re.search(r"ACC ([\d.e-]+) (\d+)", said).groups()
    return {("split", file.stem.removeprefix("spoken-mqa_")): (round(float(share) * int(n)), int(n))}


OFFICIAL = {
    "mmau": Official(
        {"mmau_predictions.json": "mmau.official", "mmau_predictions_plain.json": "mmau.official_plain"},
        by_sections(**{"Task-wise": "task", "Difficulty-wise": "difficulty", "Sub-category": "sub_category"}),
    ),
    "mmar": Official(
        {"mmar_predictions.jsonl": "mmar.official", "mmar_predictions_plain.jsonl": "mmar.official_plain"},
        by_sections(**{"Modality": "modality", "Category-wise": "category", "Sub-category": "sub_category"}),
    ),
    "mmsu": Official({"mmsu_predictions.jsonl": "mmsu.official"}, mmsu),
    "air-bench-foundation": Official({"Foundation_result*.jsonl": "airbench.official"}, airbench),
    "spoken-mqa": Official({"spoken-mqa_*.json": "spokenmqa.official"}, spoken_mqa),
}


def _run(*arguments: str | Path, folder: str | None = None) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arguments[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def main(bench: str, script: str, run: str) -> int:
    rows = compare(bench, Path(script).resolve(), Path(run).resolve())
    for row in rows:
        mine, theirs = ("{}/{}".format(*counts) if counts else "none" for counts in (row.ours, row.official))
        end = "" if row.same else "  DIFFERS"
        print(f"{row.scorer:24} {row.group or 'all':40} ours {mine:>10}  official {theirs:>10}{end}")
    return 0 if rows and all(row.same for row in rows) else 1


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in OFFICIAL:
        sys.exit(f"usage: official_scores.py {{{','.join(OFFICIAL)}}} SCRIPT RUN")
    sys.exit(main(*sys.argv[1:]))
