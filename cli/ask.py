"""`audio-r1 ask`: one question about one or more sounds."""

from __future__ import annotations

import sys
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option, decoding_options, settings_given


@click.command("ask")
@click.argument("audio", nargs=-1, metavar="AUDIO...")
@click.option("-p", "--prompt", default="", help="The question; - reads it from stdin.")
@click.option("--choices", metavar="'A|B|C'", help="Make it a multiple-choice question.")
@click.option("--text-first", is_flag=True, help="The question before the sound, as in the MMAU example.")
@click.option("--system-prompt", help="A system message before the question.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("--chunk-seconds", type=float, default=25.0, show_default=True,
              help="Longest piece the encoder gets, up to 29.98.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("-R", "--hide-thinking", is_flag=True, help="Do not show the reasoning.")
@click.option("-v", "--verbose", is_flag=True, help="Counts and times on stderr.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@decoding_options
def ask(audio: tuple[str, ...], prompt: str, **options: Any) -> None:
    """Ask a question about AUDIO (several files keep their order; - is stdin).

    The answer goes to stdout, the reasoning dim to stderr. Without a prompt the sound is the question.

    \b
    Examples:
      audio-r1 ask clip.wav -p "What instrument is this?"
      audio-r1 ask a.mp3 b.flac -p "Which one is louder?" --choices "first|second"
      ffmpeg -i film.mkv -f wav - | audio-r1 ask - -p "What is the mood?" --json
      audio-r1 ask clip.wav --thinking-budget 500 -R
    """
    if not audio and not prompt:
        raise click.UsageError("Nothing to answer: give an AUDIO file, a --prompt or both.")
    if prompt == "-" and "-" in audio:
        raise click.UsageError("Only one of AUDIO and --prompt can be - (stdin).")
    _answer(list(audio), sys.stdin.read().strip() if prompt == "-" else prompt, options)


def _answer(audio: list[str], prompt: str, options: dict[str, Any]) -> None:
    from mlx_audio_r1.cli.model_choice import choose_model, notice_nano
    from mlx_audio_r1.cli.room import keep_within, reply_room
    from mlx_audio_r1.cli.show import ReplyPrinter, prefill_progress, reply_record, show_pieces, show_timings
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(options["adapter_path"]))
    from mlx_audio_r1.session import load

    own = {name: options.pop(name) for name in
           ("choices", "text_first", "system_prompt", "model", "adapter_path", "chunk_seconds", "as_json",
            "hide_thinking", "verbose", "force")}
    prefill = options.pop("prefill_response")
    model, settings = choose_model(own["model"]), settings_given(options)
    room = None if own["force"] else reply_room(model, audio, prompt, settings, own["adapter_path"])
    r1 = load(model, adapter_path=own["adapter_path"], chunk_seconds=own["chunk_seconds"])
    notice_nano(r1.config.raw)
    choices = [choice.strip() for choice in own["choices"].split("|")] if own["choices"] else None
    messages = r1.question(
        audio, prompt, system_prompt=own["system_prompt"], choices=choices, text_first=own["text_first"]
    )
    stream = r1.stream(
        messages, prefill_response=prefill, progress=prefill_progress,
        **keep_within(room, settings, r1.defaults.max_tokens),
    )
    show_pieces(stream.heard, own["chunk_seconds"])
    printer = ReplyPrinter(as_json=own["as_json"], hide_thinking=own["hide_thinking"])
    for step in stream:
        printer.step(step.kind, step.text)
    reply = stream.reply()
    printer.finish(reply, reply_record(reply, audio, r1.name))
    if own["verbose"]:
        show_timings(reply)
