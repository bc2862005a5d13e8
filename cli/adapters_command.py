"""`audio-r1 adapters`: to and from the format of Hugging Face's peft."""

from __future__ import annotations

import click


@click.group("adapters")
def adapters() -> None:
    """Exchange adapters with Hugging Face's peft.

    \b
    Examples:
      audio-r1 adapters import my-peft-adapter -o adapters
      audio-r1 adapters export adapters -o my-peft-adapter
    """


@adapters.command("import")
@click.argument("peft_dir")
@click.option("-o", "--output", default="adapters", show_default=True, metavar="DIR", help="Folder to make.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
def import_(peft_dir: str, output: str, force: bool) -> None:
    """Turn a PEFT adapter into one for --adapter-path.

    LoRA, DoRA and rank-stabilised LoRA on linears, and modules_to_save. What cannot be said in mlx-lm's
    format is refused by name.

    \b
    Examples:
      audio-r1 adapters import ./my-peft-adapter -o adapters
      audio-r1 ask clip.wav -p "Which bird is this?" --adapter-path adapters
    """
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    from mlx_audio_r1.adapters_peft import import_peft

    def say(line: str) -> None:
        click.secho(line, dim=True, err=True)

    click.echo(import_peft(peft_dir, output, force=force, say=say))


@adapters.command("export")
@click.argument("adapter_dir")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder to make.")
@click.option("--base-model-name", metavar="REPO",
              help="What peft will load it onto. Default: the name of the base it was trained on.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
def export(adapter_dir: str, output: str, base_model_name: str | None, force: bool) -> None:
    """Turn an adapter into one that peft loads onto the PyTorch model.

    \b
    Examples:
      audio-r1 adapters export adapters -o birds-peft --base-model-name stepfun-ai/Step-Audio-R1.1
    """
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    from mlx_audio_r1.adapters_peft import export_peft

    click.echo(export_peft(adapter_dir, output, base_model_name=base_model_name, force=force))
