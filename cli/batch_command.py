"""`audio-r1 batch`: one request for many recordings, a JSON line each; run again to go on."""

from __future__ import annotations

import sys
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option, decoding_options, settings_given
from mlx_audio_r1.cli.working import for_many


@for_many
@click.command("batch")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", default="-", metavar="FILE", help="JSONL file to add to; - is stdout.")
@click.option("-p", "--prompt", default="", help="The question for every recording.")
@click.option("--task", "kind", type=click.Choice(["ask", "caption", "transcribe", "translate"]),
              default="ask", show_default=True, help="A request that needs no --prompt.")
@click.option("--choices", metavar="'A|B|C'", help="Make it a multiple-choice question.")
@click.option("--system-prompt", help="A system message before the question.")
@click.option("-r", "--recursive", is_flag=True, help="Folders with all that is below them.")
@click.option("--glob", "pattern", metavar="PATTERN", help="Which names in folders, such as '*.mp3'.")
@click.option("--num-samples", type=click.IntRange(1), default=1, show_default=True,
              help="Replies for each recording.")
@click.option("--max-concurrency", type=click.IntRange(1), default=8, show_default=True,
              help="Most replies at once; memory for --max-tokens of each is set aside.")
@click.option("--skip-existing/--overwrite", default=True, show_default=True,
              help="Go on with FILE, or begin it anew.")
@click.option("--retry-failed", is_flag=True, help="Do again what has failed before.")
@click.option("--limit-seconds", type=click.FloatRange(0, min_open=True), metavar="S",
              help="Refuse recordings longer than this.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("--chunk-seconds", type=float, default=25.0, show_default=True,
              help="Longest piece the encoder gets, up to 29.98.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@click.option("--no-progress", is_flag=True, help="Say nothing but failures and the result on stderr.")
@decoding_options
@click.pass_context
def batch(ctx: click.Context, inputs: tuple[str, ...], **options: Any) -> None:
    """Ask the same about many recordings; one JSON line for each, written as it finishes.

    INPUT: sound files, folders, patterns, - (a list on stdin), or a .jsonl manifest with "audio" and
    perhaps "prompt" and "id" on each line; its other columns come back under "columns". Run the same
    command again, after whatever ended it, and it goes on. Exit code 0: all good, 3: some failed, 1:
    nothing could be done. The tasks transcribe and translate hear long recordings in windows, as
    `audio-r1 transcribe` does.

    \b
    Examples:
      audio-r1 batch calls/ -o calls.jsonl -p "Is the caller angry?" --choices "yes|no"
      audio-r1 batch archive/ -r --glob "*.flac" -o text.jsonl --task transcribe
      audio-r1 batch items.jsonl -o replies.jsonl --num-samples 4 --temp 0.7 --seed 1
      find . -name "*.wav" -mtime -1 | audio-r1 batch - -o today.jsonl --task caption
      audio-r1 batch calls/ -o calls.jsonl -p "Is the caller angry?" --choices "yes|no" --retry-failed
    """
    ctx.exit(_batch(list(inputs), options))


def _batch(inputs: list[str], options: dict[str, Any]) -> int:
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(options["adapter_path"]))
    from mlx_audio_r1.cli.working import work
    from mlx_audio_r1.jobs.pending import pending
    from mlx_audio_r1.jobs.run import record
    from mlx_audio_r1.jobs.sources import find_items
    from mlx_audio_r1.jobs.transcripts import cutting

    own = {name: options.pop(name) for name in (
        "output", "recursive", "pattern", "max_concurrency", "skip_existing", "retry_failed",
        "limit_seconds", "model", "adapter_path", "chunk_seconds", "force", "no_progress")}
    asking = _asking(options)
    items = find_items(inputs, stdin=sys.stdin, recursive=own["recursive"], pattern=own["pattern"])
    output = _open_output(own, inputs)
    try:
        return work(
            pending(items, output, asking),
            asking,
            lambda config: cutting(config, asking.kind, own["chunk_seconds"], limit=own["limit_seconds"]),
            lambda outcome, model: output.write(record(outcome, asking, model)),
            own,
        )
    finally:
        output.close()


def _asking(options: dict[str, Any]) -> Any:
    from mlx_audio_r1.jobs.asking import KINDS, Asking
    from mlx_audio_r1.jobs.transcripts import TEXT_SECONDS, with_room

    own = {name: options.pop(name) for name in ("kind", "prompt", "system_prompt", "num_samples")}
    choices = options.pop("choices")
    prefill = options.pop("prefill_response")
    settings = settings_given(options)
    return Asking(
        **own,
        choices=[choice.strip() for choice in choices.split("|")] if choices else None,
        prefill=prefill,
        settings=with_room(settings, TEXT_SECONDS) if KINDS[own["kind"]].spoken else settings,
    )


def _open_output(own: dict[str, Any], inputs: list[str]) -> Any:
    from mlx_audio_r1.jobs.records import RecordFile, RecordStream

    path = own["output"]
    if path == "-":
        return RecordStream(sys.stdout.buffer, "<stdout>")
    if path in inputs:
        raise click.UsageError(f"{path} is an input; give another --output.")
    return RecordFile(path, overwrite=not own["skip_existing"], retry_failed=own["retry_failed"])
