"""What `convert`, `pull` and `fuse` share: a conversion runs with a bar on stderr, on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


def run_conversion(hf_path: str, mlx_path: Path, recipe: Any, **how: Any) -> Path:
    """Convert; `how` are fields of `Options`."""
    with shown_options("converting", **how) as options:
        from mlx_audio_r1.convert import convert

        return convert(hf_path, mlx_path, recipe, options)


@contextmanager
def shown_options(doing: str, tuner: bool = False, **how: Any) -> Iterator[Any]:
    """`Options` that show source bytes done, rate and time left. tuner: as in `import_engine`."""
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner)
    from huggingface_hub import logging

    from mlx_audio_r1.convert import Options

    logging.set_verbosity_error()  # the client's retries; what matters becomes one line of ours
    with _Bar(doing) as bar:
        yield Options(**how, progress=bar.show, say=lambda line: click.secho(line, dim=True, err=True))


class _Bar:
    """A tqdm bar that starts when the total is known, so that a resumed run shows a true rate."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            # smoothing=0: fetching and converting alternate, so only the mean rate says when it ends.
            self._bar = tqdm(desc=self._doing, total=total, initial=done, unit="B", unit_scale=True,
                             smoothing=0, disable=None)
        self._bar.update(done - self._bar.n)
