"""`audio-r1 eval run`: ask the items of benchmarks, score the replies, make the report; run again to go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlx_audio_r1.cli.eval_score_command import judge_given, judge_options, show_outcome
from mlx_audio_r1.cli.options import adapter_option, decoding_options, settings_given
from mlx_audio_r1.cli.progress import clock

SOME_FAILED, INTERRUPTED = 3, 130  # exit codes
NOT_HERE = ("preset", "prefill_response", "max_kv_size")  # options of decoding that have no place in a run
CONTROL_NAMES = "silence, noise, shuffle, none"


def _without(*names: str) -> Callable[[click.Command], click.Command]:
    def drop(command: click.Command) -> click.Command:
        command.params = [param for param in command.params if param.name not in names]
        return command

    return drop


@_without(*NOT_HERE)
@click.command("run")
@click.argument("benches", nargs=-1, required=True, metavar="BENCH_OR_DIR...")
@click.option("-o", "--output", "out", required=True, metavar="DIR", type=click.Path(path_type=Path),
              help="The run's folder; the same command goes on in it.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("-n", "--n", "samples", type=click.IntRange(1), default=1, show_default=True,
              help="Replies to each item; several give pass@k and votes.")
@click.option("--limit", type=click.IntRange(1), metavar="N",
              help="Ask N items of each benchmark, every group with its share, drawn by --seed.")
@click.option("--preset", "share", type=click.Choice(["mini"]),
              help="mini: 100 items of each benchmark, 200 of one that has 1,000.")
@click.option("--prompt-profile", "profile", metavar="NAME", help="Ask in other words than the authors'.")
@click.option(
    "--option-style", metavar="NAME", help="How options are written: step-r1, none, brackets, mmsu, air-bench."
)
@click.option("--budgets", default="", metavar="N,N,...",
              help="Also the answers after N tokens of reasoning, such as 0,64,256,1024,4096.")
@click.option("--answer-tokens", type=click.IntRange(1), default=64, show_default=True,
              help="Most tokens of an answer behind a cut reasoning.")
@click.option("--controls", default="", metavar="NAME,...",
              help=f"Also with something else in the place of the sound: {CONTROL_NAMES}.")
@click.option("--control-budget", type=click.IntRange(0), metavar="N",
              help="Reasoning under controls closed after N tokens, and compared with the sound's.")
@click.option("--grounding", type=click.Choice(["off", "fast", "full"]), default="fast", show_default=True,
              help="Measure whether the reasoning listens; full takes several times as long.")
@click.option("--per-task", type=click.IntRange(1), default=16, show_default=True,
              help="Of a benchmark that is made on the spot: items of each task.")
@click.option("--max-rows", type=click.IntRange(1), default=8, show_default=True,
              help="Most replies at once; memory for --max-tokens of each is set aside.")
@click.option("--retry-failed", is_flag=True, help="Do again what has failed before.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@click.option("--no-progress", is_flag=True, help="Say only what went wrong on stderr.")
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout.")
@judge_options
@decoding_options
@click.pass_context
def run(ctx: click.Context, benches: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Ask benchmarks, score the replies and make the report.

    BENCH_OR_DIR: a folder of `audio-r1 eval import`, a file of items, or acoustic-world or self-cognition,
    which are made on the spot. Settings are the benchmark's authors', unless given here. DIR gets a line for
    each reply at once (results.jsonl), then scores.jsonl, summary.json, report.html, report.md and
    predictions/. Run the same command again, after whatever ended it, and it goes on; more samples, budgets
    or controls may be asked of the same DIR. Exit code 0: all good, 3: some replies are errors.

    \b
    Examples:
      audio-r1 eval run acoustic-world --model nano -o runs/nano --budgets 0,8,16,32
      audio-r1 eval run mmau/ mmar/ -o runs/4bit --preset mini --controls silence
      audio-r1 eval run mmau/ -o runs/votes --n 8 --grounding off
      audio-r1 eval run self-cognition -o runs/hearing --temp 1.0
    """
    judge = judge_given(options)
    if options["share"] and options["limit"]:
        raise click.UsageError("--preset and --limit exclude each other: give one.")
    own = {name: options.pop(name) for name in (
        "model", "adapter_path", "samples", "limit", "share", "profile", "option_style", "budgets",
        "answer_tokens", "controls", "control_budget", "grounding", "per_task", "max_rows", "retry_failed",
        "force", "no_progress")}  # fmt: skip
    try:
        _run(benches, out, own, settings_given({**options, "preset": None}))
    except KeyboardInterrupt:
        click.secho("\nStopped; the same command goes on.", err=True, fg="yellow")
        ctx.exit(INTERRUPTED)
    summary = show_outcome(out, judge, as_json, shown=not own["no_progress"])
    errors = sum(found["errors"] for found in summary["benches"].values())
    if errors:
        click.secho(f"{errors} replies are errors; --retry-failed does them again", err=True, fg="yellow")
    ctx.exit(SOME_FAILED if errors else 0)


def _run(benches: tuple[str, ...], out: Path, own: dict[str, Any], settings: dict[str, Any]) -> None:
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(own["adapter_path"]))
    from mlx_audio_r1.cli.model_choice import choose_model, notice_nano
    from mlx_audio_r1.cli.training import Watch
    from mlx_audio_r1.evaluate.choosing import Choosing, open_sources
    from mlx_audio_r1.evaluate.importing import ImportOptions
    from mlx_audio_r1.evaluate.run import run_items
    from mlx_audio_r1.session import load

    seed = settings.pop("seed", 0)
    model = choose_model(own["model"])
    running = _running(own, settings, seed, _room(model, own, settings))
    choosing = Choosing(own["limit"], own["share"], seed, own["profile"], own["option_style"])
    watch = Watch(1, shown=not own["no_progress"])
    try:
        sources = open_sources(benches, out, choosing, ImportOptions(per_task=own["per_task"], seed=seed),
                               lambda number: watch.counting("making questions", number))  # fmt: skip
    finally:
        watch.counted()
    r1 = load(model, adapter_path=own["adapter_path"])
    notice_nano(r1.config.raw)
    try:
        run_items(r1, sources, out, running, _Told(watch))
    finally:
        watch.counted()


class _Told:
    """Which phase it is, how far that is, and how long it may take: on a terminal."""

    def __init__(self, watch: Any):
        self._watch, self._name, self._since = watch, "", 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if name != self._name:
            self._name, self._since = name, now
        left = f" ({clock((now - self._since) / done * (total - done))} left)" if 0 < done < total else ""
        self._watch.counting(f"{name}{left}", done, total)


def _running(own: dict[str, Any], settings: dict[str, Any], seed: int, room: int | None) -> Any:
    from mlx_audio_r1.evaluate.budgets import parse_budgets
    from mlx_audio_r1.evaluate.running import Running

    names = ("samples", "answer_tokens", "control_budget", "grounding", "max_rows", "retry_failed")
    controls = tuple(name.strip() for name in own["controls"].split(",") if name.strip())
    return Running(**{name: own[name] for name in names}, seed=seed, settings=settings, room=room,
                   budgets=parse_budgets(own["budgets"]), controls=controls)  # fmt: skip


def _room(model: str | None, own: dict[str, Any], settings: dict[str, Any]) -> int | None:
    """Tokens there is memory for; None where the length of a reply was given, or is nobody's concern."""
    from mlx_audio_r1.cli.room import reply_room

    if own["force"]:
        return None
    room = reply_room(model, [], "", settings, own["adapter_path"])
    return None if "max_tokens" in settings else room


