"""Options that several commands share, with mlx-lm's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

DECODING = (
    click.option("--preset", type=click.Choice(["default", "mmar", "caption", "song", "speaker"]),
                 help="Sampling as in the authors' example for this kind of question."),
    click.option("-m", "--max-tokens", type=click.IntRange(1), help="Most tokens to write."),
    click.option("--temp", "--temperature", "temperature", type=float, help="0 is greedy."),
    click.option("--top-p", type=float, help="Nucleus sampling."),
    click.option("--top-k", type=int, help="Sample from the k most likely tokens."),
    click.option("--min-p", type=float, help="Drop tokens below this share of the most likely."),
    click.option("--repetition-penalty", type=float, help="Above 1 discourages repeats."),
    click.option("--seed", type=int, help="Make sampling repeatable."),
    click.option("--thinking-budget", type=click.IntRange(0), metavar="N",
                 help="Close the reasoning after N tokens; an answer still follows."),
    click.option("--enable-thinking/--no-thinking", "thinking", default=None,
                 help="Reason before answering, or answer at once."),
    click.option("--prefill-response", default="", help="Begin the reply with this text."),
    click.option("--max-kv-size", type=click.IntRange(16), help="Rotating KV cache of this many tokens."),
    click.option("--kv-bits", type=click.Choice(["2", "3", "4", "5", "6", "8"]), help="Quantise the KV cache."),
    click.option("--kv-group-size", type=click.Choice(["32", "64", "128"]), help="KV quantisation group."),
    click.option("--quantized-kv-start", type=click.IntRange(0), help="Quantise from this token on."),
    click.option("--prefill-step-size", type=click.IntRange(1), help="Prompt tokens a step."),
)
adapter_option = click.option("--adapter-path", metavar="DIR",
                              help="Adapter to put on the model, made by audio-r1 train or mlx_lm.lora.")
_WHOLE_NUMBERS = ("kv_bits", "kv_group_size")


def decoding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option of decoding to a command."""
    for option in reversed(DECODING):
        command = option(command)
    return command


def settings_given(decoding: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as fields of `Settings`; the preset below them."""
    from mlx_audio_r1.generate import PRESETS

    values = dict(decoding)
    preset = values.pop("preset")
    given = {k: int(v) if k in _WHOLE_NUMBERS else v for k, v in values.items() if v is not None}
    return {**(PRESETS[preset] if preset else {}), **given}
