"""Transcripts: words, joins, notes, and files byte for byte."""

import json
from types import SimpleNamespace

import pytest

from mlx_audio_r1.errors import DiskError
from mlx_audio_r1.jobs import outputs
from mlx_audio_r1.jobs.sources import Item
from mlx_audio_r1.jobs.subtitles import WRITERS, Segment, Transcript, clock
from mlx_audio_r1.jobs.transcripts import longest_window, summary, thin, with_room
from mlx_audio_r1.jobs.words import count_words, glue, join


def segment(start: float, end: float, text: str, wpm: float = 100.0, reason: str = "stop") -> Segment:
    return Segment(start, end, text, ((start, end),), wpm, reason)


TALK = Transcript(
    file="talk.m4a", model="nano", task="transcribe", language="English", duration=3700.04,
    silence_skipped=3661.5, text="Good morning. It works -- it works --> really.",
    segments=(segment(0.0, 12.34, "Good morning."), segment(20.0, 45.0, "  "),
              segment(3661.5, 3700.04, "It works -- it works -->\n\nreally.")),
    notes=("something was lost",),
)


def test_srt():
    assert WRITERS["srt"](TALK) == (
        "1\n00:00:00,000 --> 00:00:12,340\nGood morning.\n\n"
        "2\n01:01:01,500 --> 01:01:40,040\nIt works -- it works ->\nreally.\n\n"
    )


def test_vtt():
    assert WRITERS["vtt"](TALK) == (
        "WEBVTT\n\n00:00.000 --> 00:12.340\nGood morning.\n\n"
        "01:01:01.500 --> 01:01:40.040\nIt works -- it works ->\nreally.\n\n"
    )


def test_tsv_and_txt():
    assert WRITERS["tsv"](TALK) == (
        "start\tend\ttext\n0\t12340\tGood morning.\n3661500\t3700040\tIt works -- it works --> really.\n"
    )
    assert WRITERS["txt"](TALK) == "Good morning.\nIt works -- it works --> really.\n"


def test_json_says_whose_times_it_gives():
    found = json.loads(WRITERS["json"](TALK))
    assert found.pop("segments")[0] == {
        "id": 0, "start": 0.0, "end": 12.34, "text": "Good morning.",
        "pieces": [{"start": 0.0, "end": 12.34}], "words_per_minute": 100.0, "finish_reason": "stop",
    }
    assert found == {
        "text": TALK.text, "language": "English", "task": "transcribe", "file": "talk.m4a", "model": "nano",
        "duration": 3700.04, "silence_skipped": 3661.5, "times": "pieces", "notes": ["something was lost"],
    }


def test_an_empty_transcript_is_an_empty_file_of_its_kind():
    empty = Transcript("a.wav", "nano", "transcribe", None, 30.0, 30.0, "", ())
    assert [WRITERS[name](empty) for name in ("txt", "srt", "vtt", "tsv")] == [
        "", "", "WEBVTT\n\n", "start\tend\ttext\n"]


@pytest.mark.parametrize(("seconds", "shown"), [
    (0, "00:00.000"), (59.9996, "01:00.000"), (3599.9999, "01:00:00.000"),
])
def test_the_clock_carries_over(seconds, shown):
    assert clock(seconds) == shown


# Words


@pytest.mark.parametrize(("text", "words"), [
    ("It's twenty-one o\u2019clock.", 4), ("", 0), ("… —", 0), ("我们去 Berlin 吧。", 5),
    ("Grüße, Ωmega", 2), ("かな漢字", 4),
])
def test_words_are_counted(text, words):
    assert count_words(text) == words


def test_what_two_windows_heard_is_written_once():
    parts = join(["We went to the big old house.", "the big, old house. And then we left."], [0, 5])
    assert parts == ["We went to the big old house.", "And then we left."]


def test_a_word_cut_in_half_is_taken_from_the_window_that_heard_all_of_it():
    parts = join(["we went to the big old hou", "to the big old houses yesterday"], [0, 5])
    assert parts == ["we went to the big old", "houses yesterday"]


def test_a_chance_likeness_takes_nothing_out():
    left, right = "one of the men went home by train", "then he spoke of the weather"
    assert join([left, right], [0, 5]) == [left, right]


def test_an_error_inside_the_overlap_does_not_double_it():
    left, right = "a b c the big old hose on the hill", "the big old house on the hill was sold"
    assert glue(join([left, right], [0, 5])) == "a b c the big old house on the hill was sold"


def test_without_an_overlap_nothing_is_taken_out():
    assert join(["very very good", "very very bad"], [0, 0]) == ["very very good", "very very bad"]
    assert join(["one", "two"], [0, 5]) == ["one", "two"]
    assert join(["", "two three"], [0, 5]) == ["", "two three"]


