"""Every candidate gets one decision with its reason, and a kill at any byte changes none of them."""

import json
import math
from dataclasses import asdict, replace

import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.judges.judge import REQUESTS, RESPONSES, rows_of
from mlx_audio_r1.mgrd.decisions import Decision, DecisionFile, natural
from mlx_audio_r1.mgrd.filter_config import FilterConfig
from mlx_audio_r1.mgrd.filters import PROMPT_FILE, filter_candidates, grouped
from mlx_audio_r1.mgrd.judge_prompt import JUDGE_PROMPT
from tests.mgrd.world import SURROGATE

CHEAP = FilterConfig(evidence=False)


def decided(world, candidates, folder, config=CHEAP, judge=None):
    return list(filter_candidates(world.r1, candidates, world.features, config, folder, judge))


def true_answer(world, question):
    return world.items[question].ref["answer"]


@pytest.fixture(scope="module")
def mixed(world):
    """One of each fate, most of two questions."""
    good = world.items[0].ref["thinking"]
    return [
        world.written(0),
        world.written(0, 1, answer="I cannot tell."),
        world.written(0, 2, thinking=" "),
        world.written(0, 3, finish="length"),
        world.written(0, 4, thinking=SURROGATE),
        world.written(0, 5, thinking=good.rpartition(".")[0].rpartition(".")[0] + " and"),
        world.written(1),
        world.written(1, 1, closed=False, finish="length"),
        world.written(2),
        replace(world.written(3), rollout=replace(world.written(3).rollout, sample=1)),
        world.written(4, thinking="One and two: 1 + 2 = 3.", answer="3"),
    ]


REASONS = ["kept", "verdict", "format", "format", "lexicon", "coherence", "kept", "verdict", "kept", "kept",
           "kept"]  # fmt: skip


def test_every_candidate_gets_a_decision_and_its_first_reason(world, mixed, tmp_path):
    found = decided(world, mixed, tmp_path)
    assert [d.key for d in found] == [c.key for c in mixed]
    assert [d.reason for d in found] == REASONS
    assert all(d.kept == (d.reason == "kept") and bool(d.why) != d.kept for d in found)
    why = {d.reason: d.why for d in found if not d.kept}
    assert found[1].why.startswith("no answer (") and "expected" in found[1].why
    assert found[2].why == "no reasoning" and found[3].why == "truncated: length"
    said = "('transcript', 'According to the text')"
    assert why["lexicon"] == f"acoustic terms 1, textual 2 {said}: ratio 0.33, the least is 0.7"
    assert why["coherence"].startswith("whole: the reasoning breaks off")
    assert DecisionFile.read(tmp_path) == found


def test_a_filter_ends_the_scores_unless_all_are_wanted(world, mixed, tmp_path):
    found = decided(world, mixed, tmp_path / "a")
    assert found[1].scores == {"correct": 0.0} and "ratio" in found[0].scores and "coherent" in found[0].scores
    every = decided(world, mixed, tmp_path / "b", replace(CHEAP, score_all=True))
    assert [(d.reason, d.why) for d in every] == [(d.reason, d.why) for d in found]
    assert all({"correct", "density", "coherent"} <= d.scores.keys() for d in every[:10])
    assert "density" not in every[10].scores  # a question without sound has no acoustic words to say


def test_filters_can_be_left_out(world, mixed, tmp_path):
    names = ("verdict", "format", "lexicon", "coherence")
    none = replace(CHEAP, **dict.fromkeys(names, False))
    assert all(d.kept and not d.scores for d in decided(world, mixed, tmp_path / "none", none))
    for name in names:
        found = decided(world, mixed, tmp_path / name, replace(none, **{name: True}))
        assert {d.reason for d in found} == {"kept", name}


def test_evidence_rejects_what_was_not_heard_and_scores_survivors_only(world, tmp_path):
    own, wrong = world.written(0), world.misheard(0, 1, sample=1)
    config = FilterConfig(verdict=False, lexicon=False, coherence=False, least_gain=0.8)
    cut = world.written(0, 2, finish="length")
    found = decided(world, [own, wrong, cut], tmp_path, config)
    assert [d.reason for d in found] == ["kept", "evidence", "format"]
    assert found[0].scores["gain"] > 0.8 > found[1].scores["gain"] and "gain" not in found[2].scores
    assert found[1].why.startswith("gain ") and found[1].why.endswith("nats a token, the least is 0.8")
    assert {"gain_answer", "selectivity", "grounded"} <= found[0].scores.keys()
    assert all(math.isfinite(v) for d in found for v in d.scores.values())


