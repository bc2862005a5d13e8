"""Small things tests share: random checkpoints in MLX form, and running the program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.step_audio_r1 import Model

GOLDEN = Path(__file__).parent / "golden"


def random_checkpoint(folder: Path, *, heads: int = 8, kv_heads: int = 2, seed: int = 0) -> Path:
    """A random MLX checkpoint with the tiny tokenizer; weights are small so that logits are tame."""
    folder.mkdir(parents=True)
    config = json.loads((GOLDEN / "tiny-fp32" / "config.json").read_text())
    config["text_config"].update(num_attention_heads=heads, num_key_value_heads=kv_heads,
                                 num_attention_groups=kv_heads)
    mx.random.seed(seed)
    model = Model(parse_config(config).with_shapes(adaptor_width=2048, tied=False))
    model.update(tree_map(lambda p: mx.random.normal(p.shape) * p.shape[-1] ** -0.5 * 2, model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())),
                        metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(GOLDEN / "tiny-fp32" / name, folder / name)
    return folder


def run(*args: str, stdin: bytes | None = None, env: dict[str, str] | None = None,
        timeout: float = 240) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own, as a person starts it."""
    import os

    return subprocess.run(
        [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", *args],
        input=stdin if stdin is not None else b"", capture_output=True, timeout=timeout,
        env={**os.environ, **(env or {})}, check=False,
    )
