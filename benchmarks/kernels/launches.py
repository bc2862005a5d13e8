"""How many GPU launches one token costs in the decoder: mlx-lm's, with weights side by side, with kernels.

    python benchmarks/kernels/launches.py [--layers 64]

Counted, not measured, in the graph that MLX builds for a decode step of one stream behind a cache, of a decoder
with Qwen2.5-32B's structure (40 heads over 8, biases on q, k and v, 4 bit) and small widths, which change no
count. Nothing is computed in that step, so any machine counts the same. The rules:

- A primitive is one launch: a quantised product, an add, a compiled function, a write into the cache, whose
  old buffer is taken over.
- A view is none: VIEWS. Of a single token every reshape is one, for only axes of size 1 change places.
- rms_norm, rope, attention and the kernels of this package are one launch each on Metal, whatever they are made
  of elsewhere. While counting, each is a node of its own, and as many nodes must be in the graph as calls were.

Embedding, head and sampling are left out: they are the same on all sides.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen2
from mlx_lm.models.cache import make_prompt_cache

from mlx_audio_r1.kernels import choice
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.kernels.source import kernel
from mlx_audio_r1.models.decoder import open_decoder

VIEWS = {"Broadcast", "CustomTransforms", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze",
         "StopGradient", "Transpose", "Unflatten"}
COMPILED = re.compile("(Compiled).*")
MARK = "Depends"  # the primitive of a marked node; nothing else here makes one
FAST = {"rms_norm": lambda x, *_, **__: x, "rope": lambda x, *_, **__: x,
        "scaled_dot_product_attention": lambda q, *_, **__: q}
SIZES = {"hidden_size": 160, "num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": 256,
         "rms_norm_eps": 1e-6, "vocab_size": 64}


class Marks:
    """Nodes that stand for one launch on Metal, counted as they are made."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def node(self, name: str, inputs: Any, like: list[tuple[Any, mx.Dtype]]) -> list[mx.array]:
        self.calls[name] += 1
        outputs = [mx.zeros(shape, dtype) for shape, dtype in like]
        mx.eval(outputs)
        return mx.depends(outputs, [x for x in inputs if isinstance(x, mx.array)])

    def fast(self, name: str) -> Any:
        def marked(*args: Any, **options: Any) -> mx.array:
            like = FAST[name](*args)
            return self.node(name, [*args, *options.values()], [(like.shape, like.dtype)])[0]

        return marked

    def kernel(self, name: str, **_: Any) -> Any:
        def marked(inputs: Any, output_shapes: Any, output_dtypes: Any, **_: Any) -> list[mx.array]:
            return self.node(name, inputs, list(zip(output_shapes, output_dtypes, strict=True)))

        return marked


@contextmanager
def marking() -> Iterator[Marks]:
    """As if on Metal, with every fused operation a marked node."""
    marks = Marks()
    with ExitStack() as stack:
        for name in FAST:
            stack.enter_context(patch.object(mx.fast, name, marks.fast(name)))
        stack.enter_context(patch.object(mx.fast, "metal_kernel", marks.kernel))
        stack.enter_context(patch.object(mx.metal, "is_available", lambda: True))
        stack.callback(kernel.cache_clear)
        kernel.cache_clear()
        yield marks


def decoder(layers: int) -> qwen2.Model:
    mx.random.seed(0)
    model = qwen2.Model(qwen2.ModelArgs(model_type="qwen2", num_hidden_layers=layers, **SIZES))
    nn.quantize(model, group_size=32, bits=4)
    model.eval()
    return open_decoder(model)


def launches(layers: int, side: str) -> Counter[str]:
    """Of one token, by name."""
    with marking() as marks, _on(side):
        model = decoder(layers)
        cache, token = make_prompt_cache(model), mx.zeros((1, 1), mx.int32)
        embedding = mx.zeros((1, 1, SIZES["hidden_size"]))
        for _ in range(2):  # the prompt, and the first token
            mx.eval(model.model(token, cache, embedding), [c.state for c in cache])
        marks.calls.clear()
        return _counted(model.model(token, cache, embedding), marks)


@contextmanager
def _on(side: str) -> Iterator[None]:
    """The switch, and what `auto` would have found out: a marked node has no numbers to be tried by. Weights
    side by side alone is where the plain operations are the faster ones."""
    chosen = patch.object(choice, "_chosen", lambda *_: side == "kernels")
    with configured("off" if side == "plain" else "on"), chosen:
        yield


def _counted(output: mx.array, marks: Marks) -> Counter[str]:
    dot = StringIO()
    mx.export_to_dot(dot, output)
    nodes = Counter(re.findall(r'label ="(\w+)", shape=rectangle', dot.getvalue()))
    if nodes.pop(MARK) != marks.calls.total():
        raise SystemExit("some of what was called is not in the graph: the count is wrong")
    rest = Counter({name: n for name, n in nodes.items() if name not in VIEWS})
    return marks.calls + sum((Counter({COMPILED.sub(r"\1", name): n}) for name, n in rest.items()), Counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=64)
    layers = parser.parse_args().layers
    sides = ("plain", "side by side", "kernels")
    one, two, every = ([launches(n, side) for side in sides] for n in (1, 2, layers))
    a_layer = [b - a for a, b in zip(one, two, strict=True)]
    print(f"{'launches':32}", *(f"{side:>14}" for side in sides))
    for name in sorted(set().union(*a_layer)):
        print(f"{name:32}", *(f"{counts[name] or '':>14}" for counts in a_layer))
    print(f"{'a layer':32}", *(f"{counts.total():>14}" for counts in a_layer))
    print(f"{f'{layers} layers and the last norm':32}", *(f"{c.total():>14}" for c in every))


if __name__ == "__main__":
    main()
