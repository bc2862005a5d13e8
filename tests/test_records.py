"""Lists of recordings, the file of records that a run can be killed on, and the thread that decodes ahead."""

import json
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_audio_r1.errors import AudioError, DiskError, JobError
from mlx_audio_r1.jobs.ahead import Ahead
from mlx_audio_r1.jobs.asking import Asking
from mlx_audio_r1.jobs.pending import pending
from mlx_audio_r1.jobs.records import RecordFile, to_line
from mlx_audio_r1.jobs.sources import Item, find_items


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.wav", "in/a.MP3", "in/notes.txt", "in/._b.wav", "in/deep/c.flac", "in/.hid/d.wav",
                 "e[1].wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def ids(*inputs, **options):
    return [item.id for item in find_items(inputs, **options)]


# Sources


def test_folders_give_the_sounds_in_them(folder):
    assert ids("in") == ["in/a.MP3", "in/b.wav"]
    assert ids("in/", recursive=True) == ["in/a.MP3", "in/b.wav", "in/deep/c.flac"]
    assert ids("in", recursive=True, pattern="*.flac") == ["in/deep/c.flac"]
    assert ids("in", pattern="notes.*") == ["in/notes.txt"]
    assert [i.inside for i in find_items(["in"], recursive=True)][-1] == "deep/c.flac"


def test_patterns_files_and_lists(folder):
    assert ids("in/*.wav", "in/notes.txt", "no-such.wav") == ["in/b.wav", "in/notes.txt", "no-such.wav"]
    assert ids("in/**/*.flac") == ["in/deep/c.flac"]
    assert ids("e[1].wav") == ["e[1].wav"]  # a name, not a pattern
    assert ids("-", stdin=["in/b.wav\n", "\n", " odd name .wav\r\n"]) == ["in/b.wav", " odd name .wav"]


@pytest.mark.parametrize(("given_", "words"), [
    ("in/deep/none", None), ("*.ogg", "nothing matches"), ("empty", "no sound files"),
    ("in/x.jsonl", "cannot be read"), ("-", "stdin is empty"), ("none.jsonl", "nothing in it"),
])
def test_an_input_that_gives_nothing_is_said(folder, given_, words):
    (folder / "empty").mkdir()
    (folder / "none.jsonl").write_text("\n\n")
    if words is None:
        assert ids(given_) == [given_]  # a recording that will fail by itself
        return
    with pytest.raises(JobError, match=words):
        ids(given_)


