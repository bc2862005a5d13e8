"""The world as a data folder: items that come back from rows as they were, whole folders, seeds."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mlx_audio_r1.audio import load_audio
from mlx_audio_r1.errors import DataError
from mlx_audio_r1.tasks import acoustic_world as w
from mlx_audio_r1.tasks.arithmetic import arithmetic_item
from mlx_audio_r1.tasks.from_rows import item_from_row
from mlx_audio_r1.tasks.verify import verify
from mlx_audio_r1.tasks.world_rows import WorldPlan, item_row, model_reply, world_items, write_wav, write_world
from mlx_audio_r1.train.replies import thinking_and_answer
from mlx_audio_r1.train.row_forms import parse_row
from mlx_audio_r1.train.rows import read_rows

SMALL = {"train": 3, "valid": 2, "tasks": ("noisy", "count"), "seed": 5}


def again(item, form="rl"):
    """The item as RL reads it from its row."""
    row = parse_row(json.loads(json.dumps(item_row(item, form, "a.wav"))), "rows:1", "")
    return item_from_row(row.columns, [turn.message for turn in row.history], row.where)


def heard_from(path):
    """(samples,) of a short file."""
    return np.concatenate([chunk.waveform for chunk in load_audio(path)])


def replies(item):
    """The right answer, every other one, and what is none."""
    options = getattr(item.target, "options", ())
    wrong = options or w.answers_of(item.groups["task"]) or ("drum, bell", "bell")
    lettered = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False)]
    return [item.ref["answer"], *wrong, *lettered, *"ABCD", "", "I do not know", "three", "no", "falls", "7"]


@pytest.mark.parametrize("task", w.world_tasks())
@pytest.mark.parametrize("choice", [True, False])
def test_the_item_of_a_row_gives_the_verdicts_of_the_first(task, choice):
    item = w.world_item(11, task, choice=choice)
    other = again(item)
    verdicts = [(verify(r, item), verify(r, other)) for r in replies(item)]
    assert all(one.correct == two.correct for one, two in verdicts)
    assert verdicts[0][1].correct == 1.0
    assert any(two.correct == 0.0 and not two.unparsed for _, two in verdicts[1:]) or task == "order"
    assert other.uid == item.uid and other.groups["task"] == task and other.has_audio
    assert other.messages()[0].parts[1] == item.messages()[0].parts[1]
    assert other.groups["difficulty"] == item.groups["difficulty"]
    assert other.extra["chance"] == pytest.approx(item.chance, abs=1e-4)


def test_sums_come_back_too():
    for seed, lang in enumerate(("en", "zh")):
        item = arithmetic_item(seed, "medium", lang)
        row = item_row(item)
        other = item_from_row(row, item.messages(), "rows:1")
        assert "audios" not in row and other.target == item.target
        value = item.target.value
        assert thinking_and_answer(model_reply(item)) == (f"{item.extra['expression']} = {value}.", str(value))


def test_a_folder_has_clips_of_16_bits_and_rows_that_training_reads(tmp_path):
    plan = WorldPlan(**SMALL, arithmetic=3, test=1)
    written = write_world(tmp_path / "world", plan)
    assert {split: rows.total() for split, rows in written.items()} == {"train": 6, "valid": 4, "test": 2}
    assert not (tmp_path / "world.new").exists()
    rows = list(read_rows(tmp_path / "world" / "train.jsonl"))
    assert [row.kind for row in rows] == ["prompt"] * 6
    first = next(world_items(plan, "train"))
    heard = heard_from(rows[0].sounds[0].source)
    assert np.abs(heard - first.sounds[0].source).max() < 1 / 32_000
    assert rows[0].columns["uid"] == first.uid


def test_rows_for_sft_end_in_the_reply_of_one_who_listened(tmp_path):
    write_world(tmp_path / "world", WorldPlan(**SMALL, form="sft"))
    items = list(world_items(WorldPlan(**SMALL), "train"))
    for row, item in zip(read_rows(tmp_path / "world" / "train.jsonl"), items, strict=True):
        assert row.kind == "sft"
        assert thinking_and_answer(row.reply) == (item.ref["thinking"], item.ref["answer"])
        assert verify(item.ref["answer"], again(item, "sft")).correct == 1.0


def test_a_seed_writes_the_same_bytes_and_splits_share_nothing(tmp_path):
    for name in ("one", "two"):
        write_world(tmp_path / name, WorldPlan(**SMALL))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 7
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    firsts = {WorldPlan(seed=s).first_seed(split) for s in range(3) for split in ("train", "valid", "test")}
    assert len(firsts) == 9


def test_nothing_is_left_half_written_or_written_over(tmp_path):
    def killed(split, number, wanted):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "world", WorldPlan(**SMALL), killed)
    assert not (tmp_path / "world").exists()
    write_world(tmp_path / "world", WorldPlan(**SMALL))
    assert not (tmp_path / "world.new").exists()
    with pytest.raises(DataError, match="not empty; give -o a new folder"):
        write_world(tmp_path / "world", WorldPlan(**SMALL))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"tasks": ("taste",)}, "taste"), ({"difficulty": "harder"}, "harder"), ({"form": "dpo"}, "dpo"),
     ({"train": 0, "valid": 0}, "no rows"), ({"train": -1}, "0 to 999999")],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(DataError, match=says):
        WorldPlan(**wrong)


def test_a_wav_keeps_every_sample_to_16_bits(tmp_path):
    x = np.array([0, 1, -1, 0.5, 1e-4], np.float32)
    write_wav(tmp_path / "a.wav", x)
    assert np.abs(heard_from(tmp_path / "a.wav") - x).max() < 1 / 32_000


def test_the_command_writes_what_data_check_accepts(tmp_path):
    def run(*words):
        code = "from mlx_audio_r1.cli.main import main; main()"
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)

    folder = str(tmp_path / "w")
    done = run("data", "world", "-o", folder, "--train", "2", "--tasks", "louder", "--form", "sft")
    assert done.returncode == 0 and "train.jsonl: 2 rows: 2 louder" in done.stdout, done.stderr
    assert run("data", "check", folder).returncode == 0
    again = run("data", "world", "-o", folder)
    assert again.returncode == 1 and "not empty" in again.stderr
