"""Memory of one training step: measured, estimated by the planner, and the planner's coefficients fitted anew.

    python benchmarks/train_memory.py [--tokens 512 1024 2048 4096] [--layers 1 2 4] [--half-tokens 512]

Qwen2 blocks at an eighth of Step-Audio-R1's width (hidden 640, intermediate 3,456, 5 heads of 128, one kv
head) with LoRA of rank 2 on every linear, one row, every token learnt; sft_loss and its gradient through
train/forward.py. Peaks are MLX's, above weights and gradients. `set_memory_limit(1)` makes MLX wait for
every piece of work, so the peak is what has to live at once; `free` is the same without a limit, where MLX
runs ahead of itself. A vocabulary of 256 keeps the loss out of the way; it is measured alone, at the true
vocabulary. bfloat16 is measured at few tokens, because a CPU multiplies it slowly.

Then: coefficients as footprint_training.py has them, by least squares from these very numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import mlx_audio_r1  # before MLX: it puts OpenBLAS in front of MLX's own

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_audio_r1 import footprint_training as step
from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import attach
from mlx_audio_r1.config import AudioConfig, ModelConfig, parse_config
from mlx_audio_r1.footprint import Sizes
from mlx_audio_r1.models.audio_encoder import AudioEncoder
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.head import Head, head_logprobs
from mlx_audio_r1.train.losses import sft_loss

assert mlx_audio_r1.__version__
HIDDEN, INTERMEDIATE, HEADS, VOCABULARY = 640, 3_456, 5, 256
TRUE_VOCABULARY = 158_720
MB = 1e6
LONG = 2_048  # tokens from which plain attention, and not the MLP, is where a layer needs most
WAYS = ("blockwise", "plain")


@dataclass(frozen=True)
class Case:
    tokens: int
    layers: int
    checkpoint: bool = True
    attention: str = "blockwise"
    dtype: mx.Dtype = mx.float32
    kind: str = "lora"

    @property
    def width(self) -> int:
        return 4 if self.kind == "full" else self.dtype.size

    def __str__(self) -> str:
        kept = "checkpointed" if self.checkpoint else "kept"
        kind = "" if self.kind == "lora" else f"{self.kind}, "
        dtype = str(self.dtype).removeprefix("mlx.core.")
        return f"{self.tokens} | {self.layers} | {kind}{kept} | {self.attention} | {dtype}"


def config_of(layers: int) -> ModelConfig:
    text = {"hidden_size": HIDDEN, "num_hidden_layers": layers, "num_attention_heads": HEADS,
            "num_key_value_heads": 1, "intermediate_size": INTERMEDIATE, "vocab_size": VOCABULARY,
            "max_position_embeddings": 65_536, "rms_norm_eps": 1e-6}  # fmt: skip
    audio = {"llm_dim": HIDDEN, "n_audio_state": 64, "n_audio_head": 1, "n_audio_layer": 1}
    parsed = parse_config({"text_config": text, "audio_encoder_config": audio})
    return parsed.with_shapes(adaptor_width=64, tied=False)


def model_of(case: Case) -> Model:
    mx.random.seed(0)
    model = Model(config_of(case.layers))
    model.set_dtype(case.dtype)
    attach(model, AdapterConfig(case.kind, -1, LoRAParameters(rank=2, scale=2.0)))
    model.train()
    mx.eval(model.parameters())
    return model


def batch_of(tokens: int) -> Batch:
    ids = mx.random.randint(0, VOCABULARY, (1, tokens))
    learnt = tokens - 1
    batch = Batch(
        ids=ids, samples=mx.zeros((1, tokens), mx.int32), patches=mx.full((1, tokens), -1, mx.int32),
        positions=mx.arange(learnt, dtype=mx.int32), targets=ids[0, 1:], weights=mx.ones((learnt,)),
        owners=mx.zeros((learnt,), mx.int32), names=("random",),
    )  # fmt: skip
    mx.eval([value for value in vars(batch).values() if isinstance(value, mx.array)])
    return batch


def peak_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Most bytes at once while `function` gives a value and gradients, without the gradients themselves."""
    mx.synchronize()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    value, gradients = function(*arguments)
    mx.eval(value, gradients)
    own = sum(g.nbytes for _, g in tree_flatten(gradients))
    return mx.get_peak_memory() - before - own


def measured(case: Case, limit: int) -> int:
    model, batch = model_of(case), batch_of(case.tokens)
    options = ForwardOptions(case.checkpoint, case.attention)  # type: ignore[arg-type]
    gradient = nn.value_and_grad(model, lambda m, b: sft_loss(m, b, options)[0])
    before = mx.set_memory_limit(limit) if limit else 0
    peak = peak_of(gradient, model, batch)
    if limit:
        mx.set_memory_limit(before)
    return peak


def estimated(case: Case) -> int:
    config, sizes = config_of(case.layers), Sizes(0, 0, value_bytes=case.dtype.size)
    job = step.TrainingJob(case.tokens, rank=2, grad_checkpoint=case.checkpoint, attention=case.attention,
                           fine_tune_type=case.kind)  # fmt: skip
    moments = step.backward_moments(config, sizes, job)
    return step.kept_bytes(config, sizes, job) + max(moments.values())


