"""`audio-r1 transcribe`: recordings of any length -> text and subtitle files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option, decoding_options, settings_given
from mlx_audio_r1.cli.working import for_many

FORMATS = ("txt", "vtt", "srt", "tsv", "json")  # as mlx_whisper lists them
LANGUAGES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French", "hi": "Hindi",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese",
}


@for_many
@click.command("transcribe")
@click.argument("audio", nargs=-1, required=True, metavar="AUDIO...")
@click.option("-o", "--output-dir", default=".", show_default=True, metavar="DIR",
              help="Where the files go; - prints the text instead.")
@click.option("-f", "--output-format", type=click.Choice([*FORMATS, "all"]), default="txt",
              show_default=True, help="What to write.")
@click.option("--output-name", metavar="NAME", help="Name without suffix, for one AUDIO.")
@click.option("--language", help="The language spoken, such as en or English.")
@click.option("--task", "kind", type=click.Choice(["transcribe", "translate"]), default="transcribe",
              show_default=True, help="translate gives English.")
@click.option("--initial-prompt", metavar="TEXT", help="Names and words to expect.")
@click.option("--chunk-duration", type=click.FloatRange(0), metavar="S",
              help="Most seconds heard at once, cut in pauses; 0: all that fits the context. Beyond minutes "
                   "a model tends to summarise. [default: 120; 25 for vtt, srt, tsv and all]")
@click.option("--overlap", type=click.FloatRange(0), default=5.0, show_default=True, metavar="S",
              help="Seconds heard twice where no pause is found.")
@click.option("--skip-existing", is_flag=True, help="Leave out what has all its files already.")
@click.option("-r", "--recursive", is_flag=True, help="Folders with all that is below them.")
@click.option("--max-concurrency", type=click.IntRange(1), default=8, show_default=True,
              help="Most windows in the making at once.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("--chunk-seconds", type=float, default=25.0, show_default=True,
              help="Longest piece the encoder gets, up to 29.98.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@click.option("--no-progress", is_flag=True, help="No progress on stderr.")
@decoding_options
@click.pass_context
def transcribe(ctx: click.Context, audio: tuple[str, ...], **options: Any) -> None:
    """Write down what is said in AUDIO: files, folders, patterns, .jsonl manifests, or - (sound on stdin).

    Long recordings are heard in windows cut in pauses; silence is skipped and reported. The times in
    subtitles are those of the windows: the model knows no finer ones. Greedy and without reasoning
    unless --temp or --enable-thinking is given. No file of one AUDIO replaces that of another. Exit
    code 0: all good, 3: some failed, 1: nothing could be done.

    \b
    Examples:
      audio-r1 transcribe talk.m4a
      audio-r1 transcribe interviews/ -r -o text/ -f all --skip-existing
      audio-r1 transcribe lecture.mp3 -f srt --language de --chunk-duration 15
      audio-r1 transcribe call.wav --task translate --initial-prompt "Acme, Zürich"
      ffmpeg -i film.mkv -f wav - | audio-r1 transcribe - -o - -f json
    """
    ctx.exit(_transcribe(list(audio), options))


def _transcribe(audio: list[str], options: dict[str, Any]) -> int:
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(options["adapter_path"]))
    from mlx_audio_r1.cli.working import work
    from mlx_audio_r1.jobs import outputs
    from mlx_audio_r1.jobs.transcripts import cutting

    own = {name: options.pop(name) for name in (
        "output_dir", "output_format", "output_name", "chunk_duration", "overlap", "skip_existing",
        "recursive", "max_concurrency", "model", "adapter_path", "chunk_seconds", "force", "no_progress")}
    formats = FORMATS if own["output_format"] == "all" else (own["output_format"],)
    _check(own, audio)
    asking = _asking(options, _window(own))
    items = _items(audio, own["recursive"])
    if len(items) > 1 and own["output_dir"] == "-" and own["output_format"] != "json":
        raise click.UsageError(f"--output-dir - mixes the texts of {len(items)} files: use -f json.")
    stems = _stems(items, own["output_name"])
    folder = Path(own["output_dir"])
    todo = outputs.missing(items, stems, folder, formats if own["skip_existing"] else ())
    keep = _Keeper(asking, None if own["output_dir"] == "-" else folder, stems, formats)
    return work(
        todo,
        asking,
        lambda config: cutting(config, asking.kind, own["chunk_seconds"],
                               window=_window(own), overlap=own["overlap"]),
        keep,
        own,
    )


def _check(own: dict[str, Any], audio: list[str]) -> None:
    if own["output_dir"] == "-" and own["output_format"] == "all":
        raise click.UsageError("--output-format all needs files: give an --output-dir.")
    if own["chunk_duration"] is not None and 0 < own["chunk_duration"] < 1:
        raise click.UsageError("--chunk-duration is at least 1 second, or 0 for all that fits.")
    if own["output_name"] and len(audio) > 1:
        raise click.UsageError("--output-name goes with one AUDIO; several would overwrite each other.")
    if own["output_name"] and Path(own["output_name"]).name != own["output_name"]:
        raise click.UsageError("--output-name is a name; --output-dir says where.")


def _asking(options: dict[str, Any], window: float | None) -> Any:
    from mlx_audio_r1.jobs.asking import Asking
    from mlx_audio_r1.jobs.transcripts import with_room

    language = options.pop("language")
    return Asking(
        options.pop("kind"),
        language=LANGUAGES.get(language, language),
        context=options.pop("initial_prompt"),
        prefill=options.pop("prefill_response"),
        settings=with_room(settings_given(options), window),
    )


def _items(audio: list[str], recursive: bool) -> list[Any]:
    from mlx_audio_r1.jobs.sources import Item, find_items

    items = find_items((given for given in audio if given != "-"), recursive=recursive)
    if "-" not in audio:
        return items
    if sys.stdin.isatty():
        raise click.UsageError("- reads sound from stdin, but nothing is piped in.")
    return [*items, Item("-", "-", inside="-", content=sys.stdin.buffer.read())]


def _stems(items: list[Any], name: str | None) -> dict[str, str]:
    from mlx_audio_r1.jobs import outputs

    if name and len(items) > 1:
        raise click.UsageError(f"--output-name goes with one AUDIO, and {len(items)} were found.")
    return {item.id: name for item in items} if name else outputs.stems(items)


def _window(own: dict[str, Any]) -> float | None:
    """Longest window in seconds; None for as long as fits."""
    from mlx_audio_r1.jobs.transcripts import CUE_SECONDS, TEXT_SECONDS

    if own["chunk_duration"] is None:
        return TEXT_SECONDS if own["output_format"] in ("txt", "json") else CUE_SECONDS
    return own["chunk_duration"] or None


class _Keeper:
    """Writes the files of a transcript, or prints it, and says what became of it."""

    def __init__(self, asking: Any, folder: Path | None, stems: dict[str, str], formats: tuple[str, ...]):
        self._asking, self._folder, self._stems, self._formats = asking, folder, stems, formats
        self._rates: list[float] = []  # words a minute of the run so far

    def __call__(self, outcome: Any, model: str) -> list[str]:
        from mlx_audio_r1.jobs import outputs
        from mlx_audio_r1.jobs.subtitles import WRITERS
        from mlx_audio_r1.jobs.transcripts import judged_rates, summary, transcript

        if outcome.error is not None:
            return []
        done = transcript(outcome, self._asking, model, self._rates)
        self._rates += judged_rates(done.segments)
        if self._folder is None:
            click.echo(WRITERS[self._formats[0]](done), nl=False)
            return [*summary(done)]
        paths = outputs.write(done, self._folder, self._stems[outcome.item.id], self._formats)
        shown = f"{paths[0].with_suffix('')}.{{{','.join(self._formats)}}}" if len(paths) > 1 else str(paths[0])
        return [*summary(done, shown)]
