"""`audio-r1 serve`: the OpenAI-compatible server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option

KEY_VARIABLE = "AUDIO_R1_API_KEY"
LOCAL = ("127.0.0.1", "::1", "localhost")
LIMITS = (
    click.option("--max-audio-upload-mb", type=click.FloatRange(0.001), default=25.0, show_default=True,
                 help="Most sound in one request."),
    click.option("--max-audio-seconds", type=click.FloatRange(0.1), default=1800.0, show_default=True,
                 help="Longest sound in one request, decoded."),
    click.option("--queue-limit", type=click.IntRange(1), default=128, show_default=True,
                 help="Requests in the server at once; one more gets 429."),
    click.option("--decode-concurrency", type=click.IntRange(1), default=8, show_default=True,
                 help="Replies that decode at once."),
    click.option("--prompt-cache-bytes", type=click.IntRange(0), default=2 << 30, show_default=True,
                 help="Memory for sounds already heard and prompts already read."),
    click.option("--prompt-cache-dir", metavar="DIR", help="Keep them on disk too."),
    click.option("--allow-local-media", metavar="DIR", help="Let requests name files below DIR."),
    click.option("--api-key", metavar="KEY", help=f"Ask for this key; better in {KEY_VARIABLE}."),
    click.option("--allowed-origins", multiple=True, metavar="ORIGIN",
                 help="Web pages that may send requests; several, or * for all."),
)
DEFAULTS = (
    click.option("--max-tokens", type=click.IntRange(1), help="Where a request gives none."),
    click.option("--temp", "temperature", type=float, help="Where a request gives none; 0 is greedy."),
    click.option("--top-p", type=float, help="Where a request gives none."),
    click.option("--top-k", type=int, help="Where a request gives none."),
    click.option("--min-p", type=float, help="Where a request gives none."),
    click.option("--repetition-penalty", type=float, help="Where a request gives none."),
    click.option("--kv-bits", type=click.Choice(["2", "3", "4", "5", "6", "8"]), help="Quantise the KV cache."),
    click.option("--kv-group-size", type=click.Choice(["32", "64", "128"]), help="KV quantisation group."),
    click.option("--quantized-kv-start", type=click.IntRange(0), help="Quantise from this token on."),
    click.option("--prefill-step-size", type=click.IntRange(1), help="Prompt tokens a step."),
    click.option("--thinking-budget", type=click.IntRange(0), help="Where a request gives none."),
    click.option("--enable-thinking/--no-thinking", "thinking", default=None,
                 help="Where a request is silent."),
)
SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "thinking_budget",
            "thinking", "kv_bits", "kv_group_size", "quantized_kv_start", "prefill_step_size")


def _limits(command: Any) -> Any:
    for option in reversed((*LIMITS, *DEFAULTS)):
        command = option(command)
    return command


@click.command("serve")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 opens it to the network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="0 is any free one.")
@click.option("--inline-reasoning", is_flag=True, help="Leave the reasoning in the content, up to </think>.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
              show_default=True, help="What to log on stderr.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@_limits
def serve(host: str, port: int, **options: Any) -> None:
    """Serve a model over OpenAI's API: chat with sounds, transcriptions, models.

    Sounds come in the request as base64. Nothing is fetched, no file of this machine is read, and no
    other machine is served unless you say so.

    \b
    Examples:
      audio-r1 serve
      audio-r1 serve --model mlx-community/Step-Audio-R1.1-4bit --port 9999
      audio-r1 serve --allow-local-media ~/clips --max-audio-upload-mb 100
      AUDIO_R1_API_KEY=secret audio-r1 serve --host 0.0.0.0
    """
    from mlx_audio_r1.serve.run import check_installed, listen

    check_installed()
    if host not in LOCAL and not (options["api_key"] or os.environ.get(KEY_VARIABLE)):
        click.echo(f"Note: anyone who reaches {host} can use this server; --api-key closes it.", err=True)
    options["api_key"] = options["api_key"] or os.environ.get(KEY_VARIABLE) or None
    with listen(host, port) as bound:
        _start(bound, options)


def _start(bound: Any, options: dict[str, Any]) -> None:
    from mlx_audio_r1.cli.model_choice import choose_model, notice_nano
    from mlx_audio_r1.cli.room import reply_room
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(options["adapter_path"]))
    from dataclasses import replace

    from mlx_audio_r1.adapter_files import read_adapter
    from mlx_audio_r1.serve.media import MEGABYTE, MediaLimits
    from mlx_audio_r1.serve.run import serve as run
    from mlx_audio_r1.serve.service import ServeOptions
    from mlx_audio_r1.session import load

    _log_to_stderr(options["log_level"])
    folder = _folder(options["allow_local_media"])
    if folder is not None and not folder.is_dir():
        raise click.BadParameter(f"{folder}: no such folder", param_hint="--allow-local-media")
    given = {name: int(options[name]) if name in ("kv_bits", "kv_group_size") else options[name]
             for name in SETTINGS if options[name] is not None}

    model = choose_model(options["model"])
    adapter = options["adapter_path"]
    if adapter is not None:
        read_adapter(adapter)  # now, not on the model's own thread
    if not options["force"]:
        reply_room(model, [], "", given, adapter)

    def load_model() -> Any:
        r1 = load(model, adapter_path=adapter)
        r1.defaults = replace(r1.defaults, **given)
        notice_nano(r1.config.raw)
        return r1

    run(load_model, ServeOptions(
        media=MediaLimits(
            upload_bytes=int(options["max_audio_upload_mb"] * MEGABYTE),
            seconds=options["max_audio_seconds"],
            folder=folder,
        ),
        api_key=options["api_key"],
        allowed_origins=tuple(o for text in options["allowed_origins"] for o in re.split(r"[\s,]+", text) if o),
        decode_concurrency=options["decode_concurrency"],
        prompt_cache_bytes=options["prompt_cache_bytes"],
        prompt_cache_folder=_folder(options["prompt_cache_dir"]),
        queue_limit=options["queue_limit"],
        separate_reasoning=not options["inline_reasoning"],
    ), bound, lambda address: click.echo(f"serving {address} (Ctrl-C stops)", err=True))


def _folder(given: str | None) -> Path | None:
    return None if given is None else Path(given).expanduser().resolve()


def _log_to_stderr(level: str) -> None:
    import logging

    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
