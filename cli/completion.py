"""`audio-r1 completion`: a script for the shell."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      audio-r1 completion zsh > ~/.zfunc/_audio-r1
      source <(audio-r1 completion bash)
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the choice above lists what click has
    script = kind(ctx.find_root().command, {}, "audio-r1", "_AUDIO_R1_COMPLETE")
    click.echo(script.source())
