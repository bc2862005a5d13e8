"""Items -> rows: each at once, each with a seed of its own, and the same whatever happened in between."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_audio_r1 import load
from mlx_audio_r1.errors import DataError, EvaluationError, PromptError
from mlx_audio_r1.evaluate.asking import LEAST_TOKENS as LEAST
from mlx_audio_r1.evaluate.choosing import Choosing, chosen, open_sources
from mlx_audio_r1.evaluate.results import FULL, REAL
from mlx_audio_r1.evaluate.run_folder import read_run
from mlx_audio_r1.evaluate.running import Running
from mlx_audio_r1.files import locked
from mlx_audio_r1.footprint import prompt_tokens
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.item_files import read_items
from tests.evaluate.world_run import GREEDY, rows, run_world, store
from tests.test_adapter_path import make_adapter

SAMPLED = {"temperature": 0.7, "max_tokens": 200}


@pytest.fixture(scope="module")
def run(nano, world_folder, tmp_path_factory):
    """Two samples of six items."""
    out = tmp_path_factory.mktemp("run") / "out"
    return run_world(nano, world_folder, out, samples=2, seed=5, settings=SAMPLED)


def test_a_row_for_every_sample_with_all_there_is_to_know(run, nano):
    found = rows(run)
    assert found.keys() == {(f"acoustic-world:{i}", s, FULL, REAL) for i in range(6) for s in range(2)}
    assert len({r.seed for r in found.values()}) == 12
    for r in found.values():
        assert r.thinking and r.answer and r.closed and r.finish == "stop" and not r.error
        assert r.ids[-1] in nano.tokenizer.stop_ids
        assert r.thinking_tokens + r.answer_tokens == len(r.ids)
        assert nano.tokenizer.decode(r.ids[: r.thinking_tokens]).strip() == r.thinking
        assert r.audio_tokens < r.prompt_tokens and r.audio_seconds > 0
    assert len({r.audio_sha256 for r in found.values()}) == len({r.prompt_sha256 for r in found.values()}) == 6


def test_a_row_is_the_reply_that_the_model_gives_alone_with_its_seed(run, nano, world_folder):
    items = {item.uid: item for item in read_items(world_folder / "items.jsonl")}
    for r in list(rows(run).values())[:3]:
        alone = nano.reply(items[r.uid].messages(), seed=r.seed, **SAMPLED)
        assert (alone.thinking, alone.answer, tuple(alone.token_ids)) == (r.thinking, r.answer, r.ids)


def test_a_file_torn_anywhere_ends_the_same(run, nano, world_folder, tmp_path):
    whole = rows(run)
    text = (run / "results.jsonl").read_bytes()
    out = tmp_path / "out"
    shutil.copytree(run, out)
    (out / "results.jsonl").write_bytes(text[: len(text) * 2 // 3])
    assert 0 < len(rows(out)) < 12
    run_world(nano, world_folder, out, samples=2, seed=5, settings=SAMPLED)
    assert rows(out) == whole


def test_more_samples_may_be_asked_and_the_old_ones_stay(run, nano, world_folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(run, out)
    before = (out / "results.jsonl").read_bytes()
    run_world(nano, world_folder, out, samples=3, seed=5, settings=SAMPLED)
    assert (out / "results.jsonl").read_bytes().startswith(before) and len(rows(out)) == 18


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"seed": 6}, "another seed (5, now 6)"),
     ({"settings": {**SAMPLED, "temperature": 0.8}}, "another acoustic-world temperature (0.7, now 0.8)"),
     ({"settings": {**SAMPLED, "thinking": False}}, "another acoustic-world thinking (True, now False)"),
     ({"choosing": Choosing(limit=4)}, "another items"),
     ({"choosing": Choosing(option_style="brackets")}, "another items")],
)  # fmt: skip
def test_a_folder_of_another_run_is_refused(run, nano, world_folder, changed, what):
    before = (run / "results.jsonl").read_bytes()
    with pytest.raises(EvaluationError) as refused:
        run_world(nano, world_folder, run, **{"samples": 2, "seed": 5, "settings": SAMPLED, **changed})
    assert what in str(refused.value) and "\n" not in str(refused.value)
    assert (run / "results.jsonl").read_bytes() == before


def test_another_model_is_refused_and_its_errors_stay(run, tiny, world_folder, tmp_path):
    out = shutil.copytree(run, tmp_path / "out")
    error = replace(next(iter(rows(run).values())), sample=9, error="gone")
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(error.as_dict()) + "\n")
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=r"another model \('nano', now "):
        run_world(tiny, world_folder, out, samples=2, seed=5, settings=SAMPLED, retry_failed=True)
    assert (out / "results.jsonl").read_bytes() == before


def test_another_adapter_is_refused_wherever_it_lies(nano, world_folder, tmp_path):
    made = [make_adapter(tmp_path / name, seed, "nano") for name, seed in (("a", 1), ("b", 2))]
    moved = shutil.copytree(made[0], tmp_path / "moved")
    asked = {"choosing": Choosing(limit=1), "settings": {**SAMPLED, "max_tokens": 5}}
    run_world(load("nano", adapter_path=made[0]), world_folder, tmp_path / "out", **asked)
    before = rows(tmp_path / "out")
    run_world(load("nano", adapter_path=moved), world_folder, tmp_path / "out", **asked)
    assert rows(tmp_path / "out") == before
    for other in (load("nano", adapter_path=made[1]), nano):
        with pytest.raises(EvaluationError, match=r"another adapter \('[0-9a-f]{16}', now "):
            run_world(other, world_folder, tmp_path / "out", **asked)


def test_what_was_asked_stands_in_run_json(run):
    told = read_run(run)
    assert told["model"] == "nano" and told["acoustic-world top_p"] == 1.0 and told["samples"] == 2
    own = told["bench"]["acoustic-world"]
    assert (own["items"], own["of"], own["profile"], own["option_style"]) == (6, 6, "acoustic-world", "step-r1")
    [item] = [i for i in read_items(run / "items.jsonl") if i.uid == "acoustic-world:0"]
    assert Path(item.sounds[0].source).name == "0.wav" and Path(item.sounds[0].source).is_file()


def test_what_cannot_be_asked_is_a_row_and_is_done_again_when_wanted(nano, world_folder, tmp_path):
    folder, out = tmp_path / "items", tmp_path / "out"
    shutil.copytree(world_folder, folder)
    sound = (folder / "1.wav").read_bytes()
    (folder / "1.wav").write_bytes(b"RIFF no sound at all")
    (folder / "2.wav").unlink()
    items = [*read_items(world_folder / "items.jsonl")][:3]
    words = (Turn("user", ("word " * 5_000,)),)
    long = Item("acoustic-world:long", words, Boolean(True), bench="acoustic-world")
    store(folder, [*read_relative(folder)[:3], long])
    run_world(nano, folder, out, budgets=(0, 8), controls=("silence",))
    found = rows(out)
    assert len(found) == 4 * 3 + 3  # silence has no place in a prompt without sound
    bad = {uid for (uid, _, _, _), r in found.items() if r.error}
    assert bad == {"acoustic-world:1", "acoustic-world:2", "acoustic-world:long"}
    for r in found.values():
        assert bool(r.error) == (r.uid in bad) == (r.finish == "error") == (not r.closed)
    assert "the context 4096" in found["acoustic-world:long", 0, FULL, REAL].error
    assert "2.wav" in found["acoustic-world:2", 0, 8, REAL].error
    (folder / "1.wav").write_bytes(sound)
    run_world(nano, folder, out, budgets=(0, 8), controls=("silence",))
    assert rows(out) == found
    run_world(nano, folder, out, budgets=(0, 8), controls=("silence",), retry_failed=True)
    again = rows(out)
    assert {uid for (uid, _, _, _), r in again.items() if r.error} == bad - {"acoustic-world:1"}
    good = (items[0].uid, 0, FULL, REAL)
    assert again.keys() == found.keys() and again[good] == found[good]


def read_relative(folder):
    """Items whose sounds are named as in the file."""
    from mlx_audio_r1.tasks.item_files import item_from_json

    return [item_from_json(json.loads(line)) for line in (folder / "items.jsonl").read_text().splitlines()]


def test_a_folder_that_another_run_is_at_work_in_is_left_alone(nano, world_folder, tmp_path):
    with (tmp_path / ".lock").open("ab") as file:
        assert locked(file)
        with pytest.raises(EvaluationError, match="another run is at work in it"):
            run_world(nano, world_folder, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_reply_is_kept_within_the_memory_there_is_for_it(nano, world_folder, tmp_path):
    """Random tokens, which hardly ever end by themselves."""
    asked = {"settings": {"temperature": 10.0, "max_tokens": 4_000}, "samples": 4, "room": LEAST + 300}
    found = rows(run_world(nano, world_folder, tmp_path / "out", Choosing(limit=1), **asked))
    longest = max(found.values(), key=lambda r: len(r.ids))
    assert (longest.finish, longest.closed) == ("length", False)
    assert len(longest.ids) == LEAST + 300 - prompt_tokens(longest.audio_seconds)


def test_an_import_is_not_written_over(nano, world_folder):
    before = {path.name: path.read_bytes() for path in world_folder.iterdir()}
    for name in (str(world_folder), "acoustic-world"):
        with pytest.raises(EvaluationError, match="holds an import"):
            run_world(nano, name, world_folder)
    assert {path.name: path.read_bytes() for path in world_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("running", "error", "what"),
    [({"controls": ("quiet",)}, EvaluationError, "no control 'quiet'; there are silence, noise"),
     ({"samples": 0}, EvaluationError, "give 1 or more"),
     ({"grounding": "deep"}, EvaluationError, "there are off, fast, full"),
     ({"settings": {"temperature": -1.0}}, PromptError, "temperature")],
)  # fmt: skip
def test_what_cannot_be_run_is_said_before_anything_is_loaded(running, error, what):
    with pytest.raises(error, match=what):
        Running(**running)


# ---- which items


def strata(n):
    """Two levels of groups, in the order of a sorted file."""
    turns = (Turn("user", ("?",)),)
    return [Item(f"b:{i:04d}", turns, Boolean(True), bench="b",
                 groups={"task": "sound" if i < n * 0.7 else "music", "level": ("easy", "hard")[i % 2]})
            for i in range(n)]  # fmt: skip


@pytest.mark.parametrize(("n", "limit"), [(1_000, 100), (997, 100), (50, 7), (10, 9)])
def test_a_share_is_taken_of_every_group(n, limit):
    items = strata(n)
    taken = chosen(items, limit, seed=1, order=("task",))
    assert len(taken) == limit and [i.uid for i in taken] == sorted(i.uid for i in taken)
    music = sum(i.groups["task"] == "music" for i in items) * limit / n
    assert abs(sum(i.groups["task"] == "music" for i in taken) - music) < 1
    hard = sum(i.groups["level"] == "hard" for i in taken)
    assert abs(hard - limit / 2) <= 2  # one a value of the group above it


def test_a_share_depends_on_the_seed_and_not_on_the_order_of_the_file():
    items = strata(300)
    first = {i.uid for i in chosen(items, 40, seed=1)}
    assert first == {i.uid for i in chosen(items[::-1], 40, seed=1)}
    assert first != {i.uid for i in chosen(items, 40, seed=2)}
    assert len(first & {i.uid for i in items[:40]}) < 20  # no prefix
    assert chosen(items, 300, seed=1) == chosen(items, None, seed=1) == items


def test_sources_are_folders_files_and_what_is_built_in(world_folder, tmp_path):
    [source] = open_sources([str(world_folder / "items.jsonl")], tmp_path / "out", Choosing(preset="mini"))
    assert (source.bench, source.of, source.group_by[0]) == ("acoustic-world", 6, "task")
    for name, what in (("mmau", "audio-r1 eval import mmau PATH"), ("nothing", "no such file, folder or bench"),
                       (str(tmp_path), "no items.jsonl in it")):  # fmt: skip
        with pytest.raises(EvaluationError, match=what):
            open_sources([name], tmp_path / "out", Choosing())
    mixed = [replace(item, bench=("a", "b")[i % 2]) for i, item in enumerate(read_relative(world_folder))]
    (tmp_path / "mixed").mkdir()
    store(tmp_path / "mixed", mixed)
    found = open_sources([str(tmp_path / "mixed")], tmp_path / "out", Choosing(limit=2))
    assert [(s.bench, len(s.items), s.of) for s in found] == [("a", 2, 3), ("b", 2, 3)]
    with pytest.raises(EvaluationError, match="comes 2 times"):
        open_sources([str(world_folder)] * 2, tmp_path / "out", Choosing())
    with pytest.raises(EvaluationError, match="no prompt profile 'x'; there are acoustic-world"):
        open_sources([str(world_folder)], tmp_path / "out", Choosing(profile="x"))
    with pytest.raises(EvaluationError, match="option style 'x'"):
        open_sources([str(world_folder)], tmp_path / "out", Choosing(option_style="x"))
    (tmp_path / "items.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"items.jsonl:1"):
        open_sources([str(tmp_path)], tmp_path / "out", Choosing())


def test_settings_are_the_profiles_unless_given(nano, world_folder, tmp_path):
    folder = tmp_path / "items"
    shutil.copytree(world_folder, folder)
    items = read_relative(folder)[:1]
    store(folder, [replace(i, extra={**i.extra, "settings": {**GREEDY, "max_tokens": 3}}) for i in items])
    out = run_world(nano, folder, tmp_path / "short", settings={})
    [row] = rows(out).values()
    assert (len(row.ids), row.finish, row.closed, row.answer) == (3, "length", False, "")
    out = run_world(nano, folder, tmp_path / "direct", settings={"thinking": False, "max_tokens": 50})
    [row] = rows(out).values()
    assert (row.thinking, row.thinking_tokens, row.closed) == ("", 0, True) and row.answer
