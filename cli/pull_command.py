"""`audio-r1 pull`: fetch Step-Audio-R1 and keep it as 4-bit MLX in the cache."""

from __future__ import annotations

import click

from mlx_audio_r1.convert.pulled import DEFAULT_REPO, pulled_folder


@click.command("pull")
@click.argument("repo", default=DEFAULT_REPO)
@click.option("--q-bits", "bits", type=click.Choice(["2", "3", "4", "5", "6", "8"]), default="4",
              show_default=True, help="Bits per weight of the decoder.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--keep-source", is_flag=True, help="Keep fetched shards in the hub's cache.")
@click.option("--force", is_flag=True, help="Fetch and convert again, replacing what is there.")
def pull(repo: str, bits: str, revision: str | None, keep_source: bool, force: bool) -> None:
    """Fetch REPO and convert it to 4 bits, into the folder from which the other commands take it.

    67 GB become 20 GB; about 30 GB of disk are in use at most. Interrupted? Give the same command
    again. Prints the folder. AUDIO_R1_CACHE sets where it goes (~/.cache/mlx-audio-r1).

    \b
    Examples:
      audio-r1 pull
      audio-r1 pull stepfun-ai/Step-Audio-R1 --q-bits 8
    """
    from mlx_audio_r1.cli.model_choice import cache_folder

    folder = pulled_folder(cache_folder(), repo, int(bits))
    if force or not (folder / "config.json").exists():
        from mlx_audio_r1.cli.conversion import run_conversion
        from mlx_audio_r1.convert import Recipe

        recipe = Recipe(quantize=True, bits=int(bits))
        run_conversion(repo, folder, recipe, revision=revision, keep_source=keep_source, force=force)
    click.echo(folder)
