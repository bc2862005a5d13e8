"""One LoRA step, ours and mlx-lm's: tokens a second and peak memory, on the same model and the same text.

    python benchmarks/train_step.py [--cases 512x4 2048x1 4096x1] [--steps 3] [--layers 4]

A random float32 Qwen2 an eighth as wide as the real one (width 640, 5 query heads of 128 to one kv head,
19,840 words), adapters of rank 8 from mlx-lm on all linears, AdamW. A step is loss, gradient, update, compiled
as mlx-lm's trainer does it: its own default_loss and grad_checkpoint against `sft_loss`. Every token is learnt,
which is the worst case here and the only one there. The ways take turns, step by step, in one process; the
losses of all of them are checked to be equal. Seconds are CPU seconds, which other work on the machine disturbs
less than the clock; peaks are those of MLX above the models and optimizers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx_audio_r1  # before MLX: it puts OpenBLAS in front of MLX's own

# isort: split
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm.models import qwen2
from mlx_lm.tuner.trainer import default_loss, grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.train.batch import Batch, as_tree, of_tree
from mlx_audio_r1.train.forward import ForwardOptions
from mlx_audio_r1.train.losses import sft_loss

assert mlx_audio_r1.__version__
VOCABULARY, WIDTH = 19_840, 640
TEXT = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 3456, "num_attention_heads": 5,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6}  # fmt: skip
AUDIO = {"n_audio_state": 64, "n_audio_head": 1, "n_audio_layer": 1}
LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0, "keys": None}
Step = Callable[[], mx.array]


@dataclass
class Run:
    """What a way took so far."""

    step: Step
    cpu: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def once(self) -> None:
        mx.clear_cache()
        mx.reset_peak_memory()
        before, cpu = mx.get_active_memory(), time.process_time()
        self.losses.append(self.step().item())
        self.cpu.append(time.process_time() - cpu)
        self.peaks.append(mx.get_peak_memory() - before)


def adapted_model(weights: list[tuple[str, mx.array]], layers: int) -> Model:
    """The model of these weights with fresh adapters, the same every time."""
    config = parse_config({"text_config": {**TEXT, "num_hidden_layers": layers}, "audio_encoder_config": AUDIO})
    model = Model(config.with_shapes(adaptor_width=64, tied=False))
    if weights:
        model.load_weights(weights)
    model.freeze()
    mx.random.seed(1)
    linear_to_lora_layers(model, layers, LORA)
    model.train()
    mx.eval(model.parameters())
    return model


def compiled(model: nn.Module, loss: Callable[[], mx.array]) -> Step:
    """Loss, gradient and update, with mlx-lm's arguments to mx.compile."""
    optimizer = optim.AdamW(1e-5)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]
    gradient = nn.value_and_grad(model, loss)

    def step() -> mx.array:
        value, grads = gradient()
        optimizer.update(model, grads)
        return value

    fast = mx.compile(step, inputs=state, outputs=state)

    def evaluated() -> mx.array:
        value = fast()
        mx.eval(value, state)
        return value

    return evaluated


def theirs(model: Model, tokens: mx.array) -> Step:
    lengths = mx.array([[0, tokens.shape[1]]] * tokens.shape[0])
    return compiled(model, lambda: default_loss(model.language_model, tokens, lengths)[0])


def ours(model: Model, tokens: mx.array, checkpoint: bool) -> Step:
    B, T = tokens.shape[0], tokens.shape[1] - 1
    rows = mx.broadcast_to(mx.arange(B)[:, None], (B, T))
    batch = Batch(tokens[:, :-1], rows, mx.full((B, T), -1), mx.arange(B * T), tokens[:, 1:].reshape(-1),
                  mx.ones((B * T,)), rows.reshape(-1), names=("text",) * B)  # fmt: skip
    tree, loss = as_tree(batch), of_tree(lambda m, b: sft_loss(m, b, ForwardOptions(checkpoint)))

    def mean() -> mx.array:
        total, count, _ = loss(model, tree)
        return total / count

    return compiled(model, mean)


@contextmanager
def class_as_it_is() -> Iterator[None]:
    """grad_checkpoint patches the class for good; here it is undone, or ours would be patched too."""
    call = qwen2.TransformerBlock.__call__
    try:
        yield
    finally:
        qwen2.TransformerBlock.__call__ = call


def started(name: str, model: Model, tokens: mx.array) -> Run:
    """The way of this name after its first step, which traces it."""
    keep = "checkpoint" in name
    with class_as_it_is():
        if keep and "mlx-lm" in name:
            grad_checkpoint(model.layers[0])
        run = Run(theirs(model, tokens) if "mlx-lm" in name else ours(model, tokens, keep))
        run.once()
    run.cpu.clear()
    run.peaks.clear()
    return run


WAYS = ("mlx-lm", "ours", "mlx-lm, checkpoint", "ours, checkpoint")


def measure(weights: list[tuple[str, mx.array]], layers: int, T: int, B: int, steps: int) -> None:
    tokens = mx.random.randint(0, VOCABULARY, (B, T + 1), key=mx.random.key(T))
    runs = {name: started(name, adapted_model(weights, layers), tokens) for name in WAYS}
    for _ in range(steps):
        for run in runs.values():
            run.once()
    first = runs["mlx-lm"].losses
    for name, run in runs.items():
        if any(abs(a - b) > 1e-4 * abs(b) for a, b in zip(run.losses, first, strict=True)):
            raise SystemExit(f"{name}: losses {run.losses}, mlx-lm's are {first}")
        other = runs[name.replace("ours", "mlx-lm")]
        ratio = statistics.median(a / b for a, b in zip(other.cpu, run.cpu, strict=True))
        print(f"| {T} x {B} | {name} | {statistics.median(run.cpu):.1f} "
              f"| {T * B / statistics.median(run.cpu):.0f} | {ratio:.2f} | {max(run.peaks) / 1e6:,.0f} "
              f"| {max(run.peaks) / max(other.peaks):.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=["512x4", "2048x1", "4096x1"], help="tokens x rows")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    mx.random.seed(0)
    base = adapted_model([], options.layers)
    weights = [(name.replace(".linear.", "."), x) for name, x in tree_flatten(base.parameters())
               if "lora_" not in name]  # fmt: skip
    del base
    print("| tokens x rows | way | CPU s a step | tokens a CPU second | speed | peak MB | memory |")
    print("|---|---|---|---|---|---|---|")
    for case in options.cases:
        T, B = map(int, case.split("x"))
        measure(weights, options.layers, T, B, options.steps)


if __name__ == "__main__":
    main()
