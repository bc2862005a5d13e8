"""`audio-r1 eval quant`: what quantisation costs, checkpoint against checkpoint over the same items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_audio_r1.cli.options import decoding_options, settings_given

if TYPE_CHECKING:
    from mlx_audio_r1.session import AudioR1

NOT_HERE = ("preset", "prefill_response", "max_kv_size")
INTERRUPTED = 130


@click.command("quant")
@click.argument("benches", nargs=-1, required=True, metavar="BENCH_OR_DIR...")
@click.option("--model", "models", multiple=True, required=True, metavar="[NAME=]MODEL",
              help="A checkpoint; the first one is what the others are held against.")
@click.option("-o", "--output", "out", required=True, metavar="DIR", type=click.Path(path_type=Path),
              help="A folder with a run of each checkpoint; the same command goes on in it.")
@click.option("-n", "--n", "samples", type=click.IntRange(1), default=1, show_default=True,
              help="Replies to each item.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Ask N items, every group with its share.")
@click.option("--per-task", type=click.IntRange(1), default=16, show_default=True,
              help="Of a benchmark that is made on the spot: items of each task.")
@click.option("--max-rows", type=click.IntRange(1), default=8, show_default=True, help="Most replies at once.")
@click.option("--no-progress", is_flag=True, help="Say only what went wrong on stderr.")
@click.option("--json", "as_json", is_flag=True, help="The table as one JSON object on stdout.")
@decoding_options
@click.pass_context
def quant(
    ctx: click.Context, benches: tuple[str, ...], models: tuple[str, ...], out: Path, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Ask the same items of several checkpoints, and say what each loses against the first.

    Accuracy, its paired difference with a 95 % interval, and the divergence (KL) of the next-token
    distributions along the first one's reasoning, which tells small losses that accuracy cannot. One
    checkpoint is in memory at a time. DIR/quant.md and quant.json hold the table, DIR/NAME each run.

    \b
    Examples:
      audio-r1 eval quant mmau/ --limit 200 --model bf16=r1-bf16 --model 4bit=r1-4bit -o q/
      audio-r1 eval quant acoustic-world --model nano --model small=nano-4bit -o q/ --json
    """
    own = {name: options.pop(name) for name in ("samples", "limit", "per_task", "max_rows", "no_progress")}
    settings = settings_given({**options, "preset": None})
    try:
        table = _quant(benches, models, out, own, settings)
    except KeyboardInterrupt:
        click.secho("\nStopped; the same command goes on.", err=True, fg="yellow")
        ctx.exit(INTERRUPTED)
    from mlx_audio_r1.evaluate.quant_table import markdown

    click.echo(json.dumps(table, ensure_ascii=False) if as_json else markdown(table), nl=as_json)


quant.params = [param for param in quant.params if param.name not in NOT_HERE]


def _quant(
    benches: tuple[str, ...], models: tuple[str, ...], out: Path, own: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    from mlx_audio_r1.cli.training import Watch
    from mlx_audio_r1.evaluate.choosing import Choosing
    from mlx_audio_r1.evaluate.importing import ImportOptions
    from mlx_audio_r1.evaluate.quant import Checkpoint, Work, quant
    from mlx_audio_r1.evaluate.running import Running
    from mlx_audio_r1.hub import locate

    seed = settings.pop("seed", 0)
    running = Running(own["samples"], seed, settings, max_rows=own["max_rows"], grounding="off")
    options = ImportOptions(per_task=own["per_task"], seed=seed)
    work = Work(benches, running, Choosing(own["limit"], seed=seed), options)
    checkpoints = [Checkpoint(*_named(given)) for given in models]
    for one in checkpoints:
        locate(one.model)  # all are there, before hours go into the first
    watch = Watch(1, shown=not own["no_progress"])
    try:
        return quant(checkpoints, work, out, _load, lambda name: lambda what, done, total: watch.counting(
            f"{name}: {what}", done, total))
    finally:
        watch.counted()


def _named(given: str) -> tuple[str, str]:
    """NAME=MODEL, or a model that is named by the last part of its path."""
    name, sign, model = given.partition("=")
    return (name, model) if sign else (Path(given).name, given)


def _load(model: str) -> AudioR1:
    from mlx_audio_r1.session import load

    return load(model)
