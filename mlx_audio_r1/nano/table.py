"""The held-out table: what the nano model hears, task by task.

    python -m mlx_audio_r1.nano.table [--per-task N] [--seed S] [--held-out-words] [--json]

Clips no training run has seen, speakers no training clip has, every answer of a task about equally often,
greedy decoding. Four columns: with thinking, answering directly, the sound replaced by silence (thinking),
and chance. Half the questions are free, half have options.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import BatchKVCache

from mlx_audio_r1.config import patch_count
from mlx_audio_r1.mel import log_mel
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.nano.vocabulary import Prompts
from mlx_audio_r1.reasoning import split_reply
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.balanced import Drawn as Item
from mlx_audio_r1.tasks.acoustic.balanced import draw_items
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.weights import load_model

CHECKPOINT = Path(__file__).parent / "checkpoint"
BATCH = 64
MOST_TOKENS = 120


@dataclass(frozen=True)
class Row:
    """Shares of right answers of one task, 0-1, and the number of items."""

    task: str
    thinking: float
    direct: float
    silence: float
    chance: float
    items: int


def answer(
    model: Model, prompts: Prompts, items: Sequence[Item], thinking: bool = True, silence: bool = False
) -> list[tuple[str, str]]:
    """(reasoning, answer) of every item, greedily, in batches."""
    replies: list[tuple[str, str]] = [("", "")] * len(items)
    order = sorted(range(len(items)), key=lambda i: (len(items[i].clip.waveform), len(items[i].question.text)))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        asked = [items[i] for i in part]
        answered = _answer_batch(model, prompts, asked, thinking, silence)
        for i, reply in zip(part, answered, strict=True):
            replies[i] = reply
    return replies


def _answer_batch(
    model: Model, prompts: Prompts, items: Sequence[Item], thinking: bool, silence: bool
) -> list[tuple[str, str]]:
    rows, embeddings = [], []
    for item in items:
        waveform = np.zeros_like(item.clip.waveform) if silence else item.clip.waveform
        ids = prompts.prompt(item.question.text, [patch_count(len(waveform))], thinking)
        features = model.encode_audio(log_mel(waveform))
        rows.append(ids)
        embeddings.append(model.embed(mx.array(ids), [features], prompts.tokenizer.audio_patch_id))
    texts = _decode(model, prompts, rows, embeddings)
    return [split_reply(text, thinking) for text in texts]


def _decode(
    model: Model, prompts: Prompts, rows: Sequence[list[int]], embeddings: Sequence[mx.array]
) -> list[str]:
    """Greedy continuations of prompts of different lengths, padded on the left."""
    padding = [max(map(len, rows)) - len(r) for r in rows]
    x = mx.stack([mx.pad(e, [(n, 0), (0, 0)]) for n, e in zip(padding, embeddings, strict=False)])
    cache = [BatchKVCache(padding) for _ in model.layers]
    ids = mx.zeros(x.shape[:2], mx.int32)
    logits = model(ids, cache=cache, input_embeddings=x)[:, -1]
    written: list[np.ndarray] = []
    done = np.zeros(len(rows), bool)
    while len(written) < MOST_TOKENS and not done.all():
        token = logits.argmax(-1)
        written.append(np.array(token))
        done |= written[-1] == prompts.end_turn
        logits = model(token[:, None], cache=cache)[:, -1]
    return [_until_end(prompts, tokens) for tokens in np.stack(written, axis=1).tolist()]


def _until_end(prompts: Prompts, tokens: list[int]) -> str:
    end = tokens.index(prompts.end_turn) if prompts.end_turn in tokens else len(tokens)
    return prompts.tokenizer.decode(tokens[:end])


def measure(model: Model, prompts: Prompts, items: Sequence[Item], columns: Sequence[str] = ()) -> list[Row]:
    """A row a task; `columns` names what is measured besides thinking: direct, silence (default both)."""
    columns = columns or ("direct", "silence")
    shares = {"thinking": scores(items, answer(model, prompts, items))}
    if "direct" in columns:
        shares["direct"] = scores(items, answer(model, prompts, items, thinking=False))
    if "silence" in columns:
        shares["silence"] = scores(items, answer(model, prompts, items, silence=True))
    return list(_rows(items, shares))


def scores(items: Sequence[Item], replies: Sequence[tuple[str, str]]) -> np.ndarray:
    """(items,) 1.0 where the answer is right."""
    return np.array([q.score(i.question, reply) for i, (_, reply) in zip(items, replies, strict=False)])


def _rows(items: Sequence[Item], scores: dict[str, np.ndarray]) -> Iterator[Row]:
    tasks = np.array([i.question.task for i in items])
    chance = np.array([i.question.chance for i in items])
    for task in dict.fromkeys(tasks.tolist()):
        of = tasks == task
        columns = ("thinking", "direct", "silence")
        values = [float(scores[c][of].mean()) if c in scores else 0.0 for c in columns]
        yield Row(task, *values, float(chance[of].mean()), int(of.sum()))


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over the tasks."""
    columns = ("thinking", "direct", "silence", "chance")
    means = (float(np.mean([getattr(r, c) for r in rows])) for c in columns)
    return Row("mean", *means, sum(r.items for r in rows))


def markdown(rows: Sequence[Row]) -> str:
    """The table in percent, with the mean below."""
    lines = ["| task | with thinking | direct | silence | chance | items |", "|---|---|---|---|---|---|"]
    for r in [*rows, mean_row(rows)]:
        shares = " | ".join(f"{100 * v:.0f} %" for v in (r.thinking, r.direct, r.silence, r.chance))
        lines.append(f"| {r.task} | {shares} | {r.items} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--per-task", type=int, default=24, help="items of every task")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other clips")
    parser.add_argument("--held-out-words", action="store_true", help="ask in words no training question has")
    parser.add_argument("--kind", choices=("free", "options"), help="only these questions")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = load_model(given.checkpoint)
    model.set_dtype(mx.float32)
    prompts = Prompts(Tokenizer.from_folder(given.checkpoint))
    items = draw_items(given.per_task, given.seed, given.held_out_words)
    if given.kind:
        items = [item for item in items if bool(item.question.options) == (given.kind == "options")]
    rows = measure(model, prompts, items)
    print(json.dumps([vars(r) for r in rows], indent=1) if given.json else markdown(rows))


if __name__ == "__main__":
    main()