def cases(tokens: Iterable[int], layers: Iterable[int], half: int) -> list[Case]:
    grid = [Case(t, n, c, a) for t, n, c, a in product(tokens, layers, (True, False), WAYS)
            if t * n <= 4_096]  # fmt: skip
    halves = [Case(half, n, c, a, mx.bfloat16) for n, c, a in product((1, 2), (True, False), WAYS)]
    return [*grid, *halves, Case(1_024, 1, kind="dora"), Case(1_024, 2, False, kind="dora"),
            Case(1_024, 1, kind="full")]  # fmt: skip


def head_arrays(ahead: bool) -> float:
    """Arrays of (chunk, vocabulary) that live at once in the loss of a frozen head."""
    head = nn.Linear(64, TRUE_VOCABULARY, bias=False)
    head.freeze()
    h, targets = mx.random.normal((512, 64)), mx.random.randint(0, TRUE_VOCABULARY, (512,))
    mx.eval(head.parameters(), h, targets)

    def loss(h: mx.array) -> mx.array:
        found = head_logprobs(Head(head, head), h, targets, step.HEAD_CHUNK, entropy=not ahead, ahead=ahead)
        return -sum(x.sum() for x in found)

    before = mx.set_memory_limit(1)
    peak = peak_of(mx.value_and_grad(loss), h)
    mx.set_memory_limit(before)
    return peak / (step.HEAD_CHUNK * TRUE_VOCABULARY * 4)


def encoder_layer(frames: int) -> float:
    """Bytes that a layer more of a trained encoder keeps, width 320 and 5 heads, float32."""
    peaks = []
    for layers in (2, 4):
        encoder = AudioEncoder(AudioConfig(n_audio_state=320, n_audio_head=5, n_audio_layer=layers))
        mel = mx.random.normal((1, 2 * frames, 128))
        mx.eval(encoder.parameters(), mel)
        before = mx.set_memory_limit(1)
        peaks.append(peak_of(nn.value_and_grad(encoder, lambda m, x: mx.square(m(x)).sum()), encoder, mel))
        mx.set_memory_limit(before)
    return (peaks[1] - peaks[0]) / 2


# ---- coefficients


def fitted(found: dict[Case, int]) -> dict[str, float]:
    """The coefficients of footprint_training.py, from float32 LoRA cases."""
    own = {case: peak for case, peak in found.items() if case.kind == "lora" and case.dtype == mx.float32}
    total = HIDDEN + INTERMEDIATE

    def solve(chosen: list[Case], columns: Callable[[Case], tuple[float, ...]], kept: bool) -> np.ndarray:
        left = np.array([columns(c) for c in chosen]) * 4.0
        right = np.array([own[c] - 4 * kept * c.layers * c.tokens * HIDDEN for c in chosen], float)
        return np.linalg.lstsq(left / right[:, None], np.ones(len(chosen)), rcond=None)[0]

    def where(checkpoint: bool, attention: str) -> list[Case]:
        return [c for c in own if c.checkpoint == checkpoint and c.attention == attention]

    (mlp,) = solve(where(True, "blockwise"), lambda c: (c.tokens * total,), True)
    long = [c for c in where(True, "plain") if c.tokens >= LONG]
    attention = solve(long, lambda c: (c.tokens * total, HEADS * c.tokens**2), True)
    block = solve(where(False, "blockwise"), lambda c: (c.layers * c.tokens * HIDDEN, c.tokens * total), False)
    plain = solve(where(False, "plain"), lambda c: (
        c.layers * c.tokens * HIDDEN, c.tokens * total, c.layers * HEADS * c.tokens**2), False)  # fmt: skip
    return {
        "MLP_VALUES": mlp, "ATTENTION_VALUES": attention[0], "ATTENTION_SCORES": attention[1],
        "KEPT_VALUES blockwise": block[0], "UNKEPT_VALUES": block[1],
        "KEPT_VALUES plain": plain[0], "KEPT_SCORES plain": plain[2],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1_024, 2_048, 4_096])
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--half-tokens", type=int, default=512)
    options = parser.parse_args()
    print("| T | layers | backward | attention | dtype | needs MB | planner MB | off | free MB | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    found = {}
    for case in cases(options.tokens, options.layers, options.half_tokens):
        began = time.monotonic()
        found[case] = peak = measured(case, limit=1)
        seconds = time.monotonic() - began
        free, estimate = measured(case, limit=0), estimated(case)
        off = f"{estimate / peak - 1:+.0%}"
        print(f"| {case} | {peak / MB:.1f} | {estimate / MB:.1f} | {off} | {free / MB:.1f} | {seconds:.0f} |",
              flush=True)  # fmt: skip
    print()
    for name, value in fitted(found).items():
        print(f"{name}: {value:.2f}")
    print(f"HEAD_ARRAYS: {head_arrays(True):.2f} prepared, {head_arrays(False):.2f} with the entropy")
    for frames in (500, 1_000):
        print(f"encoder, a layer at {frames} frames: {encoder_layer(frames) / MB:.1f} MB, planner "
              f"{4 * (step.ENCODER_VALUES * 320 * frames + step.ENCODER_SCORES * 5 * frames**2) / MB:.1f} MB")


if __name__ == "__main__":
    main()
