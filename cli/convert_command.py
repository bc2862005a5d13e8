"""`audio-r1 convert`: a PyTorch checkpoint, a folder or on the hub, into an MLX folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

Q_MODES = click.Choice(["affine", "mxfp4", "mxfp8", "nvfp4"])
PREDICATES = click.Choice(["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"])
DTYPES = click.Choice(["float16", "bfloat16", "float32"])


@click.command("convert")
@click.option("--hf-path", "--model", required=True, metavar="REPO_OR_DIR", help="What to convert.")
@click.option("--mlx-path", default="mlx_model", show_default=True, help="Folder to make.")
@click.option("-q", "--quantize", is_flag=True, help="Quantise the decoder; what hears stays as it is.")
@click.option("--q-bits", "bits", type=int, help="Bits per weight (4, or the mode's own).")
@click.option("--q-group-size", "group_size", type=int, help="Weights per scale (64, or the mode's own).")
@click.option("--q-mode", "mode", type=Q_MODES, default="affine", show_default=True)
@click.option("--quant-predicate", type=PREDICATES, help="mlx-lm's mixed-bit recipes; implies -q.")
@click.option("--dtype", type=DTYPES, help="Type of what is not quantised. Default: the source's.")
@click.option("-d", "--dequantize", is_flag=True, help="Turn a quantised MLX folder back.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--upload-repo", metavar="REPO", help="Put the result on the hub.")
@click.option("--keep-source", is_flag=True, help="Keep fetched shards in the hub's cache.")
@click.option("--force", is_flag=True, help="Replace the folder, or another unfinished conversion of it.")
def convert(hf_path: str, mlx_path: str, upload_repo: str | None, **options: Any) -> None:
    """Convert Step-Audio-R1 from PyTorch to MLX, from a folder or straight from the hub.

    Interrupted? Give the same command again: it goes on where it stopped. From the hub, each shard is
    deleted as soon as it is converted.

    \b
    Examples:
      audio-r1 convert --hf-path stepfun-ai/Step-Audio-R1.1 --mlx-path R1.1-4bit -q
      audio-r1 convert --hf-path ./Step-Audio-R1.1 --mlx-path R1.1-mixed --quant-predicate mixed_4_6
      audio-r1 convert --hf-path R1.1-4bit --mlx-path R1.1-bf16 -d
    """
    from mlx_audio_r1.cli.conversion import run_conversion
    from mlx_audio_r1.convert import Recipe

    how = {key: options.pop(key) for key in ("revision", "keep_source", "force")}
    recipe = Recipe(**options)
    if upload_repo:
        from mlx_audio_r1.convert import check_login, upload

        check_login(upload_repo)  # now, not after an hour of work
    folder = run_conversion(hf_path, Path(mlx_path), recipe, **how)
    click.echo(folder)
    if upload_repo:
        click.echo(upload(folder, upload_repo))
