"""Is there memory for this reply? Asked before anything is loaded or fetched, from file headers alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

REPLY_TOKENS = 4_096  # a reply must have this much room; most reasonings are 2,300 to 2,800 tokens long
BYTES_PER_SECOND = 8_000  # of a sound whose header does not tell: 64 kbit/s
UNSEEN_SECONDS = 60.0  # of a sound on stdin
REPLY_WORDS = {
    "context": "a shorter reply (-m) or sound",
    "kv_bits": "--kv-bits {0} --quantized-kv-start 0",
    "bits": "a {0}-bit model (audio-r1 pull)",
    "limit": "sudo sysctl iogpu.wired_limit_mb={0}",
    "mac": "a Mac with {0} GiB",
}


def reply_room(
    model: str | None, audio: list[str], prompt: str, settings: dict[str, Any], adapter: str | None = None
) -> int | None:
    """The most tokens a reply may have on this machine; None for a model that is small anyway.

    adapter: the folder of one that goes on the model. Raises PlanError, with one line of advice, when what
    was asked for does not fit.
    """
    from mlx_audio_r1 import footprint, memory, plan
    from mlx_audio_r1.adapter_files import adapter_bytes

    if memory.is_small(model):
        return None
    checkpoint, machine = memory.find_checkpoint(model), memory.this_machine()
    config, sizes = checkpoint.config, checkpoint.sizes
    if adapter is not None:
        sizes = replace(sizes, decoder=sizes.decoder + adapter_bytes(adapter))
    tokens = footprint.prompt_tokens(sum(map(_seconds, audio))) + len(prompt) // 2
    wanted = tokens + (settings.get("max_tokens") or REPLY_TOKENS)
    longest = min(settings.get("max_kv_size") or wanted, config.context_length)
    work = footprint.Workload(
        context=min(wanted, longest),
        prompt=min(tokens, longest),
        kv_bits=settings.get("kv_bits"),
        kv_group_size=settings.get("kv_group_size", 64),
        kv_start=settings.get("quantized_kv_start", 5_000),
        prefill_step=settings.get("prefill_step_size", 2_048),
    )
    plan.require_fit(plan.plan_inference(config, sizes, machine, work), REPLY_WORDS)
    if settings.get("max_kv_size"):
        return None
    return plan.largest_context(config, sizes, machine, work) - tokens


def keep_within(room: int | None, settings: dict[str, Any], default: int) -> dict[str, Any]:
    """`settings` with the default length of a reply lowered to the room there is; said on stderr."""
    if room is None or "max_tokens" in settings or room >= default:
        return settings
    click.secho(f"[memory for replies of {room:,} tokens here; audio-r1 plan says more]", dim=True, err=True)
    return {**settings, "max_tokens": room}


def _seconds(path: str) -> float:
    import soundfile

    if path == "-" or Path(path).is_fifo():  # a pipe can be read once: leave it to the reader
        return UNSEEN_SECONDS
    try:
        return float(soundfile.info(path).duration)
    except (soundfile.SoundFileError, OSError):
        file = Path(path)
        return file.stat().st_size / BYTES_PER_SECOND if file.is_file() else 0.0
