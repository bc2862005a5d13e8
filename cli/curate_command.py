"""`audio-r1 data curate`: questions of the right difficulty for reinforcement learning."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click


@click.command("curate", context_settings={"show_default": True})
@click.argument("data", metavar="DATA")
@click.option("-o", "--output", metavar="DIR", required=True, help="Folder that gets train.jsonl.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano. Default: the one `ask` would use.")
@click.option("--adapter-path", metavar="DIR", help="Adapter of the model that samples.")
@click.option("--samples", type=click.IntRange(1), default=8, help="Replies to each question.")
@click.option("--strategy", type=click.Choice(["moderate", "failed", "all"]), default="moderate",
              help="Right now and then; never right; whatever it is.")
@click.option("--keep", metavar="LOW-HIGH", default="3-6", help="Right replies of 8 that are moderate.")
@click.option("--rollouts", type=click.Path(dir_okay=False), metavar="FILE",
              help="Judged rollouts of these questions by the same model, instead of sampling.")
@click.option("--max-seq-length", type=click.IntRange(8), default=10_240, help="Question and reply, in tokens.")
@click.option("--max-completion-length", type=click.IntRange(1), help="Longest reply, in tokens.")
@click.option("--max-rows", type=click.IntRange(1), default=32, help="Replies that decode at once.")
@click.option("--feature-cache", metavar="DIR", help="Where encoder outputs are kept.  [in --output]")
@click.option("--seed", type=int, default=0)
@click.option("--json", "as_json", is_flag=True, help="What came of it as one JSON object.")
def curate(
    data: str, output: str, model: str | None, adapter_path: str | None, rollouts: str | None, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Sample replies to every question of DATA and keep those that teach something.

    DATA holds train.jsonl with rows that have a solution. DIR gets train.jsonl with the questions that are
    kept, pass_counts.jsonl with all, and the rollouts. Killed, the same command goes on.

    \b
    Examples:
      audio-r1 data curate speech-qa/ -o moderate/ --model r1-4bit
      audio-r1 data curate world/ -o hard/ --strategy failed --max-seq-length 256
      audio-r1 data curate world/ -o moderate/ --rollouts run/rounds/1/rollouts.jsonl
    """
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=True)
    from mlx_audio_r1 import load
    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.cli.training import Watch
    from mlx_audio_r1.train.config import resolve
    from mlx_audio_r1.train.curate import Curation
    from mlx_audio_r1.train.curate import curate as keep_moderate
    from mlx_audio_r1.train.rl_config import RLConfig

    strategy, keep = options.pop("strategy"), _bounds(options.pop("keep"))
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"data": data, "group_size": given.pop("samples"), "adapter_path": output, "value": "none"}
    config = resolve("rl", given, kind=RLConfig)
    r1 = load(choose_model(model), adapter_path=adapter_path)
    known = Path(rollouts) if rollouts else None
    with Watch(1) as watch:
        found = keep_moderate(r1, config, Path(output), Curation(strategy, *keep), known, watch)
    _show(found, as_json)


def _bounds(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise click.UsageError(f"--keep {text!r}: expected two numbers of 0 to 8, such as 3-6") from None


def _show(found: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for passed, questions in found.counts.items():
        click.secho(f"{passed} right: {questions:,} questions", dim=True, err=True)
    click.secho(f"{found.kept:,} of {found.questions:,} questions are kept", err=True)
    click.echo(found.folder)
