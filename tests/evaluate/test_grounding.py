"""Log-probabilities of replies, and whether every measure of grounding tells true sounds from wrong ones."""

import math
import shutil
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1.evaluate import grounding_summary
from mlx_audio_r1.evaluate.controls import Sounding
from mlx_audio_r1.evaluate.grounding import FILE, retrieval_values
from mlx_audio_r1.evaluate.grounding_summary import read_measured, summed_up
from mlx_audio_r1.evaluate.logprobs import HEAD_ROWS, Case, reply_logprobs
from mlx_audio_r1.evaluate.option_measures import ORDERS, margin_values, order_values, orders
from mlx_audio_r1.evaluate.results import FULL, REAL, Result
from mlx_audio_r1.evaluate.score_rows import ScoreRow
from mlx_audio_r1.evaluate.scoring import Score
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.statistics import auc
from tests.evaluate.conftest import ALL, TASKS
from tests.evaluate.world_run import rows, run_world, write_items

# ---- log-probabilities


def plain(r1, messages, ids, thinking=True):
    """One prompt, one forward pass, all logits, float64."""
    prompt = r1.prepare(messages, thinking=thinking)
    x = mx.concatenate([prompt.embeddings, r1.model.embed(mx.array(ids), (), -1)])
    whole = mx.array([*prompt.ids, *ids])
    logits = np.array(r1.model(whole[None], input_embeddings=x[None])[0].astype(mx.float32), np.float64)
    logits = logits[len(prompt.ids) - 1 : -1]
    top = logits.max(-1, keepdims=True)
    logp = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return logp[np.arange(len(ids)), list(ids)]


@pytest.mark.parametrize(("name", "max_tokens"), [("nano", 600), ("tiny", 1)])
def test_they_are_those_of_a_plain_pass(name, max_tokens, request, large_folder):
    """Different prompts, lengths and tails in one padded batch; a head that is tied and one that is not."""
    r1 = request.getfixturevalue(name)
    items = list(read_items(large_folder / "items.jsonl"))[:4]
    texts = ["", "1 bell at 0.0. So bell.\n</think>\nbell", "a " * 120, "It is 3."]
    cases = [Case(item.messages(), [*r1.tokenizer.encode(text), 7], thinking=i != 3)
             for i, (item, text) in enumerate(zip(items, texts, strict=True))]  # fmt: skip
    assert sum(len(case.ids) for case in cases) > HEAD_ROWS
    found = reply_logprobs(r1, cases, max_tokens)
    for case, logp in zip(cases, found, strict=True):
        expected = plain(r1, case.messages, case.ids, case.thinking)
        # Logits of size 10 in float32, and batched products that round in another order: 1e-5 of them.
        np.testing.assert_allclose(logp, expected, atol=2e-4)
        assert logp.shape == (len(case.ids),) and (logp <= 0).all()


# ---- does it measure what it should?


def test_every_measure_separates_true_sounds_from_shuffled_ones(large_run):
    """The mandatory control: a reply under its own sound against the same reply under another item's sound."""
    measured = read_measured(large_run)
    found = summed_up(list(rows(large_run).values()), [], measured)
    assert Counter(m.measure for m in measured) == {"gain": 9, "retrieval": 9, "margin": 5, "order": 5}
    # A measure that tells nothing has an AUC of 0.5 +- 0.14 over nine items; of these nano's are 0.9 and more.
    assert found["gain.thinking.auc"] > 0.85
    assert found["gain.acoustic.auc"] > 0.75
    assert found["retrieval.auc"] > 0.85
    assert found["gain.silence.thinking"][1] > 0 < found["gain.shuffle.thinking"][1]
    assert found["retrieval.hit"][0] > 0.6  # of four sounds, by chance 0.25
    margins = [m.values for m in measured if m.measure == "margin"]
    assert found["margin.auc"] == auc([v["gain"] for v in margins], [v["gain_shuffled"] for v in margins])


