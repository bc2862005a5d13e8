"""A model's own replies become rows that teach it that it hears."""

# ruff: noqa: RUF001  (full-width marks are meant)
import pytest

from mlx_audio_r1.mgrd.self_cognition import (
    DENIALS,
    Keeping,
    distilled,
    fate,
    judged_reply,
    preferred,
    template,
)
from mlx_audio_r1.tasks.self_cognition import denies_hearing
from mlx_audio_r1.train.row_forms import parse_row
from mlx_audio_r1.train.row_writer import write_rows
from mlx_audio_r1.train.rows import read_rows

DENIED = "I cannot hear audio."


def question(number=1, text="Can you hear this?"):
    data = {"prompt": f"<audio>{text}", "audios": [f"clips/{number}.wav"], "solution": "bell"}
    return parse_row(data, f"/data/train.jsonl:{number}", "/data")


def replies(row, *answers, **also):
    return [judged_reply(row, i, "1 bell at 0.2.", answer, **also) for i, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("thinking", "answer", "also", "says"),
    [
        ("1 bell.", "A bell.", {}, "kept"),
        ("1 bell.", DENIED, {}, "denies hearing"),
        ("As a text model I guess.", "A bell.", {}, "denies hearing in its thinking"),
        ("", "A bell.", {}, "no thinking"),
        ("1 bell.", " ", {}, "unfinished"),
        ("1 bell.", "A bell.", {"finished": False}, "unfinished"),
        ("1 bell.", "A drum.", {"correct": 0.0}, "wrong"),
        ("1 bell.", "A bell.", {"correct": 1.0}, "kept"),
        ("Hm.", "A cat.", {}, "names nothing that is heard"),
    ],
)
def test_every_reply_has_a_fate(thinking, answer, also, says):
    keeping = Keeping(correct=1.0, acoustic=True)
    assert fate(judged_reply(question(), 0, thinking, answer, **also), keeping) == says


def test_what_is_wrong_is_kept_where_correctness_is_not_asked_for():
    assert fate(judged_reply(question(), 0, "1 drum.", "A drum.", correct=0.0)) == "kept"


def test_distilled_rows_are_what_sft_reads(tmp_path):
    judged = [*replies(question(1), "A bell.", DENIED, "A bell.", "Bells."), *replies(question(2), DENIED)]
    assert write_rows(tmp_path / "train.jsonl", distilled(judged)) == 2
    rows = list(read_rows(tmp_path / "train.jsonl"))
    assert [row.kind for row in rows] == ["sft", "sft"]
    assert [row.reply for row in rows] == [
        f"<think>\n1 bell at 0.2.\n</think>\n{a}" for a in ("A bell.", "Bells.")
    ]
    assert rows[0].sounds[0].source == "/data/clips/1.wav" and rows[0].solution == "bell"
    assert len(distilled(judged, Keeping(per_question=1))) == 1


def test_pairs_are_what_dpo_reads_and_say_who_rejected(tmp_path):
    judged = [*replies(question(1), "A bell.", DENIED), *replies(question(2, "听到了吗？"), "A bell."),
              *replies(question(3), DENIED)]  # fmt: skip
    assert write_rows(tmp_path / "train.jsonl", preferred(judged, seed=4)) == 2
    own, made = read_rows(tmp_path / "train.jsonl")
    assert (own.kind, made.kind) == ("preference", "preference")
    assert (own.columns["rejected_by"], made.columns["rejected_by"]) == ("model", "template")
    assert own.rejected == f"<think>\n1 bell at 0.2.\n</think>\n{DENIED}"
    assert made.rejected == template(question(2, "听到了吗？"), 5) and "我" in made.rejected
    assert own.reply == made.reply == "<think>\n1 bell at 0.2.\n</think>\nA bell."


def test_a_template_may_be_of_another_language_than_the_question():
    row = question(2, "听到了吗？")
    assert "我" in template(row, 0) and "我" not in template(row, 0, "en")
    assert preferred(replies(row, "A bell."), lang="en")[0]["rejected_response"].isascii()


def test_an_own_denial_is_used_once():
    judged = replies(question(1), "A bell.", DENIED, "Bells.")
    pairs = preferred(judged, Keeping(per_question=2))
    assert [p["rejected_by"] for p in pairs] == ["model", "template"]


def test_the_same_seed_makes_the_same_pairs_and_another_may_not():
    judged = [reply for n in range(30) for reply in replies(question(n), "A bell.")]
    one, again, other = (preferred(judged, seed=s) for s in (1, 1, 2))
    assert one == again != other
    assert len({p["rejected_response"] for p in one}) == len(DENIALS["en"])


@pytest.mark.parametrize("answer", [answer for ways in DENIALS.values() for _, answer in ways])
def test_every_denial_of_the_list_is_known_as_one(answer):
    assert denies_hearing(answer)
