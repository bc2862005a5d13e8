"""A reply with less thinking: its reasoning cut after so many tokens and closed, and then its answer.

    wanted = cut(result, item, options, 64, tokenizer)      # what to ask the engine

One full trace gives the whole curve, paired over budgets, for about the price of one run: the tokens that were
sampled are read again and only an answer is written. The surprise: a budget of 0 is no trace cut at nothing but
the prompt with an empty reasoning, as the model was trained to answer directly. Source: s1 (Muennighoff et al.
2025), without its "Final Answer:".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.asking import Wanted, seed_for
from mlx_audio_r1.evaluate.results import REAL, Key, Result
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tokenizer import Tokenizer

Options = Mapping[str, Any]


def parse_budgets(text: str) -> tuple[int, ...]:
    """ "0,64,256" -> (0, 64, 256). Raises EvaluationError."""
    try:
        found = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = [-1]
    if any(budget < 0 for budget in found):
        raise EvaluationError(f"budgets {text!r}: give numbers of tokens with commas, such as 0,64,256,1024")
    return tuple(found)


def ended_before(full: Result, budget: int) -> bool:
    """Is a budget no limit for this reply? Then it keeps its answer; an error stays one."""
    return bool(full.error) or full.thinking_tokens <= budget


def kept(full: Result, budget: int) -> Result:
    """Its row under that budget, which costs nothing."""
    return replace(full, budget=budget, ids=(), answer_tokens=0, prompt_tokens=0, seconds=0.0)


def cut(full: Result, item: Item, options: Options, budget: int, tokenizer: Tokenizer) -> Wanted:
    """The answer wanted behind the first `budget` tokens of its reasoning. options: those of the full reply;
    its seed is replaced by one of its own."""
    mine = {**options, "seed": seed_for(options["seed"], item.uid, budget)}
    if budget == 0:
        return Wanted(item, {**mine, "thinking": False}, (full.sample,), budget)
    thought = full.ids[:budget]
    return Wanted(item, mine, (full.sample,), budget, REAL, thought, tokenizer.decode(list(thought)).strip())


def missing(
    found: Mapping[Any, Result], fulls: Iterable[Result], budgets: Sequence[int]
) -> Iterator[tuple[Result, int]]:
    """(full reply, budget) of the rows that are not there yet, reply by reply: its prompt is read once."""
    for full in fulls:
        for budget in budgets:
            if key_of(full, budget) not in found:
                yield full, budget


def key_of(full: Result, budget: int) -> Key:
    return full.uid, full.sample, budget, full.control
