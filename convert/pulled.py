"""Models that `audio-r1 pull` has put into its cache. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path

DEFAULT_REPO = "stepfun-ai/Step-Audio-R1.1"


def pulled_folder(cache_dir: Path, repo: str, bits: int = 4) -> Path:
    """Where the conversion of `repo` belongs."""
    return cache_dir / f"{repo.rstrip('/').rpartition('/')[2]}-{bits}bit"


def find_pulled(cache_dir: Path) -> Path | None:
    """The newest finished Step-Audio-R1 in the cache, or None."""
    finished = [path for path in cache_dir.glob("*/config.json") if _is_step_audio(path)]
    newest = max(finished, key=lambda path: path.stat().st_mtime, default=None)
    return newest.parent if newest else None


def _is_step_audio(config: Path) -> bool:
    try:
        return json.loads(config.read_text(encoding="utf-8"))["model_type"] == "step_audio_2"
    except (OSError, ValueError, KeyError, TypeError):
        return False
