"""Modules of mlx-lm as they are on a Mac: with their kernels built, here in the simulator."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec, module_from_spec
from typing import Any
from unittest.mock import patch

import mlx_lm.utils

from tests.metalsim.simulate import simulated


@cache
def mac_module(name: str) -> Any:
    """A copy of mlx_lm.<name> of its own: the one that the rest of the process has imported stays as it is."""
    spec = find_spec(f"mlx_lm.{name}")
    if spec is None or spec.loader is None:
        raise ImportError(f"this mlx-lm has no {name}")
    module = module_from_spec(spec)
    with simulated(), patch.object(mlx_lm.utils, "can_run_metal", lambda: True):
        spec.loader.exec_module(module)
    return module
