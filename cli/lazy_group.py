"""A click group whose subcommands lie in modules of their own, imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """modules: name -> module of mlx_audio_r1.cli that has a command of this name, or module:attribute; in the
    order of the help."""

    def __init__(self, *args: Any, modules: Mapping[str, str], **more: Any):
        super().__init__(*args, **more)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._modules:
            return None
        module, _, attribute = self._modules[name].partition(":")
        command: click.Command = getattr(import_module(f"mlx_audio_r1.cli.{module}"), attribute or name)
        return command
