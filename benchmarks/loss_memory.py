"""Memory of the loss: log-probabilities a chunk at a time against logits that exist as a whole.

    python benchmarks/loss_memory.py [--tokens 10240] [--full-tokens 2048] [--vocabulary 158720] [--width 128]

Loss and gradient of `tokens` hidden states under a frozen float32 head, each way in a process of its own.
Peaks are those of MLX above hidden states and head, in units of the float32 logits (tokens x vocabulary):

  nn.losses.cross_entropy   all logits, MLX's plain loss
  mx.fast.cross_entropy     all logits, MLX's fused one (fused on Metal and CUDA, not on a CPU)
  head_logprobs             ours; `recomputed` where a head is trained too, and with the entropy

The first two run at fewer tokens, because they would take 26 GB at 10,240; their units do not depend on it.
The width of the hidden states hardly matters to memory, it is small so that a CPU gets through.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import mlx_audio_r1  # before MLX: it puts OpenBLAS in front of MLX's own

# isort: split
import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.train.head import Head, head_logprobs

assert mlx_audio_r1.__version__
Way = Callable[[nn.Linear, mx.array, mx.array, int], mx.array]


def plain(head: nn.Linear, h: mx.array, targets: mx.array, chunk: int) -> mx.array:
    return nn.losses.cross_entropy(head(h), targets).sum()


def fast(head: nn.Linear, h: mx.array, targets: mx.array, chunk: int) -> mx.array:
    return mx.fast.cross_entropy(head(h), targets).sum()


def ours(head: nn.Linear, h: mx.array, targets: mx.array, chunk: int) -> mx.array:
    return -head_logprobs(Head(head, head), h, targets, chunk, entropy=False, ahead=True)[0].sum()


def recomputed(head: nn.Linear, h: mx.array, targets: mx.array, chunk: int) -> mx.array:
    return -head_logprobs(Head(head, head), h, targets, chunk, entropy=False)[0].sum()


def with_entropy(head: nn.Linear, h: mx.array, targets: mx.array, chunk: int) -> mx.array:
    logp, entropy = head_logprobs(Head(head, head), h, targets, chunk)
    return -logp.sum() - entropy.sum()


WAYS: dict[str, Way] = {
    "nn.losses.cross_entropy": plain, "mx.fast.cross_entropy": fast, "head_logprobs": ours,
    "head_logprobs, recomputed": recomputed, "head_logprobs, entropy": with_entropy,
}  # fmt: skip


def measure(way: str, tokens: int, vocabulary: int, width: int, chunk: int) -> dict[str, float]:
    """Peak bytes, seconds and CPU seconds of loss and gradient."""
    mx.random.seed(0)
    head = nn.Linear(width, vocabulary, bias=False)
    head.freeze()
    h, targets = mx.random.normal((tokens, width)), mx.random.randint(0, vocabulary, (tokens,))
    mx.eval(head.parameters(), h, targets)
    mx.clear_cache()
    mx.reset_peak_memory()
    before, wall, cpu = mx.get_active_memory(), time.perf_counter(), time.process_time()
    loss, grad = mx.value_and_grad(lambda h: WAYS[way](head, h, targets, chunk))(h)
    mx.eval(loss, grad)
    return {"peak": mx.get_peak_memory() - before, "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu, "loss": loss.item() / tokens}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=10_240)
    parser.add_argument("--full-tokens", type=int, default=2048, help="for the ways that keep all logits")
    parser.add_argument("--vocabulary", type=int, default=158_720)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    few, many = options.full_tokens, options.tokens
    runs = [("nn.losses.cross_entropy", few, 0), ("mx.fast.cross_entropy", few, 0), ("head_logprobs", few, 128),
            ("head_logprobs", many, 128), ("head_logprobs", many, 32),
            ("head_logprobs, recomputed", many, 128), ("head_logprobs, entropy", many, 128)]
    print("| loss | tokens | chunk | peak MB | of the logits | CPU seconds | loss a token |")
    print("|---|---|---|---|---|---|---|")
    for way, tokens, chunk in runs:
        work = {"way": way, "tokens": tokens, "vocabulary": options.vocabulary, "width": options.width,
                "chunk": chunk}  # fmt: skip
        done = subprocess.run([sys.executable, __file__, "--one", json.dumps(work)],
                              capture_output=True, text=True, check=True)  # fmt: skip
        found = json.loads(done.stdout)
        share = found["peak"] / (tokens * options.vocabulary * 4)
        print(f"| {way} | {tokens:,} | {chunk or ''} | {found['peak'] / 1e6:,.0f} | {share:.2f} "
              f"| {found['cpu']:.0f} | {found['loss']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
