"""Peak memory of `audio-r1 transcribe` on a recording of so many minutes: noise with a pause every ten seconds.

    python benchmarks/long_recording.py 10 180 --model tests/golden/tiny-fp32
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def make(path: Path, minutes: int) -> None:
    """Nine seconds of noise and one of silence, again and again."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(minutes * 6):
            file.write(np.concatenate([rng.normal(size=9 * RATE) * 0.1, np.zeros(RATE)]))


def measure(path: Path, model: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of one run in a process of its own."""
    command = [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", "transcribe", str(path),
               "-o", str(path.parent), "--model", model, "-m", "2", "--no-progress"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"transcribe ended with {status}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=int, nargs="+")
    parser.add_argument("--model", default="tests/golden/tiny-fp32")
    options = parser.parse_args()
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.wav"
            make(path, minutes)
            seconds, cpu, peak = measure(path, options.model)
            print(f"{minutes} min: {seconds:.0f} s, {cpu:.0f} s of CPU, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
