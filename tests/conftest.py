"""Fixtures that many tests share: the golden arrays and the tiny checkpoint loaded once."""

import json
import os
import signal
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "0")
os.environ.pop("AUDIO_R1_MODEL", None)
os.environ["AUDIO_R1_KERNELS"] = "off"  # whatever was proven on this machine; tests of kernels turn them on
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background hands that down; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

from mlx_audio_r1 import blas  # its OpenBLAS must come before MLX: many times faster

# isort: split
import mlx.core as mx
import pytest

from tests.metalsim.fixtures import simulation  # noqa: F401

GOLDEN = Path(__file__).parent / "golden"


LONG_FILES = ("test_rl_proofs.py", "test_safety.py", "mgrd/test_run.py", "test_rl_run.py")  # begin with these


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on-metal", action="store_true", help="Run tests/kernels on this Mac's GPU.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """So that the end of the suite is short files, and both processes are busy up to it."""
    items.sort(key=lambda item: not str(item.path).endswith(LONG_FILES))


def pytest_report_header() -> str:
    return f"BLAS: {blas.loaded or 'as MLX brings it'}"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def golden() -> dict[str, mx.array]:
    return mx.load(str(GOLDEN / "fp32.safetensors"))


@pytest.fixture(scope="session")
def frontend() -> dict[str, mx.array]:
    return mx.load(str(GOLDEN / "frontend.safetensors"))


@pytest.fixture(scope="session")
def meta() -> dict:
    return json.loads((GOLDEN / "meta.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def clips() -> dict[str, mx.array]:
    """Golden clips as float32 at 16 kHz."""
    pcm = mx.load(str(GOLDEN / "audio.safetensors"))
    return {name: x.astype(mx.float32) / 32768 for name, x in pcm.items()}


@pytest.fixture(scope="session")
def tiny():
    from mlx_audio_r1 import load

    return load(GOLDEN / "tiny-fp32", chunk_seconds=29.98)


@pytest.fixture(scope="session")
def tiny_hf():
    """The same checkpoint under the `- 2` length convention of the modelling file."""
    from dataclasses import replace

    from mlx_audio_r1 import load

    r1 = load(GOLDEN / "tiny-fp32", chunk_seconds=29.98)
    r1.model.config = replace(r1.model.config, length_convention="hf")
    return r1
