"""Converter: seconds and peak memory on tensors of the real shapes, beside `cp` of the same bytes.

    python benchmarks/convert.py [--layers 4] [--folder FOLDER] [--keep]

Makes a checkpoint with the full vocabulary (158,720 x 5120), the full encoder (32 layers) and a few
decoder layers of Step-Audio-R1, of random bf16, in shards of about 5 GB; 8.5 GB with 4 layers. Converts
it to 4 bits and to bf16. Needs three times its size on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GB = 1e9
SHARD = 5 << 30
CHUNK = 32 << 20
TEXT = {"hidden_size": 5120, "intermediate_size": 27648, "vocab_size": 158720, "num_attention_heads": 40,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-6}
LARGEST = 158_720 * 5_120 * 2  # bytes of the embedding table
RECIPES = {"4-bit": {"quantize": True}, "bf16": {}}


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Official names and shapes, from the published list of the 32B checkpoint."""
    table = Path(__file__).parent.parent / "tests" / "golden" / "tensors_r1_32b.tsv"
    rows = (line.split("\t") for line in table.read_text().splitlines())
    every = {name: tuple(int(n) for n in shape.split("x")) for name, shape in rows}
    dropped = tuple(f"model.layers.{n}." for n in range(layers, 64))
    return {name: shape for name, shape in every.items() if not name.startswith(dropped)}


def make_checkpoint(folder: Path, layers: int) -> int:
    """Write it shard by shard, in chunks; returns its bytes."""
    import numpy as np

    folder.mkdir(parents=True)
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in shapes(layers).items()}
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if sum(sizes[n] for n in shards[-1]) + size > SHARD:
            shards.append([])
        shards[-1].append(name)
    noise = np.random.default_rng(0).integers(0, 1 << 16, CHUNK // 2, np.uint16)
    block = memoryview((noise & 0x807F | 0x3C80).astype(np.uint16)).cast("B")
    places = {}
    for number, names in enumerate(shards, 1):
        shard = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / shard, {n: shapes(layers)[n] for n in names}, sizes, block)
        places |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    config = {"model_type": "step_audio_2", "audio_encoder_config": {"llm_dim": 5120},
              "text_config": {**TEXT, "num_hidden_layers": layers}}
    (folder / "config.json").write_text(json.dumps(config))
    return sum(sizes.values())


def write_shard(path: Path, held: dict, sizes: dict[str, int], block: memoryview) -> None:
    header, offset = {}, 0
    for name, shape in held.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + sizes[name]]}
        offset += sizes[name]
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset:  # each chunk starts elsewhere in the noise, so that no two rows are equal
            start = offset * 7919 % (CHUNK // 2) // 2 * 2
            offset -= file.write(block[start : start + min(offset, CHUNK // 2)])


def run_child(source: Path, target: Path, recipe: dict) -> dict[str, float]:
    """One conversion in a process of its own: what it says about itself."""
    call = [sys.executable, __file__, "--child", str(source), str(target), json.dumps(recipe)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(source: str, target: str, recipe: str) -> None:
    import mlx_audio_r1.convert.flow
    from mlx_audio_r1.convert import Recipe, convert

    assert mlx_audio_r1.convert.flow
    imported, begun, cpu = peak_memory(), time.perf_counter(), time.process_time()
    convert(source, target, Recipe(**json.loads(recipe)))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "peak": peak_memory(),
                      "imports": imported}))


def peak_memory() -> int:
    """Bytes. On Linux not ru_maxrss, which survives exec and may be the parent's."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def copy_seconds(source: Path, target: Path) -> float:
    """`cp -r`, and the time until the copy is on the disk, as the converter waits for it too."""
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    for path in target.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4, help="decoder layers (of 64)")
    parser.add_argument("--folder", type=Path, default=None, help="where the gigabytes go")
    parser.add_argument("--keep", action="store_true", help="leave the made checkpoint there")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="convert-"))
    source = folder / f"official-{args.layers}"
    size = sum(p.stat().st_size for p in source.iterdir()) if source.exists() else 0
    size = size or make_checkpoint(source, args.layers)
    bound = 3 * LARGEST + GB
    print(f"source {size / GB:.2f} GB, largest tensor {LARGEST / GB:.2f} GB, bound {bound / GB:.2f} GB")
    copied = copy_seconds(source, folder / "copy")
    shutil.rmtree(folder / "copy")
    print(f"cp: {copied:.0f} s, {size / copied / 1e6:.0f} MB/s")
    for name, recipe in RECIPES.items():
        target = folder / name
        got = run_child(source, target, recipe)
        made = sum(p.stat().st_size for p in target.iterdir())
        shutil.rmtree(target)
        print(f"{name}: {got['seconds']:.0f} s ({got['cpu']:.0f} s of CPU), "
              f"{size / got['seconds'] / 1e6:.0f} MB/s of source, {made / GB:.2f} GB written, "
              f"peak {got['peak'] / 1e6:.0f} MB of which imports {got['imports'] / 1e6:.0f} MB")
        assert got["peak"] < bound
    if not args.keep:
        shutil.rmtree(source)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
