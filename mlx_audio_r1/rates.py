"""How fast a Mac decodes, reads and trains: estimates from its bandwidth and its arithmetic.

Nobody has run this project on Apple hardware yet, so every rate here is an estimate: published or measured
figures of the chips, put into three formulas. The surprise: a batch is not free on an Apple GPU. Up to
about ten rows a step takes longer with every row, beyond it runs in tiles of 32 rows, so 12 rows take as
long as 32.

    decode step = weights / (EFFICIENCY * bandwidth) * ROWS[rows], up to 10 rows; with more at least
                  rows in whole tiles * 2P / (TILED * peak); and in any case
                  + rows * context * KV bytes a token / (EFFICIENCY * bandwidth)
    reading     = tokens * (2P + attention) / (READING * peak)
    training    = tokens * (2P + 4P * share of the layers that the gradient passes) / (training * peak)

P: values a token is multiplied with, in the linears of the layers and in the head.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.footprint import Sizes, kv_bytes_per_token

EFFICIENCY = 0.76  # of the bandwidth while decoding: 34 tokens/s of a 32B at 4 bits on an M3 Ultra
READING = 0.92  # of the measured peak while a prompt is read: 250 tokens/s of 33B there
TILED = 0.8  # of it in tiles of decoding rows
TILE = 32  # rows of the quantised matmul's tiles,
TILED_FROM = 11  # which it runs in from so many rows on
ROWS = ((1, 1.0), (2, 1.0), (4, 1.28), (8, 2.5), (10, 3.2))  # time of a step by rows: M3 Max, mlx#3863


@dataclass(frozen=True)
class Chip:
    """Bandwidth in GB/s; peak: matmul TFLOP/s in MLX; training: the share of it a training step reaches."""

    name: str
    bandwidth: float
    peak: float
    source: str
    training: float = 0.65  # LoRA of 8B on an M3 Max reached 0.35 to 0.5, the table of 33B assumes 0.5 to 0.74


_BY_CORES = "published bandwidth; arithmetic by cores of the M4 Max"
CHIPS = {
    "m2-max": Chip("M2 Max, 38 cores", 400, 9.1, "published bandwidth; half of an M2 Ultra"),
    "m2-ultra": Chip("M2 Ultra, 76 cores", 800, 18.2, "20.4 in fp32 (mlx#424), reads 33B at 265 tokens/s"),
    "m3-max": Chip("M3 Max, 40 cores", 400, 13.0, "published bandwidth; mlx#3863: 11.2 in 32-row tiles"),
    "m3-ultra-60": Chip("M3 Ultra, 60 cores", 819, 13.1, "three quarters of 80 cores"),
    "m3-ultra": Chip("M3 Ultra, 80 cores", 819, 17.4, "measured in MLX, Rapid-MLX#258"),
    "m4": Chip("M4, 10 cores", 120, 3.6, _BY_CORES),
    "m4-pro": Chip("M4 Pro, 20 cores", 273, 7.2, _BY_CORES),
    "m4-max": Chip("M4 Max, 40 cores", 546, 14.3, "Qwen3-4B reads 1,781 tokens/s, mlx-lm BENCHMARKS.md"),
    "m5": Chip("M5, 10 cores", 153, 13.0, "estimate; backward without the neural accelerators", 0.5),
    "m5-max": Chip("M5 Max, 40 cores", 614, 39.0, "Mac-MLX#62; backward without the neural accelerators", 0.5),
}


def usual_chip(gib: float) -> str:
    """The chip that Macs of this memory are sold with, or the fastest of those."""
    sold = ((192, "m3-ultra"), (128, "m4-max"), (96, "m3-ultra"), (36, "m4-max"), (32, "m4"), (24, "m4-pro"))
    return next((chip for least, chip in sold if gib >= least), "m4")


def chip_called(device: str) -> str | None:
    """The key of what a machine calls its chip ("Apple M3 Ultra"); None where its rates are not known."""
    key = "-".join(device.lower().removeprefix("apple ").split())
    return key if key in CHIPS else None


# ---- arithmetic of a model


def layer_values(config: ModelConfig) -> int:
    """Of the linears of one layer."""
    text = config.text
    h, kv = text.hidden_size, text.num_key_value_heads * text.head_dim
    return 2 * h * h + 2 * h * kv + 3 * h * text.intermediate_size


def head_values(config: ModelConfig) -> int:
    return config.text.vocab_size * config.text.hidden_size


def token_values(config: ModelConfig) -> int:
    """What a token is multiplied with: every layer, and the head. 32.0e9 for Step-Audio-R1."""
    return config.text.num_hidden_layers * layer_values(config) + head_values(config)


def attention_flops(config: ModelConfig, length: int) -> float:
    """Of one token forward, on average over a sequence: scores and values of half of it, in every layer."""
    text = config.text
    return 2.0 * length * text.num_attention_heads * text.head_dim * text.num_hidden_layers


# ---- seconds


def decode_seconds(chip: Chip, config: ModelConfig, sizes: Sizes, rows: int, context: float,
                   kv_bits: int | None = None) -> float:  # fmt: skip
    """One step of `rows` replies, each with `context` tokens behind it."""
    speed = EFFICIENCY * chip.bandwidth * 1e9
    head, values = head_values(config), token_values(config)
    weights = sizes.decoder * (1.0 if sizes.tied else values / (values + head)) / speed  # no embedding table
    tiles = -(-rows // TILE) * TILE * 2 * values / (TILED * chip.peak * 1e12)
    step = weights * _by_rows(rows) if rows < TILED_FROM else max(weights, tiles)
    cache = rows * context * kv_bytes_per_token(config.text, kv_bits, value_bytes=sizes.value_bytes)
    return step + cache / speed


def _by_rows(rows: int) -> float:
    """ROWS, and straight lines between."""
    at = bisect_left(ROWS, (rows, 0.0))
    (n, time), (before, less) = ROWS[at], ROWS[max(0, at - 1)]
    return time if n == rows else less + (time - less) * (rows - before) / (n - before)


def best_rows(chip: Chip, config: ModelConfig, sizes: Sizes, most: int, context: float,
              kv_bits: int | None = None) -> int:  # fmt: skip
    """The number of rows, up to `most`, that decodes most tokens a second: seldom one between 9 and 31."""
    return max(range(1, most + 1),
               key=lambda rows: rows / decode_seconds(chip, config, sizes, rows, context, kv_bits))


def reading_seconds(chip: Chip, config: ModelConfig, length: int) -> float:
    """A prefill of `length` tokens."""
    flops = 2 * token_values(config) + attention_flops(config, length)
    return length * flops / (READING * chip.peak * 1e12)


def training_seconds(chip: Chip, config: ModelConfig, length: int, passed: int) -> float:
    """One row of `length` tokens forward and backward, the gradient passing `passed` layers; base frozen.

    Forward 2P; where the gradient passes, 2P to compute it and, with checkpoints, 2P to compute the layers
    again.
    """
    share = passed / config.text.num_hidden_layers
    layers = 2 * layer_values(config) * config.text.num_hidden_layers + attention_flops(config, length)
    flops = layers * (1 + 2 * share) + 6 * head_values(config)
    return length * flops / (chip.training * chip.peak * 1e12)