@pytest.mark.long
def test_margins_separate_them_too(nano, tmp_path):
    """Over more items, because nano's answers without a reasoning are unsure: 0.79 over 45."""
    write_items(tmp_path / "items", [(300 + i, TASKS[i % 8]) for i in range(80)])
    items = [i for i in read_items(tmp_path / "items" / "items.jsonl") if isinstance(i.target, Choice)]
    sounding = Sounding(items)
    values = [margin_values(nano, item, sounding) for item in items]
    assert auc([v["gain"] for v in values], [v["gain_shuffled"] for v in values]) > 0.6
    assert np.mean([v["gain"] for v in values]) > 0


def test_a_run_that_goes_on_measures_nothing_twice(nano, large_folder, large_run, tmp_path):
    out = shutil.copytree(large_run, tmp_path / "out")
    before = (out / FILE).read_bytes()
    run_world(nano, large_folder, out, **ALL)
    assert (out / FILE).read_bytes() == before
    lines = before.splitlines(keepends=True)
    (out / FILE).write_bytes(b"".join(lines[:-2])[:-5])
    run_world(nano, large_folder, out, **ALL)
    again = [m.key for m in read_measured(out)]
    assert len(again) == len(set(again)) == len(lines) - 1


def test_a_single_sound_has_no_other_to_be_found_among(nano, tmp_path):
    write_items(tmp_path / "items", [(11, "order")])
    out = run_world(nano, tmp_path / "items", tmp_path / "out", grounding="full")
    [gain] = [m for m in read_measured(out) if m.measure == "gain"]
    assert gain.values["silence.thinking"] > 0 and not any(name.startswith("shuffle") for name in gain.values)
    assert not [m for m in read_measured(out) if m.measure == "retrieval"]


# ---- arithmetic


def test_retrieval_by_hand():
    found = retrieval_values(-1.0, [-2.0, -0.5, -1.0])
    assert (found["rank"], found["reciprocal"], found["hit"]) == (2.5, 0.4, 0.0)
    p = math.exp(-1) / (math.exp(-1) + math.exp(-2) + math.exp(-0.5) + math.exp(-1))
    assert found["infonce"] == pytest.approx(math.log(p) + math.log(4))
    assert retrieval_values(-1.0, [-1_000.0] * 3)["infonce"] == pytest.approx(math.log(4))


def test_an_early_answer_by_hand():
    """Thinking of 10 tokens; right answer at 5, another one at 0: same from half of the way on."""
    lengths = {FULL: 10, 0: 0, 5: 5, 20: 10}
    results = [Result("u", "b", budget=b, thinking_tokens=length) for b, length in lengths.items()]
    said = {FULL: "x", 0: "y", 5: "x", 20: "x"}
    scored = [ScoreRow("u", "b", 0, b, REAL, {"s": Score(1.0, text)}) for b, text in said.items()]
    found = grounding_summary._early(results, scored)
    # 0 at 0, 1 at 0.5, 1 at 1: area 0.25 + 0.5; what lies beyond the end of the thinking takes no part
    assert found["early.area_over_curve"][0] == pytest.approx(0.25)


def question(*options, gold=(0,)):
    return Item("u", (Turn("user", ("Which?", OPTIONS)),), Choice(options, gold), bench="b")


@pytest.mark.parametrize("options", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e", "f")])
def test_orders_are_different_ones_and_keep_the_right_option(options):
    made = orders(question(*options, gold=(1,)), seed=3)
    texts = [item.target.options for item in made]
    assert len(set(texts)) == len(texts) == min(ORDERS, math.factorial(len(options)))
    assert all(item.target.gold_text == "b" and sorted(item.target.options) == sorted(options) for item in made)
    assert texts == [item.target.options for item in orders(question(*options, gold=(1,)), seed=3)]


def test_orders_by_hand():
    made = orders(question("bell", "drum", "harp", "voice"), seed=0)
    results = [Result("u", "b", answer=answer) for answer in ("bell", "bell", "drum", "nothing of these")]
    found = order_values(made, results)
    assert found == {"correct": 0.5, "agreement": 1 / 6}  # one pair of six; what is not understood agrees not
