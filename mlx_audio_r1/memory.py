"""What a checkpoint needs and what this machine offers, without loading any weights.

Sizes are bytes. Weights are read from the headers of the safetensors files; the KV cache follows from
the configuration: 2 * layers * kv_heads * head_dim values a token, 2 bytes each, or `bits / 8` plus a
scale and a bias of 2 bytes for every group when it is quantised.
"""

from __future__ import annotations

import json
import math
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1 import blas
from mlx_audio_r1.config import ModelConfig, TextConfig, read_config
from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.hub import locate
from mlx_audio_r1.models.key_map import AUDIO_PREFIXES, PREFIXES
from mlx_audio_r1.weights import shard_paths

MAC_SHARE = 0.75  # of unified memory that macOS lets the GPU wire by default
WORKING_BYTES = 1 << 30  # activations and slack of one stream: an estimate, not a measurement
MAX_HEADER_BYTES = 100 << 20  # what the safetensors format allows


def kv_bytes_per_token(text: TextConfig, bits: int | None = None, group_size: int = 64) -> int:
    """Bytes of KV cache one token takes."""
    values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    per_value = 2.0 if bits is None else bits / 8 + 4 / group_size
    return int(values * per_value)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> {dtype, shape, data_offsets} of a safetensors file, without its data."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError("header too long")
            header = json.loads(file.read(size))
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); fetch it again") from None
    header.pop("__metadata__", None)
    return header


def tensor_sizes(folder: Path) -> Iterator[tuple[str, int, int]]:
    """(name, bytes, values) of every tensor of a checkpoint."""
    for path in shard_paths(folder):
        for name, entry in read_header(path).items():
            begin, end = entry["data_offsets"]
            yield name, end - begin, math.prod(entry["shape"])


def describe(model: str | None, context: int) -> dict[str, dict[str, Any]]:
    """Everything `audio-r1 info` prints: the model, its memory for `context` tokens, the machine."""
    folder = locate(model)
    config = read_config(folder)
    sizes = list(tensor_sizes(folder))
    return {
        "model": _model_rows(model, folder, config, sizes),
        "memory": _memory_rows(config, sizes, context),
        "machine": machine(),
    }


def _model_rows(
    model: str | None, folder: Path, config: ModelConfig, sizes: list[tuple[str, int, int]]
) -> dict[str, Any]:
    text, audio, q = config.text, config.audio, config.quantization or {}
    quantised = f"{q['bits']} bits, groups of {q['group_size']}, {q.get('mode', 'affine')}" if q else "none"
    return {
        "name": model or "nano",
        "folder": str(folder),
        "decoder": f"{text.num_hidden_layers} x {text.hidden_size}, heads {text.num_attention_heads}"
                   f"/{text.num_key_value_heads}, vocabulary {text.vocab_size}",
        "audio_encoder": f"{audio.n_audio_layer} x {audio.n_audio_state}, heads {audio.n_audio_head}",
        "stored_values": sum(values for _, _, values in sizes),
        "quantisation": quantised,
        "context_tokens": config.context_length,
        "context_audio_seconds": int(config.context_length / 12.5),
    }


def _memory_rows(
    config: ModelConfig, sizes: list[tuple[str, int, int]], context: int
) -> dict[str, Any]:
    official = tuple(theirs for theirs, ours in PREFIXES.items() if ours in AUDIO_PREFIXES)
    audio = sum(n for name, n, _ in sizes if name.startswith((*AUDIO_PREFIXES, *official)))
    weights = sum(n for _, n, _ in sizes)
    kv = kv_bytes_per_token(config.text) * context
    return {
        "decoder_bytes": weights - audio,
        "audio_bytes": audio,
        f"kv_{context}_tokens_bytes": kv,
        "kv_8bit_bytes": kv_bytes_per_token(config.text, 8) * context,
        "working_bytes": WORKING_BYTES,
        "needed_bytes": weights + kv + WORKING_BYTES,
        "fits_here": "yes" if weights + kv + WORKING_BYTES <= usable_bytes() else "no",
    }


def machine() -> dict[str, Any]:
    """This machine as MLX sees it."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "backend": "Metal" if mx.metal.is_available() else str(mx.default_device().type).split(".")[-1],
        "memory_bytes": total_bytes(),
        "usable_bytes": usable_bytes(),
        "mlx": mx.__version__,
        "blas": _blas(),
    }


def total_bytes() -> int:
    """Memory of the machine."""
    reported = mx.device_info().get("memory_size")
    return int(reported or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def usable_bytes() -> int:
    """What a model may take: Metal's recommended working set, else 75 % of memory."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    return int(recommended or total_bytes() * MAC_SHARE)


def _blas() -> str:
    if platform.system() != "Linux":
        return "Accelerate"
    return blas.loaded or "MLX's own, about 40 times slower: apt install libopenblas0-pthread"
