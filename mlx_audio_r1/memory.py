"""What a checkpoint holds and what this machine offers, without loading any weights.

Names, bytes and values come from the headers of the safetensors files, local or on the hub; plan.py
does the arithmetic.
"""

from __future__ import annotations

import json
import math
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1 import blas, footprint, hub
from mlx_audio_r1.config import ModelConfig, parse_config, read_config
from mlx_audio_r1.errors import CheckpointError, HubError
from mlx_audio_r1.footprint import Sizes, Workload
from mlx_audio_r1.plan import Machine, context_for, plan_inference, raised_limit
from mlx_audio_r1.weights import shard_paths

MAC_SHARE = 0.75  # of unified memory that macOS lets the GPU wire by default
RAM_SHARE = 0.9  # of the memory of a machine without a limit of its own
WORKING_BYTES = 1 << 30  # kept free beside the weights while replies run: an estimate, not a measurement
SMALL_BYTES = 256 << 20  # a checkpoint below this is loaded without a plan
MAX_HEADER_BYTES = 100 << 20  # what the safetensors format allows


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a model before it is loaded. `source` says where from; `note` what went wrong."""

    name: str
    config: ModelConfig
    sizes: Sizes
    source: str
    stored_values: int
    note: str = ""


def find_checkpoint(name: str | Path | None) -> Checkpoint:
    """A folder, a repository (nothing is fetched but headers), or None / "nano" -> Checkpoint.

    A published model whose page is closed to us, or out of reach, is described by its published shapes.
    """
    shown = str(name or hub.NANO_NAME)
    if name is None or not hub.looks_like_repo(shown) or Path(shown).expanduser().exists():
        return _from_folder(shown, hub.locate(name))
    folder = hub.cached(shown)
    if folder is not None:
        try:
            return _from_folder(shown, folder)
        except CheckpointError:
            pass  # config.json alone, or some shards: ask the hub
    try:
        config, tensors = hub.inspect(shown)
    except HubError as error:
        known = published_checkpoint(shown)
        if known is None:
            raise
        return replace(known, note=str(error))
    return _described(shown, parse_config(config), tensors, "headers on the hub")


def published_checkpoint(repo: str) -> Checkpoint | None:
    """A published model by its shapes, asking nobody; None when it is not known here."""
    config = footprint.published(repo)
    if config is None:
        return None
    values = footprint.sizes_from_shapes(config, value_bytes=1)
    return Checkpoint(repo, config, footprint.sizes_from_shapes(config), "published shapes",
                      values.decoder + values.audio)


def is_small(name: str | Path | None) -> bool:
    """True for a local checkpoint so small that memory is no question: nothing but file sizes is read."""
    folder = hub.NANO if name is None or str(name) == hub.NANO_NAME else Path(name).expanduser()
    shards = list(folder.glob("model*.safetensors"))
    return bool(shards) and sum(path.stat().st_size for path in shards) < SMALL_BYTES


def _from_folder(name: str, folder: Path) -> Checkpoint:
    return _described(name, read_config(folder), list(tensor_sizes(folder)), str(folder))


def _described(name: str, config: ModelConfig, tensors: list[tuple[str, int, int]], source: str) -> Checkpoint:
    return Checkpoint(name, config, footprint.sizes_of(tensors), source, sum(n for _, _, n in tensors))


# ---- headers


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


# ---- what `info` prints


def describe(
    model: str | None, context: int | None = None, adapter_bytes: int = 0
) -> dict[str, dict[str, Any]]:
    """The model, its memory for `context` tokens (default: 16,384, or all it reads), the machine.

    adapter_bytes: what an adapter on the model takes.
    """
    checkpoint = find_checkpoint(model)
    return {
        "model": _model_rows(checkpoint),
        "memory": _memory_rows(checkpoint, context_for(checkpoint.config, context), adapter_bytes),
        "machine": machine(),
    }


def _model_rows(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    text, audio, q = config.text, config.audio, config.quantization or {}
    quantised = "none"
    if "bits" in q:
        quantised = f"{q['bits']} bits, groups of {q['group_size']}, {q.get('mode', 'affine')}"
    return {
        "name": checkpoint.name,
        "source": ", since ".join(filter(None, (checkpoint.source, checkpoint.note))),
        "decoder": f"{text.num_hidden_layers} x {text.hidden_size}, heads {text.num_attention_heads}"
                   f"/{text.num_key_value_heads}, vocabulary {text.vocab_size}",
        "audio_encoder": f"{audio.n_audio_layer} x {audio.n_audio_state}, heads {audio.n_audio_head}",
        "stored_values": checkpoint.stored_values,
        "quantisation": quantised,
        "context_tokens": config.context_length,
        "context_audio_seconds": int(config.context_length / footprint.TOKENS_PER_SECOND),
    }


def _memory_rows(checkpoint: Checkpoint, context: int, adapter: int) -> dict[str, Any]:
    config, sizes = checkpoint.config, checkpoint.sizes
    sizes = replace(sizes, decoder=sizes.decoder + adapter)
    plan = plan_inference(config, sizes, this_machine(), Workload(context))
    decoder, audio, kv, working = plan.parts
    return {
        "decoder_bytes": decoder.bytes - adapter,
        **({"adapter_bytes": adapter} if adapter else {}),
        "audio_bytes": audio.bytes,
        f"kv_{context}_tokens_bytes": kv.bytes,
        "kv_8bit_bytes": footprint.kv_bytes_per_token(config.text, 8, value_bytes=sizes.value_bytes) * context,
        "working_bytes": working.bytes,
        "needed_bytes": plan.needed,
        "fits_here": "yes" if plan.fits else "no; see audio-r1 plan",
    }


# ---- this machine


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


def this_machine() -> Machine:
    """This machine as a plan needs it.

    Metal's recommended working set follows `iogpu.wired_limit_mb` both ways (llmfit#754), so a raised
    limit needs no look of its own.
    """
    memory, usable = total_bytes(), usable_bytes()
    if platform.system() == "Darwin":
        return Machine("this Mac", memory, usable, raised_limit(memory, usable),
                       "Metal's recommended working set")
    fused = mx.default_device() == mx.gpu
    return Machine("this machine", memory, usable, usable, f"{100 * RAM_SHARE:.0f} % of its memory", fused)


def total_bytes() -> int:
    """Memory of the machine."""
    reported = mx.device_info().get("memory_size")
    return int(reported or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def usable_bytes() -> int:
    """What a model may take: Metal's recommended working set, else a share of memory."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    share = MAC_SHARE if platform.system() == "Darwin" else RAM_SHARE
    return int(recommended or total_bytes() * share)


def _blas() -> str:
    if platform.system() != "Linux":
        return "Accelerate"
    return blas.loaded or "MLX's own, many times slower: apt install libopenblas0-pthread"
