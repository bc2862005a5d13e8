"""A small checkpoint and small data sets, made once."""

import json

import numpy as np
import pytest
import soundfile

from tests.helpers import random_checkpoint

RATE = 16_000
HEARD = {"low": 220.0, "high": 1_400.0}


def tone(hz, seconds, seed):
    rng = np.random.default_rng(seed)
    x = np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)
    return (0.3 * x + 0.01 * rng.standard_normal(len(x))).astype(np.float32)


def write_tones(folder, count, first=0):
    """Pairs of (path, low or high), 0.3 to 0.8 s."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        name = list(HEARD)[i % 2]
        path = folder / f"{i}.wav"
        soundfile.write(path, tone(HEARD[name] * (1 + 0.01 * (i % 7)), 0.3 + 0.1 * (i % 6), i), RATE)
        yield path.name, name


def rows(pairs):
    for i, (path, name) in enumerate(pairs):
        think = f"<think>\nThe tone is {name}.\n</think>\n" if i % 3 else ""
        messages = [{"role": "user", "content": "<audio>Is it low or high?"},
                    {"role": "assistant", "content": think + name}]  # fmt: skip
        yield {"messages": messages, "audios": [f"clips/{path}"]}


def preferences(pairs):
    for row, (_, name) in zip(rows(pairs), pairs, strict=True):
        other = "high" if name == "low" else "low"
        yield {**row, "rejected_response": f"<think>\nThe text says so.\n</think>\n{other}"}


def write_jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A random checkpoint in MLX form."""
    return random_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    """12 rows to learn and 4 to measure; one in three without reasoning."""
    folder = tmp_path_factory.mktemp("tones")
    write_jsonl(folder / "train.jsonl", rows(write_tones(folder / "clips", 12)))
    write_jsonl(folder / "valid.jsonl", rows(write_tones(folder / "clips", 4, first=100)))
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """8 preferences to learn and 2 to measure."""
    folder = tmp_path_factory.mktemp("pairs")
    write_jsonl(folder / "train.jsonl", preferences(list(write_tones(folder / "clips", 8))))
    write_jsonl(folder / "valid.jsonl", preferences(list(write_tones(folder / "clips", 2, first=100))))
    return folder
