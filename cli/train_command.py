"""`audio-r1 train`: fine-tune on your own sounds; run again to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlx_audio_r1.cli.train_options import DPO, RL, SFT, given, train_options

INTERRUPTED = 130


@click.group("train")
def train() -> None:
    """Fine-tune on your own sounds: an adapter for ask, batch, chat and serve.

    Run the same command again, after whatever ended it, and it goes on to the bit.

    \b
    Examples:
      audio-r1 train sft --data sounds/ --iters 300
      audio-r1 train dpo -c dpo.yaml --data pairs/
      audio-r1 train report adapters/
      audio-r1 ask clip.wav -p "What is it?" --adapter-path adapters/
    """


@train.command("sft")
@train_options(*SFT)
@click.pass_context
def sft(ctx: click.Context, **options: Any) -> None:
    """Learn the replies of a data set (audio-r1 data check says what is in it).

    \b
    Examples:
      audio-r1 train sft --data sounds/ --iters 300
      audio-r1 train sft --model r1-4bit --data sounds/ --num-layers 16 --max-seq-length 4096
      audio-r1 train sft -c run.yaml --adapter-path adapters-2 --seed 1
      mlx.launch -n 2 --backend ring -- audio-r1 train sft --data sounds/
    """
    ctx.exit(_train("sft", options))


@train.command("dpo")
@train_options(*DPO)
@click.pass_context
def dpo(ctx: click.Context, **options: Any) -> None:
    """Learn which of two replies is better; the reference is the model without the adapter.

    \b
    Examples:
      audio-r1 train dpo --data pairs/ --beta 0.1 --iters 200
      audio-r1 train dpo --data pairs/ --resume-adapter-file adapters/adapters.safetensors \\
        --adapter-path adapters-dpo
    """
    ctx.exit(_train("dpo", options))


@train.command("rl")
@train_options(*RL)
@click.pass_context
def rl(ctx: click.Context, **options: Any) -> None:
    """Learn from rewards: sample replies, check them, make the better ones likelier.

    Rows have a solution that replies are checked against: {"messages": [...], "audios": [...],
    "solution": "B", "problem_type": "multiple choice", "options": [...]}. The defaults are the paper's: PPO,
    16 samples a prompt, one update a batch, reward 0.8 for the answer and 0.2 for reasoning.

    \b
    Examples:
      audio-r1 data world -o world/ --train 400 --valid 64
      audio-r1 train rl --data world/ --iters 40 --max-seq-length 256 --learning-rate 1e-4
      audio-r1 train rl --model r1-4bit --data speech-qa/ --value lora --num-layers 16
      audio-r1 train rl --algo dapo --data speech-qa/ --reward-functions-file mine.py
      audio-r1 train rl --data world/ --resume-adapter-file sft/adapters.safetensors --adapter-path rl/
    """
    ctx.exit(_train("rl", options))


@train.command("report")
@click.argument("folder", type=click.Path(file_okay=False), default="adapters")
def report(folder: str) -> None:
    """Make report.html of a run, also while it goes on.

    \b
    Examples:
      audio-r1 train report adapters/
    """
    from mlx_audio_r1.train.report import write_report

    click.echo(write_report(folder))


def _train(mode: str, options: dict[str, Any]) -> int:
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=True)
    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.cli.training import Watch, say_outcome
    from mlx_audio_r1.train.config import resolve
    from mlx_audio_r1.train.recipes import CONFIGS, RECIPES
    from mlx_audio_r1.train.run import fine_tune

    own = {name: options.pop(name) for name in ("file", "overwrite", "force", "no_progress", "as_json")}
    config = resolve(mode, given(options), Path(own["file"]) if own["file"] else None,
                     CONFIGS[mode])  # fmt: skip
    config = config.with_model(choose_model(config.model))
    with Watch(config.iters, shown=not own["no_progress"]) as watch:
        outcome = fine_tune(config, RECIPES[mode], watch, overwrite=own["overwrite"], force=own["force"])
    if outcome.first:
        say_outcome(outcome, own["as_json"])
    return 0 if outcome.finished else INTERRUPTED
