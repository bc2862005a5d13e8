"""`audio-r1 eval score`: the replies of a run scored again, without the model. `eval run` ends with it too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.judge_words import Words
    from mlx_audio_r1.judges.judge import JudgeConfig

MOST_REASONS = 3  # that are named; summary.json and the report have all
JUDGE = (
    click.option("--judge", metavar="URL|mlx:MODEL|file",
                 help="Who judges what no rule can: an OpenAI-compatible server, a local model, or people."),
    click.option("--judge-model", default="", metavar="NAME", help="What the server calls it."),
    click.option("--judge-prompt", "judge_prompts", multiple=True, metavar="SCORER=FILE",
                 help="The authors' prompt from your copy of it; may be given several times."),
    click.option("--judge-param", "judge_params", multiple=True, metavar="NAME=VALUE",
                 help="Sent to a server in place of the authors' parameter; an empty VALUE leaves it out."),
    click.option("--judge-api-key", envvar="OPENAI_API_KEY", show_envvar=True, help="Of the server."),
)
STILL_TO_JUDGE = 3  # exit code
Judged = tuple["JudgeConfig | None", str | None, dict[str, "Words"]]


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a judge to a command."""
    for option in reversed(JUDGE):
        command = option(command)
    return command


def judge_given(options: dict[str, Any]) -> Judged:
    """The judge of these options, which are taken out: configuration, key, words by scorer."""
    kind, model, key = (options.pop(name) for name in ("judge", "judge_model", "judge_api_key"))
    prompts, params = options.pop("judge_prompts"), options.pop("judge_params")
    if kind is None:
        if model or prompts or params:
            raise click.UsageError("--judge-model, --judge-prompt and --judge-param go with --judge.")
        return None, None, {}
    from mlx_audio_r1.judges.judge import JudgeConfig

    return JudgeConfig(kind, model, params=_params(params)), key, _words(prompts)


def _params(given: tuple[str, ...]) -> dict[str, Any]:
    """name -> value, as JSON where it is that; None where nothing stands behind the sign."""
    found: dict[str, Any] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--judge-param {one}: give NAME=VALUE, such as temperature=0.")
        try:
            found[name] = json.loads(value) if value else None
        except ValueError:
            found[name] = value
    return found


def _words(prompts: tuple[str, ...]) -> dict[str, Words]:
    from mlx_audio_r1.evaluate.judge_words import words_of
    from mlx_audio_r1.evaluate.scorers import scorer

    found = {}
    for given in prompts:
        name, sign, path = given.partition("=")
        if not sign:
            raise click.UsageError(f"--judge-prompt {given}: give SCORER=FILE, such as bba.judge=prompt.txt.")
        found[name] = words_of(Path(path), scorer(name))  # type: ignore[arg-type]
    return found


@click.command("score")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="summary.json on stdout.")
@click.option("--no-progress", is_flag=True, help="Say only what went wrong on stderr.")
@judge_options
def score(folder: Path, as_json: bool, no_progress: bool, **options: Any) -> None:
    """Score the replies of a run again and make its report; nothing is asked of the model.

    DIR is a folder of `audio-r1 eval run`. With --judge also the scorers that need one; what a judge has said
    is kept, so it is asked about new replies alone. `file` writes judge_requests.jsonl and reads
    judge_responses.jsonl. Exit code 0: all is scored, 3: people have still to judge.

    \b
    Examples:
      audio-r1 eval score runs/4bit
      audio-r1 eval score runs/4bit --judge https://host/v1 --judge-model gpt-4o-mini
      audio-r1 eval score runs/4bit --judge file --json | jq .benches
    """
    judge = judge_given(options)
    show_outcome(folder, judge, as_json, shown=not no_progress)
    if judge[0] and still_to_judge(folder):
        raise SystemExit(STILL_TO_JUDGE)


def show_outcome(folder: Path, judge: Judged, as_json: bool, shown: bool) -> dict[str, Any]:
    """Score, write the report, and say how it went; gives the summary."""
    from mlx_audio_r1.cli.training import Watch
    from mlx_audio_r1.evaluate.report import write_report
    from mlx_audio_r1.evaluate.scores import score_run

    watch = Watch(1, shown=shown)
    try:
        summary = score_run(folder, *judge, tell=lambda done, total: watch.counting("verdicts", done, total))
    finally:
        watch.counted()
    page, _ = write_report(folder)
    if as_json:
        sys.stdout.write((folder / "summary.json").read_text(encoding="utf-8"))
    else:
        _show(summary)
    if judge[0] and (waits := still_to_judge(folder)):
        click.echo(waits, err=True)
    click.secho(f"Report: {page}", dim=True, err=True)
    return summary


def still_to_judge(folder: Path) -> str:
    """The line that says which verdicts are still to come, "" where none are."""
    from mlx_audio_r1.evaluate.judging import waiting_in
    from mlx_audio_r1.judges.judge import REQUESTS, RESPONSES

    if not (waiting := waiting_in(folder)):
        return ""
    return (f"{folder / REQUESTS}: {waiting:,} verdicts are still to come; write them to {RESPONSES} beside "
            f"it, then run audio-r1 eval score {folder} --judge file")  # fmt: skip


def _show(summary: dict[str, Any]) -> None:
    """The table of benchmarks, and whether its numbers may stand beside published ones."""
    from mlx_audio_r1.evaluate.report_tables import headline

    click.echo(aligned(*headline(summary["benches"])))
    for name, found in summary["benches"].items():
        reasons = found.get("comparable", {}).get("reasons", [])
        left = len(reasons) - MOST_REASONS
        more = [f"{left} reason{'s' * (left > 1)} more"] if left > 0 else []
        told = "; ".join([*reasons[:MOST_REASONS], *more])
        said = f"not paper-comparable: {told}" if reasons else "paper-comparable"
        click.echo(f"{name}: {said}", err=True)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right, two spaces between."""
    lines = [list(map(str, line)) for line in (columns, *rows)]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    padded = ([line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines)
    return "\n".join("  ".join(line) for line in padded)
