"""What `batch` and `transcribe` share: load, go through the recordings, say how it went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import click

from mlx_audio_r1.cli.progress import Progress, in_words

NOTHING_DONE, SOME_FAILED, INTERRUPTED = 1, 3, 130  # exit codes; 0 when all is good


def for_many(command: click.Command) -> click.Command:
    """The command without the option that a batch cannot have: a rotating cache."""
    command.params = [param for param in command.params if param.name != "max_kv_size"]
    return command


def work(
    todo: Any,
    asking: Any,
    cut: Callable[[Any], Any],
    keep: Callable[[Any, str], list[str] | None],
    own: dict[str, Any],
) -> int:
    """Do what is pending and give the exit code.

    cut: configuration -> Cutting. keep: takes every outcome and the model's name, gives lines to say.
    own: the options model, adapter_path, chunk_seconds, max_concurrency, skip_existing, force and no_progress.
    """
    from mlx_audio_r1.cli.model_choice import choose_model, notice_nano
    from mlx_audio_r1.cli.room import reply_room
    from mlx_audio_r1.generate import Settings
    from mlx_audio_r1.jobs.run import outcomes
    from mlx_audio_r1.session import load

    Settings(**asking.options())  # wrong values are said before anything is loaded
    _say_what_is_done(todo)
    if not todo.items:
        return SOME_FAILED if todo.failed_before else 0
    model = choose_model(own["model"])
    room = None if own["force"] else reply_room(model, [], "", asking.options(), own["adapter_path"])
    try:
        r1 = load(model, adapter_path=own["adapter_path"], chunk_seconds=own["chunk_seconds"])
    except KeyboardInterrupt:
        return INTERRUPTED
    notice_nano(r1.config.raw)
    progress = Progress(len(todo.items), shown=not own["no_progress"])
    stream = outcomes(r1, todo.items, asking, cut(r1.config), samples=todo.samples,
                      max_rows=own["max_concurrency"], room=room,
                      on_part=lambda heard, share: progress.part(heard.item.id, heard.duration, share))
    left = {item.id: len(todo.samples[item.id]) for item in todo.items}
    interrupted = False
    try:
        with closing(stream):
            for outcome in stream:
                progress.clear()  # stdout may be the same terminal
                for line in keep(outcome, r1.name) or ():
                    progress.say(line)
                _count(outcome, left, progress)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        progress.clear()
    go_on = "run the same command to go on" if own["skip_existing"] else "go on with --skip-existing"
    _say_how_it_went(progress, todo, go_on if interrupted else "")
    return INTERRUPTED if interrupted else _exit_code(progress, todo)


def _count(outcome: Any, left: dict[str, int], progress: Progress) -> None:
    if outcome.error is not None:
        progress.broken(outcome.item.id, f"failed: {outcome.error}")
        return
    left[outcome.item.id] -= 1
    if not left[outcome.item.id]:
        progress.finished(outcome.item.id, outcome.recording.duration)


def _exit_code(progress: Progress, todo: Any) -> int:
    if not progress.failed + todo.failed_before:
        return 0
    any_good = progress.done or todo.skipped > todo.failed_before
    return SOME_FAILED if any_good else NOTHING_DONE


def _say_what_is_done(todo: Any) -> None:
    if todo.skipped:
        failed = f", {todo.failed_before} of them failed (--retry-failed)" if todo.failed_before else ""
        click.secho(f"{todo.skipped} done already{failed}", dim=True, err=True)


def _say_how_it_went(progress: Progress, todo: Any, go_on: str) -> None:
    left = len(todo.items) - progress.done - progress.failed
    parts = [f"{progress.done} done"]
    parts += [f"{progress.failed} failed"] if progress.failed else []
    parts += [f"{left} left: {go_on}"] if go_on else []
    sound = f"; {in_words(progress.sound)} of sound" if progress.sound else ""
    click.secho(f"{', '.join(parts)}{sound} in {progress.took()}", err=True,
                fg="yellow" if go_on or progress.failed else None)
