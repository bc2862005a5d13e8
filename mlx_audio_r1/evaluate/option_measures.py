"""Of questions with options, answered at once: how far is the right one ahead, and does their order matter?

    margin    log p(right option) - the best wrong one's, the mean over its tokens, and what the true sound adds
              over silence (G6, after RUListening's perceptual index)
    order     four orders of the options: share right, and how often two orders agree (G11, after 2510.04584)

The surprise: a margin that does not shrink without the sound is of a question that can be answered without.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np

from mlx_audio_r1.errors import AudioR1Error
from mlx_audio_r1.evaluate.asking import Wanted, seed_for
from mlx_audio_r1.evaluate.controls import SHUFFLE, Sounding
from mlx_audio_r1.evaluate.grounding import SILENCE, GroundingFile, Measured
from mlx_audio_r1.evaluate.logprobs import Case, reply_logprobs
from mlx_audio_r1.evaluate.results import REAL, Result
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.session import AudioR1
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.verify import verify

MARGIN, ORDER = "margin", "order"
ORDERS = 4


def of_options(items: Iterable[Item], measure: str, file: GroundingFile) -> list[Item]:
    """Items with a sound and options that have no such measure yet."""
    return [item for item in items if item.sounds and isinstance(item.target, Choice)
            and len(item.target.gold) < len(item.target.options)
            and (item.uid, 0, measure) not in file.found]  # fmt: skip


def measure_margins(
    r1: AudioR1, items: Iterable[Item], sounding: Sounding, file: GroundingFile
) -> Iterator[None]:
    """A line for each item, and a None."""
    for item in items:
        if values := margin_values(r1, item, sounding):
            file.append(Measured(item.uid, item.bench, MARGIN, values))
        yield


def margin_values(r1: AudioR1, item: Item, sounding: Sounding) -> dict[str, float]:
    """margin: under the true sound. gain: over silence. gain_shuffled: what another sound gains over silence.
    {} where the sound cannot be read."""
    heard: dict[str, list[Message]] = {}
    for control in (REAL, SILENCE, SHUFFLE):
        with suppress(AudioR1Error):  # no other item to shuffle with, or a sound that is gone
            heard[control] = sounding.hear(item, control).messages
    if not {REAL, SILENCE} <= heard.keys():
        return {}
    margins = _margins(r1, item, heard)
    shuffled = {"gain_shuffled": margins[SHUFFLE] - margins[SILENCE]} if SHUFFLE in margins else {}
    return {"margin": margins[REAL], "gain": margins[REAL] - margins[SILENCE], **shuffled}


def _margins(r1: AudioR1, item: Item, heard: Mapping[str, Sequence[Message]]) -> dict[str, float]:
    """What was heard -> margin. An option is scored by its text, as it would be answered without its letter."""
    ids = [r1.tokenizer.encode(option) for option in item.target.options]
    cases = [Case(messages, own, thinking=False) for messages in heard.values() for own in ids]
    means = np.array([logp.mean() for logp in reply_logprobs(r1, cases)]).reshape(len(heard), len(ids))
    gold = np.isin(np.arange(len(ids)), item.target.gold)
    ahead = means[:, gold].max(1) - means[:, ~gold].max(1)
    return dict(zip(heard, ahead.tolist(), strict=True))


# ---- orders


def orders(item: Item, seed: int) -> list[Item]:
    """The item with its options in up to ORDERS different orders, drawn by lot; its own among them at most."""
    count = len(item.target.options)
    rng = np.random.default_rng([seed_for(seed, item.uid, ORDER)])
    if count <= 3:
        drawn = [list(order) for order in permutations(range(count))]
        drawn = [drawn[int(i)] for i in rng.permutation(len(drawn))[:ORDERS]]
    else:
        drawn = []
        while len(drawn) < ORDERS:
            order = rng.permutation(count).tolist()
            drawn += [order] if order not in drawn else []
    return [_ordered(item, order) for order in drawn]


def _ordered(item: Item, order: Sequence[int]) -> Item:
    target = item.target
    gold = tuple(place for place, i in enumerate(order) if i in target.gold)
    return replace(item, target=Choice(tuple(target.options[i] for i in order), gold))


def wanted_orders(items: Iterable[Item], options: Mapping[str, Any], seed: int) -> Iterator[Wanted]:
    """The answers wanted: the k-th order is sample k of its item. options: fields of `Settings`."""
    for item in items:
        mine = {**options, "thinking": False, "seed": seed_for(seed, item.uid, ORDER)}
        for k, ordered in enumerate(orders(item, seed)):
            yield Wanted(ordered, mine, (k,), budget=0)


def take_orders(
    items: Sequence[Item], results: Iterable[Result], seed: int, file: GroundingFile
) -> Iterator[None]:
    """A line for each item as soon as all its orders are answered, and a None."""
    by_uid = {item.uid: orders(item, seed) for item in items}
    found: dict[str, dict[int, Result]] = defaultdict(dict)
    for result in results:
        own = found[result.uid]
        own[result.sample] = result
        asked = by_uid[result.uid]
        if len(own) == len(asked):
            values = order_values(asked, [own[k] for k in range(len(asked))])
            file.append(Measured(result.uid, result.bench, ORDER, values))
            yield


def order_values(asked: Sequence[Item], results: Sequence[Result]) -> dict[str, float]:
    """correct: mean over the orders. agreement: share of the pairs of orders with the same option."""
    verdicts = [verify(result.answer, item) for item, result in zip(asked, results, strict=True)]
    pairs = [a.parsed is not None and a.parsed == b.parsed for a, b in combinations(verdicts, 2)]
    return {"correct": float(np.mean([v.correct for v in verdicts])), "agreement": float(np.mean(pairs))}
