"""Traces cut at budgets: the answers that a limit would have given, for the price of one run."""

from dataclasses import replace

import pytest

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.asking import thinking_tokens
from mlx_audio_r1.evaluate.budgets import parse_budgets
from mlx_audio_r1.evaluate.choosing import Choosing
from mlx_audio_r1.evaluate.results import FULL, REAL
from mlx_audio_r1.tasks.item import Turn
from mlx_audio_r1.tasks.item_files import read_items
from tests.evaluate.world_run import GREEDY, rows, run_world, store

BUDGETS = (0, 7, 1_000)


@pytest.fixture(scope="module")
def items(world_folder):
    return {item.uid: item for item in read_items(world_folder / "items.jsonl")}


@pytest.fixture(scope="module")
def found(nano, world_folder, tmp_path_factory):
    return rows(run_world(nano, world_folder, tmp_path_factory.mktemp("budgets") / "out", budgets=BUDGETS))


def test_the_answer_is_the_one_that_a_limit_gives(nano, items, found):
    """The engine's own thinking budget, which forces the closing tag while it decodes, says the same."""
    cut, budget = 0, 7
    for uid, item in items.items():
        row, full = found[uid, 0, budget, REAL], found[uid, 0, FULL, REAL]
        if full.thinking_tokens <= budget:
            continue
        limited = nano.reply(item.messages(), thinking_budget=budget, **GREEDY)
        assert (row.thinking, row.answer) == (limited.thinking, limited.answer)
        assert row.thinking == nano.tokenizer.decode(full.ids[:budget]).strip()
        assert (row.finish, row.thinking_tokens, row.closed) == ("budget", budget, True)
        assert row.answer_tokens == len(row.ids) < 64
        cut += 1
    assert cut >= 4


def test_it_is_where_the_words_come_before_the_sound_and_repeats_are_penalised(nano, items, tmp_path):
    """As MMAR is asked: the whole prompt is shared by its budgets, and the penalty sees it and the thought."""
    settings = {**GREEDY, "repetition_penalty": 1.3}
    turned = [replace(i, turns=(Turn("user", i.turns[0].parts[::-1]),)) for i in list(items.values())[:3]]
    (tmp_path / "items").mkdir()
    store(tmp_path / "items", turned)
    out = run_world(nano, tmp_path / "items", tmp_path / "out", budgets=(3, 5), settings=settings)
    found = rows(out)
    for item in turned:
        for budget in (3, 5):
            assert found[item.uid, 0, FULL, REAL].thinking_tokens > budget
            limited = nano.reply(item.messages(), thinking_budget=budget, **settings)
            row = found[item.uid, 0, budget, REAL]
            assert (row.thinking, row.answer) == (limited.thinking, limited.answer)


def test_no_budget_is_the_empty_reasoning_of_training(nano, items, found):
    for uid, item in items.items():
        row, direct = found[uid, 0, 0, REAL], nano.reply(item.messages(), thinking=False, **GREEDY)
        assert (row.answer, row.ids, row.thinking) == (direct.answer, tuple(direct.token_ids), "")
        assert (row.finish, row.thinking_tokens) == ("budget", 0)


def test_a_reply_that_ended_before_keeps_its_answer_and_costs_nothing(items, found):
    for uid in items:
        row, full = found[uid, 0, 1_000, REAL], found[uid, 0, FULL, REAL]
        assert (row.thinking, row.answer, row.finish) == (full.thinking, full.answer, "stop")
        assert (row.thinking_tokens, row.ids, row.seconds) == (full.thinking_tokens, (), 0.0)


def test_answers_have_the_length_they_are_given_and_a_seed_of_their_own(nano, world_folder, items, tmp_path):
    asking = {"samples": 2, "answer_tokens": 2, "settings": {"temperature": 1.0, "max_tokens": 120}}
    out = run_world(nano, world_folder, tmp_path / "out", Choosing(limit=3), budgets=(3,), **asking)
    cut = [r for (_, _, budget, _), r in rows(out).items() if budget == 3 and r.finish == "budget"]
    assert len(cut) == 6 and len({r.seed for r in cut}) == 6 and all(len(r.ids) <= 2 for r in cut)
    fulls = {r.seed for (_, _, budget, _), r in rows(out).items() if budget == FULL}
    assert not fulls & {r.seed for r in cut}


def test_a_reasoning_without_an_end_is_closed_by_a_budget_and_left_open_by_a_larger_one(
    nano, world_folder, tmp_path
):
    settings = {"temperature": 0.0, "max_tokens": 12}
    out = run_world(nano, world_folder, tmp_path / "out", Choosing(limit=3), budgets=(4, 50), settings=settings)
    found = rows(out)
    open_ = [uid for (uid, _, budget, _), r in found.items() if budget == FULL and not r.closed]
    assert len(open_) >= 2
    for uid in open_:
        full = found[uid, 0, FULL, REAL]
        assert (full.finish, full.answer) == ("length", "")
        assert 11 <= full.thinking_tokens <= 12  # a newline at the end is no word
        assert found[uid, 0, 4, REAL].closed and found[uid, 0, 4, REAL].answer
        assert not found[uid, 0, 50, REAL].closed


def test_tokens_of_the_closing_tag_are_none_of_the_thinking(nano):
    thought, rest = map(nano.tokenizer.encode, ("1 bell at 0.0.", "\n</think>\nbell"))
    assert thinking_tokens(nano.tokenizer, thought + rest) == len(thought)
    assert thinking_tokens(nano.tokenizer, thought) == len(thought)
    assert thinking_tokens(nano.tokenizer, rest) == thinking_tokens(nano.tokenizer, []) == 0


def test_budgets_are_numbers():
    assert parse_budgets("64, 0,256,64") == (0, 64, 256) and parse_budgets("") == ()
    for wrong in ("a", "1,-2", "1.5"):
        with pytest.raises(EvaluationError, match="numbers of tokens with commas"):
            parse_budgets(wrong)
