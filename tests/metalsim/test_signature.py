"""The simulator runs the text that MLX would hand to Metal: byte for byte what MLX itself prints."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.metalsim.signature import ATTRIBUTES, ArrayType, KernelText, dtype_name, generate

DTYPES = (mx.float32, mx.float16, mx.bfloat16, mx.complex64, mx.bool_, mx.int8, mx.int16, mx.int32, mx.int64,
          mx.uint8, mx.uint16, mx.uint32, mx.uint64)
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (8,), (2, 3), (2, 4), (3, 5, 7), (0,), (1, 1, 1))
SEEDS = range(300)


def printed(call: Any, inputs: list[mx.array], folder: Path) -> str:
    """What MLX prints of a call under verbose=True. Exporting needs no Metal, as launching does."""
    with tempfile.TemporaryFile() as caught:
        sys.stdout.flush()
        stdout = os.dup(1)
        os.dup2(caught.fileno(), 1)
        try:
            mx.export_function(str(folder / "kernel.mlxfn"), call, *inputs)
        finally:
            ctypes.CDLL(None).fflush(None)
            os.dup2(stdout, 1)
            os.close(stdout)
        caught.seek(0)
        return caught.read().decode().split("```\n", 1)[1].rsplit("\n```", 1)[0]


def random_kernel(rnd: random.Random, name: str) -> KernelText:
    inputs = tuple(f"in{i}" for i in range(rnd.randint(0, 4)))
    outputs = tuple(f"out{i}" for i in range(rnd.randint(1, 3)))
    words = [a for a in ATTRIBUTES if rnd.random() < 0.15]
    words += [f"{i}_{e}" for i in inputs for e in ("shape", "strides", "ndim") if rnd.random() < 0.3]
    source = f"// {' '.join(words)}\n  int x = 0;\n"
    header = rnd.choice(["", "// header\n", "int f() { return 1; }"])
    return KernelText(name, inputs, outputs, source, header, rnd.random() < 0.3)


def random_template(rnd: random.Random) -> list[tuple[str, Any]] | None:
    mixed = [("T", rnd.choice(DTYPES)), ("n", rnd.randint(-5, 5)), ("flag", rnd.random() < 0.5)]
    return rnd.choice([None, [], mixed, [("N", 3)]])


def ours_and_mlx(seed: int, folder: Path) -> tuple[str, str]:
    rnd = random.Random(seed)
    kernel, template = random_kernel(rnd, f"kernel{seed}"), random_template(rnd)
    inputs = [mx.zeros(rnd.choice(SHAPES), dtype=rnd.choice(DTYPES)) for _ in kernel.input_names]
    dtypes = [rnd.choice(DTYPES) for _ in kernel.output_names]
    built: Any = mx.fast.metal_kernel(
        name=kernel.name, input_names=list(kernel.input_names), output_names=list(kernel.output_names),
        source=kernel.source, header=kernel.header, atomic_outputs=kernel.atomic_outputs)

    given: dict[str, Any] = {} if template is None else {"template": template}

    def call(*arrays: mx.array) -> Any:
        return built(inputs=list(arrays), output_shapes=[(2,)] * len(dtypes), output_dtypes=dtypes,
                     grid=(1, 1, 1), threadgroup=(1, 1, 1), verbose=True, stream=mx.gpu, **given)

    types = [ArrayType(dtype_name(x.dtype), x.shape) for x in inputs]
    made = generate(kernel, types, [dtype_name(d) for d in dtypes], template)
    return made.text + made.instantiation, printed(call, inputs, folder)


@pytest.mark.skipif(sys.platform != "linux", reason="MLX without Metal prints while it exports")
def test_every_signature_is_mlx_s_own(tmp_path: Path) -> None:
    for seed in SEEDS:
        ours, mlx = ours_and_mlx(seed, tmp_path)
        assert ours == mlx, f"seed {seed}: this MLX makes kernels by other rules than signature.py"


def test_an_input_below_eight_elements_is_constant_memory() -> None:
    kernel = KernelText("k", ("x",), ("out",), "")
    texts = [generate(kernel, [ArrayType("float32", (n,))], ["float32"]).text for n in (7, 8)]
    assert "const constant float* x [[buffer(0)]]" in texts[0]
    assert "const device float* x [[buffer(0)]]" in texts[1]
