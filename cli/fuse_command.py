"""`audio-r1 fuse`: an adapter merged into its base, as a checkpoint of its own."""

from __future__ import annotations

import click


@click.command("fuse")
@click.option("--model", help="The base: checkpoint folder, hub repository, or nano.")
@click.option("--adapter-path", default="adapters", show_default=True, metavar="DIR", help="What to merge.")
@click.option("--save-path", default="fused_model", show_default=True, metavar="DIR", help="Folder to make.")
@click.option("--dequantize", is_flag=True, help="Make a model that is not quantised, from one that is; exact.")
@click.option("--requantize", is_flag=True, help="Quantise what was merged as it was before; loses part of it.")
@click.option("--upload-repo", metavar="REPO", help="Put the result on the hub.")
@click.option("--force", is_flag=True, help="Replace the folder, or another unfinished one.")
def fuse(
    model: str | None, adapter_path: str, save_path: str, dequantize: bool, requantize: bool,
    upload_repo: str | None, force: bool,
) -> None:
    """Merge an adapter into the model it was trained on.

    W + scale B A is computed in float32 and rounded once. A quantised base is refused without one of the
    two options: to quantise anew can lose more than was learnt, and the adapter works as it is with
    --adapter-path. Interrupted? Give the same command again.

    \b
    Examples:
      audio-r1 fuse --model R1.1-bf16 --adapter-path adapters --save-path R1.1-birds
      audio-r1 fuse --model R1.1-4bit --dequantize --save-path R1.1-birds-bf16
    """
    from mlx_audio_r1.cli.conversion import shown_options
    from mlx_audio_r1.cli.model_choice import choose_model

    with shown_options("merging", tuner=True, force=force) as options:
        from mlx_audio_r1.convert import check_login, upload
        from mlx_audio_r1.convert.fuse import fuse as merge

        if upload_repo:
            check_login(upload_repo)  # now, not after the work
        folder = merge(
            choose_model(model), adapter_path, save_path,
            dequantize=dequantize, requantize=requantize, options=options,
        )  # fmt: skip
    click.echo(folder)
    if upload_repo:
        click.echo(upload(folder, upload_repo))
