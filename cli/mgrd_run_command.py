"""`audio-r1 mgrd run`: the whole method, from a cold start to the last round."""

from __future__ import annotations

import json
from pathlib import Path

import click

INTERRUPTED = 130


@click.command("run")
@click.argument("config", metavar="YAML", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", metavar="DIR", required=True, help="The run's folder.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano; beats the file.")
@click.option("--rounds", type=click.IntRange(0), help="Beats the file; a finished run may get more.")
@click.option("--until", metavar="PHASE", help="Stop behind this phase, such as 1/filter.")
@click.option("--judge-api-key", envvar="OPENAI_API_KEY", show_envvar=True, help="Where filters ask a server.")
@click.option("--no-progress", is_flag=True, help="Say only what went wrong on stderr.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as one JSON object.")
@click.pass_context
def run(
    ctx: click.Context, config: str, output: str, model: str | None, rounds: int | None, until: str | None,
    judge_api_key: str | None, no_progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Modality-grounded reasoning distillation: sample, keep what listens, fine-tune, reinforce, again.

    YAML describes the run (docs/mgrd.md has every key). DIR gets data, adapters, every filter's decision and
    report.html. Run again, after whatever ended it, and it goes on where it was.

    \b
    Examples:
      audio-r1 mgrd run mgrd.yaml -o run/
      audio-r1 mgrd run mgrd.yaml -o run/ --until 1/filter
      audio-r1 mgrd status run/
    """
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=True)
    from dataclasses import replace

    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.cli.training import Watch
    from mlx_audio_r1.mgrd.config import read_config
    from mlx_audio_r1.mgrd.run import run as do_all

    told = read_config(Path(config))
    told = replace(told, model=choose_model(model or told.model))
    if rounds is not None:
        told = replace(told, rounds=rounds)
    with Watch(1, shown=not no_progress) as watch:
        outcome = do_all(told, Path(output), watch, until, judge_api_key)
    if as_json:
        click.echo(json.dumps(outcome.as_dict()))
    else:
        click.echo(outcome.adapter or outcome.folder)
        click.secho(f"Report: {outcome.report}", dim=True, err=True)
    ctx.exit(0 if outcome.finished or until else INTERRUPTED)
