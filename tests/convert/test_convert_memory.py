"""Memory does not grow with the checkpoint, and stays far below three times its largest tensor."""

from __future__ import annotations

import shutil

import pytest

from tests.convert.checkpoints import random_checkpoint

MB = 1 << 20
Q4 = {"quantize": True}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """39 MB and four times that, tensors of 8 MB at most. Then two tensors of 96 MB."""
    folder = tmp_path_factory.mktemp("memory")
    yield {
        "small": random_checkpoint(folder / "small", layers=1),
        "large": random_checkpoint(folder / "large", layers=6),
        "wide": random_checkpoint(folder / "wide", layers=1, vocab=49_152),
    }
    shutil.rmtree(folder)


def growth(driver, source, target, **recipe) -> int:
    """Bytes that one conversion adds to the peak memory of a process that has done the imports."""
    answer = driver.run(source, target, recipe=recipe)
    assert answer["ok"]
    shutil.rmtree(target)
    return answer["memory"]


def test_four_times_the_checkpoint_takes_no_more_memory(driver, checkpoints, tmp_path):
    small, large = (
        growth(driver, checkpoints[name], tmp_path / "out", **Q4) for name in ("small", "large")
    )
    # The large one is 127 MB larger; 24 MB is allowed for the moods of an allocator.
    assert abs(large - small) < 24 * MB


@pytest.mark.parametrize("recipe", [Q4, {}, {"dtype": "float16"}], ids=["4-bit", "copy", "cast"])
def test_a_large_tensor_is_never_in_memory_as_a_whole(driver, checkpoints, tmp_path, recipe):
    """Of its 96 MB, blocks of 8 MB in a few copies, and 6 MB of scales and biases at the end."""
    assert growth(driver, checkpoints["wide"], tmp_path / "out", **recipe) < 80 * MB


def test_fp4_stays_inside_the_bound_too(driver, checkpoints, tmp_path):
    """On the CPU, MLX takes far more than the block for fp4: 0.2 GB, well within the 1 GB allowed."""
    assert growth(driver, checkpoints["small"], tmp_path / "out", quantize=True, mode="mxfp4") < 400 * MB
