"""`audio-r1 info`: a checkpoint, what it needs, and what this machine offers."""

from __future__ import annotations

import json
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option


@click.command("info")
@click.argument("model", required=False)
@click.option("--context", type=click.IntRange(1),
              help="Tokens of context to plan memory for. Default: 16384, or all the model reads.")
@adapter_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def info(model: str | None, context: int | None, adapter_path: str | None, as_json: bool) -> None:
    """Describe MODEL (a folder, a hub repository or nano; default: the one `ask` would use).

    Of a repository nothing is fetched but config.json and the headers of its shards.

    \b
    Examples:
      audio-r1 info
      audio-r1 info ./Step-Audio-R1.1-4bit --context 65536
      audio-r1 info stepfun-ai/Step-Audio-R1.1 --json
      audio-r1 info --adapter-path adapters
    """
    from mlx_audio_r1.cli.model_choice import choose_model
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    from mlx_audio_r1.adapter_files import adapter_bytes, describe_adapter
    from mlx_audio_r1.kernels.listing import summary
    from mlx_audio_r1.memory import describe

    adapter = {} if adapter_path is None else {"adapter": describe_adapter(adapter_path)}
    facts = describe(choose_model(model), context, adapter_bytes(adapter_path) if adapter_path else 0) | adapter
    facts["machine"]["kernels"] = summary()
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for title, rows in facts.items():
        click.secho(title, bold=True)
        for name, value in rows.items():
            click.echo(f"  {name:<24}{_readable(name, value)}")


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return f"{value / 1e9:,.2f} GB" if value >= 1e8 else f"{value / 1e6:,.2f} MB"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
