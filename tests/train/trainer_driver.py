"""A run of the toy of test_trainer.py in a process of its own, which can be killed or starved of disk."""

import argparse
import json
import os
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlx_audio_r1.errors import AudioR1Error  # the package before MLX: the same BLAS as in the tests

# isort: split
import mlx.core as mx

from mlx_audio_r1.train.ranks import Ranks
from tests.train.test_trainer import STEPS, rows, trainer


def die_at(number):
    """SIGKILL before the `number`-th operation on files."""
    left = [number]

    def watch(event, _):
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def of_rank(ranks):
    cut = slice(0, 7) if ranks.first else slice(7, 12)

    def batches(step):
        x, y = rows(step)
        return [(x[cut], y[cut])]

    return batches


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--ranks", action="store_true")
    given = parser.parse_args()
    options = {}
    if given.ranks:
        ranks = Ranks.found()
        options = {"batches": of_rank(ranks), "dropout": 0.0}
    run = trainer(given.folder, steps=given.steps, **options)
    if given.ranks:
        run.ranks = ranks
    if given.limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.limit, given.limit))
    if given.die_at:
        die_at(given.die_at)
    try:
        run.run()
    except AudioR1Error as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if given.ranks:
        note_rows(given.folder, ranks, len(run.batches(0)[0][0]))


def note_rows(folder, ranks, count):
    """How many rows of a step each rank has."""
    counts = ranks.add([mx.array(count if ranks.rank == r else 0) for r in range(ranks.size)])
    if ranks.first:
        (folder / "seen.json").write_text(json.dumps({r: int(n) for r, n in enumerate(counts)}))


if __name__ == "__main__":
    main()
