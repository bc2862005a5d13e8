"""The program without plots, for mlx.launch."""

import sys
from importlib import import_module

sys.modules["matplotlib"] = None  # type: ignore[assignment]
import_module("mlx_audio_r1.cli.main").main()
