"""What kernels ask of memory at Step-Audio-R1's shapes, what that takes at best, what stands in their place.

    python -m benchmarks.kernels.estimates [--bandwidth 819] [--simulate]

Bytes are those of each op's docstring, which the tests hold against what the simulator counts; the time is
bytes over bandwidth, so a bound and no measurement. Plain: launches of the plain operations that would run in
the model, counted in MLX's graph as launches.py does; a sort counts as one and is several.
--simulate: of one small case in the simulator, launches, and what clang took to compile its kernels; Apple's
compiler takes another time, unknown here.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from io import StringIO
from unittest.mock import patch

import mlx.core as mx

from benchmarks.kernels.launches import FAST, MARK, VIEWS, marking
from mlx_audio_r1.kernels.choice import Op
from mlx_audio_r1.kernels.proof import Case, Proof, proofs
from mlx_audio_r1.kernels.trial import outputs, seconds
from mlx_audio_r1.models.decode_attention import MEASURED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, default=819, help="GB/s; 819 is an M3 Ultra's")
    parser.add_argument("--simulate", action="store_true")
    given = parser.parse_args()
    simulate() if given.simulate else estimate(given.bandwidth)


def estimate(bandwidth: float) -> None:
    print(f"{'op':<26}{'shape':<50}{'MB':>10}{'us at best':>12}{'plain':>7}")
    for name, proof in proofs().items():
        for case in proof.shapes():
            moved = proof.op.bytes(*case.arrays, **case.options)
            plain = plain_launches(MEASURED.get(name, proof.op), case)
            print(f"{name:<26}{case.name:<50}{moved / 1e6:>10.2f}{moved / bandwidth / 1e3:>12.1f}{plain:>7}")


def plain_launches(op: Op, case: Case) -> int:
    mx.eval(case.arrays)
    dot = StringIO()
    with patch.dict(FAST, layer_norm=FAST["rms_norm"]), marking() as marks:
        mx.export_to_dot(dot, *outputs(op.reference(*case.arrays, **case.options)))
    nodes = re.findall(r'label ="(\w+)", shape=rectangle', dot.getvalue())
    return marks.calls.total() + sum(node not in VIEWS and node != MARK for node in nodes)


def simulate() -> None:
    """In an empty cache, so that everything is compiled."""
    from tests.metalsim import simulated

    print(f"{'op':<26}{'launches':>9}{'compile ms':>12}")
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        with simulated() as simulation:
            once(proofs()["add_rms_norm"], "7x1")  # and with it what all kernels share
            for name, proof in proofs().items():
                simulation.launches.clear()
                once(proof, "33x5", "33 frames")
                compiled = sum(launch.compile_seconds for launch in simulation.launches)
                print(f"{name:<26}{len(simulation.launches):>9}{compiled * 1000:>12.0f}")


def once(proof: Proof, *names: str) -> None:
    case = next(case for case in proof.cases() if case.name.startswith(names))
    seconds(proof.op.launch, case.arrays, case.options)


if __name__ == "__main__":
    main()
