"""Your own questions in three forms, and the world that is made on the spot."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.arrange import rearranged
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.importing import ImportOptions, import_bench
from mlx_audio_r1.tasks.acoustic.balanced import draw_items
from mlx_audio_r1.tasks.acoustic.questions import TASKS, score
from mlx_audio_r1.tasks.acoustic_world import world_tasks
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.verify import verify
from tests.evaluate import layouts


def generic(path, out):
    import_bench(bench("generic"), path, out)
    return list(read_items(out / "items.jsonl"))


def shown(item):
    return [part if isinstance(part, str) else Path(part.source).name for part in item.messages()[0].parts]


def test_plain_columns_rows_and_items_become_items(tmp_path):
    items = generic(layouts.generic(tmp_path / "p"), tmp_path / "out")
    assert [item.uid for item in items] == ["generic:columns", "generic:messages", "generic:item", "generic:4"]
    assert [type(item.target).__name__ for item in items] == ["Choice", "Quantity", "Choice", "Boolean"]
    replies = ("B", "three", "drum", "Yes.")
    assert [verify(reply, item).correct for reply, item in zip(replies, items, strict=True)] == [1.0] * 4
    assert shown(items[0])[0] == "a.wav" and shown(items[0])[1].endswith("A. drum\nB. bell\n")
    assert shown(items[1]) == ["b.wav", "How many?"]
    assert shown(items[2]) == ["Which?\n(A) drum\n(B) bell", "a.wav"]  # its own turns, its own style
    assert items[1].groups == {"task": "count"} and items[3].groups == {"subset": "loudness"}


def test_plain_columns_alone_can_be_asked_the_other_way_round(tmp_path):
    items = generic(layouts.generic(tmp_path / "p"), tmp_path / "out")
    turned = [rearranged(item, bench("generic").profile("text-first")) for item in items]
    assert shown(turned[3]) == ["Is it loud?", "b.wav"] and shown(items[3]) == ["b.wav", "Is it loud?"]
    assert shown(turned[1]) == shown(items[1])


def test_an_imported_file_can_be_imported_again(tmp_path):
    first = generic(layouts.generic(tmp_path / "p"), tmp_path / "out")
    again = generic(tmp_path / "out", tmp_path / "again")
    assert [shown(item) for item in again] == [shown(item) for item in first]
    assert [item.target for item in again] == [item.target for item in first]


def messages(content, **more):
    return {"messages": [{"role": "user", "content": content}], "audios": ["a.wav"], "solution": "yes", **more}


def test_sounds_without_marks_come_first_and_options_behind_the_question(tmp_path):
    parts = [{"type": "audio", "audio": "b.wav"}, {"type": "text", "text": "Is it?"}]
    rows = [messages("Is it?"), {**messages(parts), "audios": None},
            messages("<audio>Which?", solution="b", options=["a", "b"]),
            messages("<audio>Which? A. a B. b", solution="B")]  # fmt: skip
    items = generic(layouts.generic(tmp_path / "p", rows), tmp_path / "out")
    assert [shown(item)[0] for item in items] == ["a.wav", "b.wav", "a.wav", "a.wav"]
    assert shown(items[2])[1].endswith("A. a\nB. b\n") and shown(items[3])[1] == "Which? A. a B. b"


WRONG = {
    "marks": (messages("<audio><audio>Is it?"), r"mine\.jsonl:1: more <audio> marks than sounds"),
    "sounds": (messages("<audio>Is it?", audios=["a.wav", "b.wav"]), "mine.jsonl:1: 2 sounds, fewer <audio>"),
    "reply": ({"messages": [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "yes"}],
               "solution": "yes"}, "mine.jsonl:1: ends in a reply"),
    "solution": (messages("Is it?", solution=None), "mine.jsonl:1: no solution to check a reply against"),
    "messages": (messages("x") | {"messages": "x"}, "mine.jsonl:1: messages: expected a list of objects"),
    "parts": (messages([{"type": "film"}]), "mine.jsonl:1: message 0 part 0: type 'film'"),
    "columns": ({"audio": "a.wav", "answer": "yes"}, "mine.jsonl:1: no question or prompt or query; there are"),
    "gold": ({"audio": "a.wav", "question": "x", "choices": ["a", "b"], "answer": "c"},
             "mine.jsonl:1: solution 'c' is none of the options"),
    "target": ({"schema": "audio-r1.task/1", "uid": "x", "turns": []}, "mine.jsonl:1: no target"),
    "kind": ({"schema": "audio-r1.task/1", "uid": "x", "turns": [], "target": {"kind": "smell"}},
             "mine.jsonl:1: target kind 'smell'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_row_that_cannot_be_asked_is_one_line(tmp_path, case):
    row, message = WRONG[case]
    with pytest.raises(EvaluationError, match=message):
        generic(layouts.generic(tmp_path / "p", [row]), tmp_path / "out")


# acoustic-world

PER_TASK = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "out"
    report = import_bench(bench("acoustic-world"), None, out, ImportOptions(per_task=PER_TASK, seed=3))
    return report, list(read_items(out / "items.jsonl"))


@pytest.fixture(scope="module")
def drawn():
    """What nano's table asks."""
    return draw_items(PER_TASK, 3)


def test_the_world_asks_every_task_with_balanced_answers_half_with_options(world):
    report, items = world
    assert set(report.counts["task"]) == set(world_tasks())
    assert set(report.counts["task"].values()) == {PER_TASK}
    two = [i for i in items if len(TASKS[i.groups["task"]].answers) == 2]
    answers = Counter((i.groups["task"], i.ref["answer"].split(". ")[-1]) for i in two)
    assert len(two) >= 12 and set(answers.values()) == {1}
    assert report.counts["form"]["choice"] == sum(bool(TASKS[task].answers) for task in world_tasks())


def test_the_world_is_what_nanos_table_asks_word_for_word(world, drawn):
    """The clip too, but for its 16 bits: half a step of rounding, and written by 32,767 but read by 32,768."""
    for item, made in zip(world[1], drawn, strict=True):
        sound, words = item.messages()[0].parts
        assert words == made.question.text
        waveform, rate = soundfile.read(sound.source, dtype="float32")
        assert rate == 16_000
        assert np.abs(waveform - np.clip(made.clip.waveform, -1, 1)).max() <= 1.5 / 32_767


def test_right_answers_are_right_and_others_are_not(world, drawn):
    for item, made in zip(world[1], drawn, strict=True):
        assert verify(item.ref["answer"], item).correct == score(made.question, item.ref["answer"]) == 1.0
        assert verify("nothing of the kind", item).correct == 0.0


def test_the_same_seed_makes_the_same_world(tmp_path):
    one, two, other = (
        import_bench(bench("acoustic-world"), None, tmp_path / name, ImportOptions(per_task=1, seed=seed))
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.version == two.version != other.version
    with pytest.raises(EvaluationError, match="built in"):
        import_bench(bench("acoustic-world"), tmp_path, tmp_path / "x")