def test_a_manifest_keeps_its_columns(folder):
    rows = [{"audio": "b.wav", "id": 7, "answer": "x", "n": {"deep": [1]}},
            {"audio": "deep/c.flac", "prompt": "Who?"}]
    (folder / "in/m.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    first, second = find_items(["in/m.jsonl"])
    assert (first.id, first.path, first.columns) == ("7", "in/b.wav", {"answer": "x", "n": {"deep": [1]}})
    assert (second.id, second.path, second.prompt) == ("deep/c.flac", "in/deep/c.flac", "Who?")


def test_a_bad_line_of_a_manifest_costs_that_line(folder):
    bad = [b"{", b"[1]", b'{"path": "a"}', b'{"audio": 3}', b'{"audio": "a", "prompt": 1}',
           b'{"audio": "a", "id": []}', b"\xff\xfe"]
    (folder / "m.jsonl").write_bytes(b"\n".join([*bad, b'{"audio": "in/b.wav"}']))
    items = find_items(["m.jsonl"])
    assert [bool(item.error) for item in items] == [True] * 7 + [False]
    assert items[2].id == "m.jsonl:3" and "no audio" in items[2].error
    assert items[2].columns == {"path": "a"}


def test_ids_are_unique_and_stable(folder):
    rows = ('{"audio": "in/b.wav", "prompt": "One?"}', '{"audio": "in/b.wav", "prompt": "Two?"}')
    (folder / "m.jsonl").write_text("\n".join(rows))
    assert ids("m.jsonl") == ids("m.jsonl") == ["in/b.wav", "in/b.wav#2"]
    assert ids("in", "in/b.wav", "in/*.wav") == ["in/a.MP3", "in/b.wav"]  # the same question, once


# Records


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_file_cut_at_any_byte_is_taken_up(tmp_path):
    path = tmp_path / "out.jsonl"
    records = [{"id": "a", "answer": "ä\nb", "prompt": "?"}, {"id": "b", "error": {"class": "AudioError"}}]
    whole = b"".join(to_line(record) for record in records)
    for at in range(len(whole) + 1):
        path.write_bytes(whole[:at])
        with_all = RecordFile(path)
        kept = len(with_all.done)
        for record in records[kept:]:
            with_all.write(record)
        with_all.close()
        assert lines(path) == records, at
        assert path.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl"]


@given(st.binary(max_size=60))
def test_rubbish_at_the_end_is_cut_off(tmp_path_factory, rubbish):
    path = tmp_path_factory.mktemp("r") / "out.jsonl"
    path.write_bytes(b'{"id": "a"}\n{"id": "b", "x": "' + rubbish.replace(b"\n", b"") + b"\x00")
    file = RecordFile(path)
    file.close()
    assert file.done == {("a", 0)} and path.read_bytes() == b'{"id": "a"}\n'


def test_failed_lines_are_taken_out_when_they_are_tried_again(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "a", "error": {}}\n{"id": "b"}\n')
    kept = RecordFile(path)
    assert kept.failed == {"a"} and kept.done == {("a", None), ("b", 0)}
    kept.close()
    again = RecordFile(path, retry_failed=True)
    again.close()
    assert again.done == {("b", 0)} and path.read_text() == '{"id": "b"}\n'
    anew = RecordFile(path, overwrite=True)
    anew.close()
    assert not anew.done and path.read_bytes() == b""


def test_two_runs_do_not_write_to_one_file(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text('{"id": "a"}\n{"torn')
    first = RecordFile(path)  # rewritten aside, and still locked
    with pytest.raises(JobError, match="another run"):
        RecordFile(path)
    first.close()
    RecordFile(path).close()


def test_a_file_that_is_no_output_is_left_alone(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text('{"audio": "a.wav"}\n')
    with pytest.raises(JobError, match=r"notes\.jsonl:1: not a line of a batch"):
        RecordFile(path)
    assert path.read_text() == '{"audio": "a.wav"}\n'
    with pytest.raises(DiskError):
        RecordFile(tmp_path)
    RecordFile(os.devnull).close()


def test_names_that_are_no_text_survive():
    name = os.fsdecode(b"caf\xe9.wav")
    assert json.loads(to_line({"id": name}))["id"] == name


def test_what_is_pending(tmp_path):
    path = tmp_path / "out.jsonl"
    records = [{"id": "a", "file": "a", "prompt": "Q", "sample": 1}, {"id": "b", "error": {}},
               {"id": "z", "file": "z", "prompt": "Other"}]
    path.write_bytes(b"".join(map(to_line, records)))
    items = [Item(name, name) for name in "abc"]
    file = RecordFile(path)
    todo = pending(items, file, Asking(prompt="Q", num_samples=3))
    assert [item.id for item in todo.items] == ["a", "c"]
    assert todo.samples == {"a": (0, 2), "c": (0, 1, 2)}
    assert (todo.skipped, todo.failed_before) == (1, 1)
    with pytest.raises(JobError, match="answer another question"):
        pending(items, file, Asking(prompt="R"))
    with pytest.raises(JobError, match="answer another question"):
        pending([Item("a", "elsewhere/a")], file, Asking(prompt="Q"))
    file.close()


# The thread


def test_values_come_in_order_from_another_thread():
    thread = set()

    def work():
        for i in range(50):
            thread.add(threading.current_thread().name)
            yield i

    ahead = Ahead(work(), lambda i: 1.0, 5.0)
    assert list(ahead) == list(range(50)) and thread == {"decode-ahead"}
    ahead.close()


def test_no_more_is_computed_than_the_budget_allows():
    made = []

    def work():
        for i in range(100):
            made.append(i)
            yield i

    ahead = Ahead(work(), lambda i: 10.0, 35.0)
    assert next(ahead) == 0
    time.sleep(0.2)
    assert len(made) <= 5  # three wait, one more is at hand
    assert ahead.is_ready()
    ahead.close()
    assert not ahead._thread.is_alive()


def test_something_too_large_for_the_budget_comes_alone():
    ahead = Ahead(iter([1, 2, 3]), lambda i: 1e9, 1.0)
    assert list(ahead) == [1, 2, 3]
    ahead.close()


def test_an_error_comes_in_its_place():
    def work():
        yield 1
        raise AudioError("broken")

    ahead = Ahead(work(), lambda i: 1.0, 5.0)
    assert next(ahead) == 1
    with pytest.raises(AudioError, match="broken"):
        next(ahead)
    ahead.close()
