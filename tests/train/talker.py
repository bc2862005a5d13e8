"""A random model that talks: a handful of tokens make most of its replies, so some are right, some end.

Every embedding points a little the same way, and the head likes a few tokens in that direction. Replies
look like `a</think>2<|EOT|>`, in any order; what it says depends on the prompt, sounds included.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx

from tests.helpers import random_checkpoint
from tests.train.conftest import write_jsonl, write_tones

CLOSE, STOP = 300, 400  # ids of </think> and <|EOT|>
LIKED = {ord("a"): 5.5, ord("1"): 6.0, ord("2"): 6.0, CLOSE: 6.5, STOP: 6.4}
PUSH, TEMPER = 0.35, 0.3  # how far embeddings point that way; how much of the random head is left


def talking_checkpoint(folder: Path) -> Path:
    """`random_checkpoint`, made to talk; `</think>` is one token of it."""
    random_checkpoint(folder)
    weights = mx.load(str(folder / "model.safetensors"))
    names = [next(name for name in weights if name.endswith(f"{last}.weight"))
             for last in ("embed_tokens", "lm_head", "model.norm")]
    embed, head, norm = (weights[name] for name in names)
    head = TEMPER * head
    embed[:, 0] = PUSH
    head[:, 0] = 0.0
    for token, liking in LIKED.items():
        head[token, 0] = liking
    weights |= dict(zip(names, (embed, head, mx.ones_like(norm)), strict=True))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    _name_the_close(folder / "tokenizer.json")
    return folder


def _name_the_close(path: Path) -> None:
    told = json.loads(path.read_text())
    vocab = told["model"]["vocab"]
    del vocab[next(word for word, i in vocab.items() if i == CLOSE)]
    vocab["</think>"] = CLOSE
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    told["added_tokens"] = [token for token in told["added_tokens"] if token["id"] != CLOSE]
    told["added_tokens"].append({"id": CLOSE, "content": "</think>", **plain})
    path.write_text(json.dumps(told))


def heard(path: str, solution: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "<audio>How many?"}], "audios": [f"clips/{path}"],
            "solution": solution, "problem_type": "number"}  # fmt: skip


def read(i: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"What is {i} and {i % 2 + 1} less {i}?"}],
            "solution": i % 2 + 1, "problem_type": "number"}  # fmt: skip


def write_questions(folder: Path) -> Path:
    """6 questions to learn from, of which two are text, and 2 to measure."""
    clips = [path for path, _ in write_tones(folder / "clips", 6)]
    rows = [heard(path, 1 + i % 2) for i, path in enumerate(clips[:4])]
    write_jsonl(folder / "train.jsonl", [rows[0], read(0), rows[1], rows[2], read(1), rows[3]])
    write_jsonl(folder / "valid.jsonl", [heard(clips[4], 1), heard(clips[5], 2)])
    return folder