def test_characters_without_spaces_are_joined_too():
    assert glue(join(["今天天气很好。", "天气很好。我们走吧"], [0, 5])) == "今天天气很好。我们走吧"
    assert glue(["one", "", " two"]) == "one two"


def test_many_windows_give_the_text_they_were_cut_from():
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(words[max(0, i - 12) : i + 40]) for i in range(0, 200, 40)]
    assert glue(join(texts, [0, 3, 3, 3, 3])).split() == words


# Notes


def test_a_window_that_looks_like_a_summary_is_named():
    segments = [segment(i * 60, i * 60 + 60, "x", wpm) for i, wpm in enumerate([150, 160, 40, 140, 150])]
    [note] = thin(segments)
    assert note.startswith("120-180 s: 40 words a minute of sound (median 150)")
    assert thin([segment(0, 60, "x", 35.0)]) == []
    assert "29 words" in thin([segment(0, 60, "x", 29.0)])[0]
    assert thin([segment(0, 10, "x", 0.0)]) == []  # too short to judge
    assert thin([segment(0, 60, "x", 44.0)], rates=[150.0, 170.0]) != []  # the rest of the run has more


def test_the_summary_of_a_transcript_has_its_density():
    first = next(summary(TALK, "talk.txt"))
    heard = 12.34 + 25 + 38.54
    assert first == (f"talk.m4a -> talk.txt: 7 words, {7 / heard * 60:.0f} a minute of sound, 3 windows, "
                     "3661.5 s of silence skipped")


def test_only_the_first_notes_are_said():
    many = Transcript("a.wav", "nano", "transcribe", None, 30.0, 0.0, "", (), tuple("abcdefgh"))
    assert [*summary(many)][1:] == [
        "  a", "  b", "  c", "  d", "  e", "  and 3 more such notes; -f json has them all"]


def test_the_longest_window_leaves_room_for_its_words():
    config = SimpleNamespace(context_length=65_536)
    # 25 s: 313 patches and two marks, 12.6 a second, and 8 tokens of text
    assert longest_window(config, 25.0) == pytest.approx((65_536 - 512) / (315 / 25 + 8))


def test_a_window_that_runs_away_is_stopped_unless_it_reasons():
    assert with_room({}, 120.0) == {"max_tokens": 120 * 8 + 256}
    assert with_room({"max_tokens": 7}, 120.0) == {"max_tokens": 7}
    assert with_room({"thinking": True}, 120.0) == {"thinking": True}
    assert with_room({}, None) == {}


# Where they go


def item(path: str, inside: str | None = None) -> Item:
    return Item(path, path, inside=inside or path.rsplit("/", 1)[-1])


def stems(*items: Item) -> list[str]:
    return list(outputs.stems(items).values())


def test_no_two_recordings_share_a_file():
    assert stems(item("a.wav"), item("b.c.mp3"), item("-")) == ["a", "b.c", "stdin"]
    assert stems(item("x/a.wav"), item("y/a.wav"), item("y/b.wav")) == ["x/a", "y/a", "b"]
    assert stems(item("a.wav"), item("a.mp3")) == ["a.wav", "a.mp3"]
    assert stems(item("x/A.wav"), item("y/a.wav")) == ["x/A", "y/a"]  # the same file on a Mac
    assert stems(item("in/s/a.wav", "s/a.wav"), item("in/a.wav", "a.wav")) == ["s/a", "a"]
    many = [item("a.wav"), item("a.mp3"), item("x/a.wav"), item("x/a.wav.flac"), item("y/A.WAV")]
    assert len({stem.casefold() for stem in stems(*many)}) == 5


def test_files_are_written_aside_and_renamed(tmp_path):
    written = outputs.write(TALK, tmp_path / "out", "sub/talk", ["txt", "json"])
    assert [path.name for path in written] == ["talk.txt", "talk.json"]
    assert sorted(p.name for p in (tmp_path / "out" / "sub").iterdir()) == ["talk.json", "talk.txt"]
    long = "x" * 251  # with its suffix as long as names may be
    assert outputs.write(TALK, tmp_path, long, ["txt"]) == [tmp_path / f"{long}.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        outputs.write(TALK, tmp_path / "file", "talk", ["txt"])


def test_what_has_all_its_files_is_not_missing(tmp_path):
    items = [item("a.wav"), item("b.wav")]
    (tmp_path / "a.txt").write_text("")
    todo = outputs.missing(items, outputs.stems(items), tmp_path, ["txt"])
    assert [i.id for i in todo.items] == ["b.wav"] and todo.skipped == 1
    assert len(outputs.missing(items, outputs.stems(items), tmp_path, ["txt", "srt"]).items) == 2
    assert len(outputs.missing(items, outputs.stems(items), tmp_path, ()).items) == 2