EVIDENCE = {"answer_gain": "gain_answer", "grounded": "grounded", "selectivity": "selectivity"}


@pytest.mark.parametrize(("name", "score"), EVIDENCE.items())
def test_each_threshold_of_evidence(world, tmp_path, name, score):
    config = FilterConfig(least_gain=-99.0, **{f"least_{name}": 0.99 if name == "grounded" else 99.0})
    (found,) = decided(world, [world.written(0)], tmp_path, config)
    assert found.reason == "evidence" and found.why.startswith(f"{score} ")


# ---- enough of one question


def test_of_a_question_the_best_by_gain_stay_then_those_of_the_draw(world, tmp_path):
    samples = [world.written(0, i) for i in range(3)] + [world.written(1)]
    found = decided(world, samples, tmp_path / "a", replace(CHEAP, most_per_prompt=1))
    assert [d.reason for d in found].count("surplus") == 2 and found[3].kept
    drawn = [replace(CHEAP, most_per_prompt=1, seed=seed) for seed in range(6)]
    kept = [[d.kept for d in decided(world, samples, tmp_path / str(c.seed), c)] for c in drawn]
    assert any(one != kept[0] for one in kept)
    config = FilterConfig(lexicon=False, coherence=False, verdict=False, least_gain=-99.0, most_per_prompt=1)
    best = decided(world, [world.misheard(0, 1), world.written(0, 1)], tmp_path / "b", config)
    assert [d.reason for d in best] == ["surplus", "kept"] and best[0].why == "1 of its question are kept"


# ---- killed


@pytest.fixture(scope="module")
def many(world):
    """Three groups, with evidence and surplus."""
    bad = [world.written(0, i, answer="?") for i in range(13)]
    more = [world.written(1, i, answer="?") for i in range(15)]
    sum_ = world.written(4, thinking="1 + 2 = 3.", answer="3")
    good = [world.written(0, 20 + i) for i in range(3)]
    return [*bad, *good, *more, world.written(1, 20), world.written(2), sum_]


CONFIG = FilterConfig(most_per_prompt=2, score_all=True)


