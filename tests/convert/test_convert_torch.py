"""Pickled PyTorch shards: the same weights out, and nothing in them is run."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from mlx_audio_r1.convert import Options, Recipe, convert
from mlx_audio_r1.errors import CheckpointError
from tests.convert.checkpoints import BF16, FP32, Tensors, copy_of, read_all, read_shard

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def as_bin(source, folder):
    """The golden checkpoint as pytorch_model-*.bin with an index."""
    copy_of(source, folder)
    places = {}
    for shard in sorted(folder.glob("*.safetensors")):
        name = shard.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        tensors = read_shard(shard)
        torch.save({k: as_torch(*t) for k, t in tensors.items()}, folder / name)
        places |= dict.fromkeys(tensors, name)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def as_torch(dtype, shape, data):
    kind = {"BF16": torch.bfloat16, "F32": torch.float32}[dtype]
    return torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)


@pytest.mark.parametrize("source", [BF16, FP32], ids=["bf16", "fp32"])
def test_bin_shards_give_the_same_weights(tmp_path, source):
    folder = as_bin(source, tmp_path / "in")
    for recipe, name in ((Recipe(), "plain"), (Recipe(quantize=True), "q4")):
        convert(str(folder), tmp_path / f"{name}-bin", recipe)
        convert(str(source), tmp_path / name, recipe)
        assert read_all(tmp_path / f"{name}-bin") == read_all(tmp_path / name)


def test_a_view_into_a_larger_storage_is_read_row_by_row(tmp_path):
    tensors: Tensors = read_all(BF16)
    folder = copy_of(BF16, tmp_path / "in")
    for path in folder.glob("model*"):
        path.unlink()
    weights = {k: as_torch(*t) for k, t in tensors.items()}
    weights["lm_head.weight"] = weights["lm_head.weight"].t().contiguous().t()  # not in row order
    torch.save(weights, folder / "pytorch_model.bin")
    convert(str(folder), tmp_path / "out", options=Options(shard_bytes=300_000))
    assert read_all(tmp_path / "out")["language_model.lm_head.weight"] == tensors["lm_head.weight"]


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (np.save, (str(tmp_path / "ran"), 1))

    folder = copy_of(BF16, tmp_path / "in")
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="PyTorch cannot read it") as caught:
        convert(str(folder), tmp_path / "out")
    assert "\n" not in str(caught.value)
    torch.save({"a": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="PyTorch cannot read it"):
        convert(str(folder), tmp_path / "out")
    assert not list(tmp_path.glob("ran*"))


def test_cut_off_bin_is_one_line(tmp_path):
    folder = as_bin(BF16, tmp_path / "in")
    shard = sorted(folder.glob("*.bin"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=shard.name):
        convert(str(folder), tmp_path / "out")
