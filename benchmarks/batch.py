"""K replies to one prompt, and a second question about one sound: seconds and bytes, ours and mlx-lm's.

    python benchmarks/batch.py [--replies 1 4 8 16] [--prompt 600] [--tokens 32]

A random float32 decoder with the real ratio of heads (5 query heads of 128 to one kv head; 8 layers of
width 640) and a random encoder of 6 layers. Three ways to get K greedy replies of the same length:

  independent   mlx-lm's BatchGenerator, K times the prompt, read in one batch
  copies        mlx-lm's BatchGenerator, the prompt read once, its cache given K times (it copies)
  shared        mlx_audio_r1.batch.Engine: the prompt read once and held once

and the last with 8 and 4 bits. Every way is checked to give the same tokens (exact ones). CPU seconds of
the process stand beside the wall clock, which other work on the machine disturbs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx_audio_r1  # before MLX: it puts OpenBLAS in front of MLX's own

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from mlx_audio_r1.batch import Engine
from mlx_audio_r1.config import parse_config
from mlx_audio_r1.generate import Settings
from mlx_audio_r1.many import Conversations
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.prompt_cache import PromptCache
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tokenizer import Tokenizer

assert mlx_audio_r1.__version__
TINY = Path(__file__).parent.parent / "tests" / "golden" / "tiny-fp32"
TEXT = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 8, "num_attention_heads": 5,
        "num_key_value_heads": 1}
AUDIO = {"n_audio_state": 512, "n_audio_head": 8, "n_audio_layer": 6, "llm_dim": 640}
MB = 1e6


@dataclass
class Run:
    """What one way took: seconds, CPU seconds, most bytes of KV held by the batch, peak beside weights."""

    wall: float
    cpu: float
    kv: int
    peak: int
    tokens: list[list[int]]


def bench_model() -> AudioR1:
    config = json.loads((TINY / "config.json").read_text())
    config["text_config"] |= TEXT
    config["audio_encoder_config"] |= AUDIO
    mx.random.seed(0)
    model = Model(parse_config(config).with_shapes(adaptor_width=2048, tied=False))
    model.update(tree_map(
        lambda p: mx.random.normal(p.shape) * p.shape[-1] ** -0.5 if p.ndim > 1 else mx.ones_like(p),
        model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    tokenizer = Tokenizer.from_folder(TINY)
    tokenizer.stop_ids = frozenset()  # every reply runs to its limit
    return AudioR1(model, tokenizer, "bench", Settings(temperature=0.0))


def measured(work: Callable[[], tuple[list[list[int]], int]]) -> Run:
    mx.clear_cache()
    mx.reset_peak_memory()
    before, wall, cpu = mx.get_active_memory(), time.perf_counter(), time.process_time()
    tokens, kv = work()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, kv, mx.get_peak_memory() - before, tokens)


def drain(generator: BatchGenerator, uids: list[int]) -> tuple[list[list[int]], int]:
    tokens: dict[int, list[int]] = {uid: [] for uid in uids}
    most = 0
    while True:
        read, responses = generator.next()
        if not read and not responses:
            generator.close()
            return [tokens[uid] for uid in uids], most
        most = max(most, generator.prompt_cache_nbytes)
        for response in responses:
            tokens[response.uid].append(response.token)
            response.prompt_cache = None


def independent(r1: AudioR1, ids: list[int], replies: int, n: int) -> tuple[list[list[int]], int]:
    model = r1.model.language_model
    generator = BatchGenerator(model, completion_batch_size=replies, prefill_batch_size=replies)
    return drain(generator, generator.insert([ids] * replies, [n] * replies))


def copies(r1: AudioR1, ids: list[int], replies: int, n: int) -> tuple[list[list[int]], int]:
    model = r1.model.language_model
    cache = make_prompt_cache(model)
    model(mx.array(ids[:-1])[None], cache=cache)
    mx.eval([c.state for c in cache])
    generator = BatchGenerator(model, completion_batch_size=replies, prefill_batch_size=replies)
    uids = generator.insert([ids[-1:]] * replies, [n] * replies, caches=[cache] * replies,
                            all_tokens=[ids[:-1] for _ in range(replies)])
    del cache
    return drain(generator, uids)


def shared(r1: AudioR1, ids: list[int], replies: int, n: int, **kv: int) -> tuple[list[list[int]], int]:
    settings = Settings(max_tokens=n, temperature=0.0, **kv)
    embeddings = r1.model.embed(mx.array(ids), [], r1.tokenizer.audio_patch_id)
    tokens: list[list[int]] = [[] for _ in range(replies)]
    most = 0
    with Engine(r1.model, r1.tokenizer, max_rows=replies) as engine:
        engine.submit(ids, embeddings, settings, False, replies)
        while engine.busy:
            for event in engine.step():
                tokens[event.sample].append(event.token)
            most = max(most, engine.kv_nbytes)
    return tokens, most


def replies_table(r1: AudioR1, counts: list[int], prompt: int, n: int) -> None:
    ids = np.random.RandomState(1).randint(5, 300, prompt).tolist()
    q8 = {"kv_bits": 8, "kv_group_size": 64, "quantized_kv_start": 0}
    ways = {
        "independent": independent, "copies": copies, "shared": shared,
        "shared, 8 bit": lambda *args: shared(*args, **q8),
        "shared, 4 bit": lambda *args: shared(*args, **{**q8, "kv_bits": 4}),
    }
    shared(r1, ids[:50], 2, 4)  # warm up
    print("| K | way | seconds | CPU seconds | KV MB | peak MB beside weights |\n|---|---|---|---|---|---|")
    for replies in counts:
        first = None
        for name, way in ways.items():
            run = measured(lambda way=way, replies=replies: way(r1, ids, replies, n))
            first = first or run
            if "bit" not in name and run.tokens != first.tokens:
                raise SystemExit(f"{name}: other tokens than independent requests")
            print(f"| {replies} | {name} | {run.wall:.1f} | {run.cpu:.1f} | {run.kv / MB:.1f} "
                  f"| {run.peak / MB:.1f} |", flush=True)


def second_question(r1: AudioR1, seconds: float) -> None:
    clip = np.random.RandomState(0).randn(int(seconds * 16_000)).astype(np.float32) * 0.1
    r1.prompt_cache = PromptCache("bench")
    print(f"\n| question about {seconds:g} s | seconds to the first token | CPU seconds | chunks encoded "
          "| prompt tokens read |\n|---|---|---|---|---|")
    for name, text in (("first", "What is it?"), ("second", "Who speaks?")):
        wall, cpu, encoded = time.perf_counter(), time.process_time(), r1.prompt_cache.encoded
        with Conversations(r1) as many:
            many.submit(r1.question((clip, 16_000), text), max_tokens=2)
            while not many.step():
                pass
            read = many.engine.counts.prefilled
        print(f"| {name} | {time.perf_counter() - wall:.2f} | {time.process_time() - cpu:.2f} "
              f"| {r1.prompt_cache.encoded - encoded} | {read} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replies", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--prompt", type=int, default=600, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each reply")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the sound asked about twice")
    options = parser.parse_args()
    r1 = bench_model()
    replies_table(r1, options.replies, options.prompt, options.tokens)
    second_question(r1, options.seconds)


if __name__ == "__main__":
    main()