@pytest.fixture(scope="module")
def undisturbed(world, many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    decided(world, many, folder, CONFIG)
    return (folder / "decisions.jsonl").read_bytes()


def test_groups_are_whole_questions_in_natural_order(world, many):
    groups = list(grouped(many[::-1]))
    assert [len(g) for g in groups] == [16, 16, 2]
    assert [c.key for g in groups for c in g] == [c.key for c in many]
    assert natural(("train.jsonl:9", 0)) < natural(("train.jsonl:10", 0)) < natural(("train.jsonl:10", 1))


@pytest.mark.parametrize(("lines", "more"), [(0, 0), (0, 7), (1, 0), (9, 7), (17, 0), (35, 0)])
def test_a_phase_killed_behind_any_line_or_within_it_decides_the_same(
    world, many, undisturbed, tmp_path, lines, more
):
    left = b"".join(undisturbed.splitlines(keepends=True)[:lines])
    left += undisturbed[len(left) : len(left) + more]
    (tmp_path / "decisions.jsonl").write_bytes(left)
    found = decided(world, many[::-1], tmp_path, CONFIG)
    assert (tmp_path / "decisions.jsonl").read_bytes() == undisturbed
    assert len(found) == len(many)


def test_a_loop_left_in_the_middle_goes_on(world, many, undisturbed, tmp_path):
    deciding = filter_candidates(world.r1, many, world.features, CONFIG, tmp_path)
    next(deciding)
    deciding.close()
    decided(world, many, tmp_path, CONFIG)
    assert (tmp_path / "decisions.jsonl").read_bytes() == undisturbed


def test_decisions_of_another_configuration_are_refused(world, tmp_path):
    decided(world, [world.written(0)], tmp_path)
    with pytest.raises(TrainingError, match=r"another least_ratio \(0.7, now 0.9\); move it away"):
        decided(world, [], tmp_path, replace(CHEAP, least_ratio=0.9))
    assert decided(world, [world.written(0)], tmp_path, replace(CHEAP, judge_retries=9))
    (tmp_path / "decisions.jsonl").write_text("A letter.\n")
    with pytest.raises(TrainingError, match="no file of decisions"):
        DecisionFile(tmp_path, CHEAP)
    with pytest.raises(TrainingError, match="not a file of decisions; filter the round first"):
        DecisionFile.read(tmp_path)
    with pytest.raises(TrainingError, match="No such file"):
        DecisionFile.read(tmp_path / "none")


# ---- judges


class Says:
    name, params = "says", {}

    def __init__(self, *replies):
        self.replies = replies

    def ask(self, prompts):
        yield from self.replies[: len(prompts)]


def test_a_judge_has_the_last_word_and_what_cannot_be_read_is_said(world, tmp_path):
    yes = '{"grounded": true, "coherent": true, "correct": true}'
    no = '{"grounded": false, "coherent": true, "correct": false}'
    candidates = [world.written(0), world.written(0, 1), world.written(1), world.written(0, 2, answer="?")]
    found = decided(world, candidates, tmp_path, replace(CHEAP, judge="file"), Says(yes, no, "Fine by me."))
    by_key = {d.key: d for d in found}
    kept, denied, unread, wrong = (by_key[c.key] for c in candidates)
    assert kept.kept and kept.scores["judge_grounded"] == 1.0
    assert (denied.reason, denied.why) == ("judge", "not grounded, not correct")
    assert wrong.reason == "verdict" and "judge_grounded" not in wrong.scores
    assert unread.reason == "judge" and unread.why == "the judge's verdict cannot be read: 'Fine by me.'"
    assert unread.scores["judge_unreadable"] == 1.0
    assert (tmp_path / PROMPT_FILE).read_text() == JUDGE_PROMPT


def test_a_round_waits_for_people_and_goes_on_when_they_have_answered(world, tmp_path):
    config = replace(CHEAP, judge="file", most_per_prompt=1)
    candidates = [world.written(0), world.written(0, 1), world.written(0, 2, answer="?")]
    for _ in range(2):
        with pytest.raises(TrainingError, match="2 chains wait for a judge; answer them in judge") as error:
            decided(world, candidates, tmp_path, config)
        assert "\n" not in str(error.value)
    rows = rows_of(tmp_path / REQUESTS)
    assert len(rows) == 1  # both chains say the same
    answer = {"id": rows[0]["id"], "grounded": True, "coherent": True, "correct": True}
    (tmp_path / RESPONSES).write_text(json.dumps(answer) + "\n")
    found = decided(world, candidates, tmp_path, config)
    assert sorted(d.reason for d in found) == ["kept", "surplus", "verdict"]


# ---- configurations


@pytest.mark.parametrize(("values", "says"), [
    ({"least_ratio": 1.1}, "least_ratio is 1.1; give a number from 0 to 1"),
    ({"least_ratio": -0.1}, "least_ratio"), ({"least_correct": 2}, "least_correct"),
    ({"least_density": -1}, "least_density"), ({"least_breadth": 9}, "least_breadth"),
    ({"least_terms": -1}, "least_terms is -1; give a number from 0 up"), ({"least_words": -1}, "least_words"),
    ({"most_repeated": 1.5}, "most_repeated"), ({"least_gain": float("nan")}, "least_gain"),
    ({"least_grounded": 1.2}, "least_grounded"),
    ({"most_per_prompt": 0}, "most_per_prompt is 0; give a number from 1"),
    ({"control": "noise"}, "control 'noise': one of silence, other"),
    ({"judge": "gpt"}, "give a URL, mlx:MODEL or file"),
    ({"judge": "mlx:"}, "give a URL, mlx:MODEL or file"), ({"judge": "https://h/v1"}, "judge_model is missing"),
    ({"judge_timeout": 0.0}, "judge_timeout"), ({"judge_retries": -1}, "judge_retries"), ({"seed": -1}, "seed"),
    ({"max_tokens_per_batch": 0}, "max_tokens_per_batch"),
])  # fmt: skip
def test_values_that_cannot_be_are_named(values, says):
    with pytest.raises(TrainingError, match=says):
        FilterConfig(**values)


def test_the_digest_is_of_what_decides():
    assert FilterConfig().digest == FilterConfig(judge_timeout=9.0, max_tokens_per_batch=99).digest
    others = [{"least_gain": 0.1}, {"seed": 1}, {"judge": "file"}, {"control": "other"}]
    assert len({FilterConfig(**values).digest for values in [{}, *others]}) == 5


def test_a_decision_reads_back():
    decision = Decision("train.jsonl:1", 2, False, "verdict", "answered 3, expected 4", {"correct": 0.0})
    assert Decision.from_dict(json.loads(json.dumps(asdict(decision)))) == decision
