"""`audio-r1 kernels`: the Metal kernels, whether they run here, are right here, and are worth it here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING, Any

import click

from mlx_audio_r1.kernels.proofs import names

if TYPE_CHECKING:
    from mlx_audio_r1.kernels.proof import Proof
    from mlx_audio_r1.kernels.verify import Result

NO_METAL = (
    "no Metal here, so no kernel can run. Without it they are proven in a simulator, "
    "in a clone with clang 17 or newer: python -m pytest tests/kernels (docs/kernels.md)"
)
NOTICE = (
    "Where AUDIO_R1_KERNELS (off, auto, on, op=mode) says nothing, an op is off until "
    "`audio-r1 kernels --verify` has passed for it on this device, and auto from then on."
)


@click.command("kernels")
@click.option("--verify", is_flag=True, help="Run every case of every op here, against float64.")
@click.option("--bench", is_flag=True, help="Time kernels and plain operations at Step-Audio-R1's shapes.")
@click.option("--op", "ops", type=click.Choice(names()), multiple=True, metavar="NAME", help="Of this op only.")
@click.option("--case", "cases", multiple=True, metavar="NAME", help="Of this case, or shape, only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def kernels(verify: bool, bench: bool, ops: tuple[str, ...], cases: tuple[str, ...], as_json: bool) -> None:
    """List the Metal kernels: the switch, whether each runs here, and the winners that `auto` has measured.

    A kernel that does not compile here, or gives other numbers than plain operations, is never used: those
    stand in for it, with one warning.

    \b
    Examples:
      audio-r1 kernels
      audio-r1 kernels --verify
      audio-r1 kernels --bench --op quantised_attention
      AUDIO_R1_KERNELS=auto,sample=off audio-r1 ask clip.wav
    """
    if verify and bench:
        raise click.UsageError("Either --verify or --bench.")
    if cases and not (verify or bench):
        raise click.UsageError("--case goes with --verify or --bench.")
    from mlx_audio_r1.cli.startup import import_engine
    from mlx_audio_r1.kernels.proof import proofs

    import_engine()
    chosen = [proof for name, proof in proofs().items() if not ops or name in ops]
    if verify:
        _verify(chosen, cases, as_json)
    elif bench:
        _bench(chosen, cases, as_json)
    else:
        _list(chosen, as_json)


def _list(chosen: list[Proof], as_json: bool) -> None:
    from mlx_audio_r1.cli.kernels_table import listed_lines
    from mlx_audio_r1.kernels.listing import listed

    rows = listed(chosen)
    _shown(as_json, {"ops": [asdict(row) for row in rows]}, listed_lines(rows))
    click.secho(NOTICE, dim=True, err=True)


def _verify(chosen: list[Proof], cases: tuple[str, ...], as_json: bool) -> None:
    """Only what ran whole is kept as the outcome for this device."""
    from mlx_audio_r1.cli.kernels_table import verified_lines
    from mlx_audio_r1.kernels.listing import record
    from mlx_audio_r1.kernels.verify import verify

    _need_metal()
    results = []
    for proof in chosen:
        some = [case for case in proof.cases() if case.name in cases] if cases else None
        if some == []:
            continue
        results.append(result := verify(proof, some))
        if some is None:
            record(result.op, result.passed)
        _shown(as_json, None, verified_lines(result))
    _need_some(results, cases)
    _shown(as_json, {"ops": [_facts(result) for result in results]}, ())
    if not all(result.passed for result in results):
        raise SystemExit(1)


def _facts(result: Result) -> dict[str, Any]:
    """An error without end is none in JSON."""
    facts = asdict(result) | {"passed": result.passed}
    if result.worst is not None:
        facts["worst"] |= {"error": result.worst.error if result.worst.error < inf else None}
    return facts


def _bench(chosen: list[Proof], cases: tuple[str, ...], as_json: bool) -> None:
    """Against the plain operations that would run in the model."""
    from mlx_audio_r1.cli.kernels_table import bandwidth, bench_head, bench_line
    from mlx_audio_r1.kernels.bench import bench
    from mlx_audio_r1.models.decode_attention import MEASURED

    _need_metal()
    known, rows = bandwidth(), []
    _shown(as_json, None, bench_head(known))
    for proof in chosen:
        shapes = [case for case in proof.shapes() if not cases or case.name in cases]
        for row in bench(MEASURED.get(proof.op.name, proof.op), shapes):
            rows.append(row)
            _shown(as_json, None, (bench_line(row, known),))
    _need_some(rows, cases)
    shown = [asdict(row) | {"ratio": row.ratio, "gigabytes_a_second": row.gigabytes_a_second,
                            "share_of_bandwidth": row.share(known)} for row in rows]
    _shown(as_json, {"bandwidth": known, "shapes": shown}, ())


def _need_some(found: Sequence[object], cases: tuple[str, ...]) -> None:
    if not found:
        raise click.UsageError(f"No op has a case called {' or '.join(cases)}.")


def _need_metal() -> None:
    from mlx_audio_r1.errors import AudioR1Error
    from mlx_audio_r1.kernels.choice import on_metal

    if not on_metal():
        raise AudioR1Error(NO_METAL)


def _shown(as_json: bool, whole: dict[str, Any] | None, lines: Iterator[str] | tuple[str, ...]) -> None:
    """The whole as JSON with where it was found out, or the lines."""
    from mlx_audio_r1.kernels.found import place

    if not as_json:
        for line in lines:
            click.echo(line)
    elif whole is not None:
        click.echo(json.dumps({"place": place(), **whole}, ensure_ascii=False, indent=2, allow_nan=False))
