"""`audio-r1`: the group. Commands are imported when they are asked for, MLX later still."""

from __future__ import annotations

from importlib import import_module

import click

from mlx_audio_r1 import __version__
from mlx_audio_r1.errors import AudioR1Error

COMMANDS = {  # name -> module, in the order in which help lists them
    "ask": "ask",
    "chat": "chat",
    "serve": "serve_command",
    "batch": "batch_command",
    "transcribe": "transcribe",
    "data": "data_command",
    "train": "train_command",
    "mgrd": "mgrd_command",
    "eval": "eval_command",
    "plan": "plan",
    "kernels": "kernels_command",
    "info": "info",
    "pull": "pull_command",
    "convert": "convert_command",
    "fuse": "fuse_command",
    "adapters": "adapters_command",
    "completion": "completion",
}


class LazyGroup(click.Group):
    """Finds a command's module by name; turns the package's errors into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"mlx_audio_r1.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AudioR1Error as error:
            raise click.ClickException(str(error)) from None


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="audio-r1")
def cli() -> None:
    """Ask sounds questions with Step-Audio-R1 on Apple's MLX.

    \b
    Examples:
      audio-r1 ask clip.wav -p "What instrument is this?"
      audio-r1 info
      audio-r1 pull stepfun-ai/Step-Audio-R1.1
    """


def main() -> None:
    """The console script."""
    from mlx_audio_r1.cli import startup

    startup.own_process = True
    cli(prog_name="audio-r1")
