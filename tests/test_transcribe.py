"""`audio-r1 transcribe`: files in, text and subtitle files out; times are those of what was heard."""

import io
import json
import re
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.cli.transcribe import _window

ROOT = Path(__file__).parent.parent
RATE = 16_000
TINY = ["--model", str(ROOT / "tests" / "golden" / "tiny-fp32"), "-m", "6"]


def tone(seconds: float, amplitude: float = 0.3) -> np.ndarray:
    return np.sin(2 * np.pi * 200 * np.arange(int(seconds * RATE)) / RATE) * amplitude


def wav(*parts: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes((np.concatenate(parts) * 32_767).astype("<i2").tobytes())
    return file.getvalue()


SILENCE = np.zeros
TALK = wav(tone(3), SILENCE(RATE * 5), tone(4), SILENCE(RATE * 14), tone(2))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.wav").write_bytes(TALK)
    return tmp_path


def transcribe(*arguments: str, stdin: bytes | None = None):
    return CliRunner().invoke(cli, ["transcribe", *arguments], input=stdin)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_becomes_a_text_beside_it(here):
    done = transcribe("talk.wav", *TINY)
    assert done.exit_code == 0 and done.stdout == ""
    assert tree(here) == ["talk.txt", "talk.wav"]
    assert "talk.wav -> talk.txt: " in done.stderr and "17.8 s of silence skipped" in done.stderr


def test_every_format_tells_the_same(here):
    done = transcribe("talk.wav", "-f", "all", "-o", "out", "--language", "de", *TINY)
    assert done.exit_code == 0
    assert tree(here / "out") == ["talk.json", "talk.srt", "talk.tsv", "talk.txt", "talk.vtt"]
    found = json.loads((here / "out/talk.json").read_text())
    assert found["times"] == "pieces" and found["language"] == "German" and found["duration"] == 28.0
    # Sounds at 0-3, 8-12 and 26-28 s, 0.3 s kept around each; a silence over 10 s ends a window.
    assert [(s["start"], s["end"]) for s in found["segments"]] == [(0.0, 12.3), (25.7, 28.0)]
    assert found["segments"][0]["pieces"] == [{"start": 0.0, "end": 3.3}, {"start": 7.7, "end": 12.3}]
    assert found["silence_skipped"] == 17.8
    texts = [s["text"] for s in found["segments"]]
    lines = [" ".join(text.split()) for text in texts]
    assert (here / "out/talk.txt").read_text() == "".join(f"{line}\n" for line in lines)
    assert (here / "out/talk.tsv").read_text().splitlines()[1].startswith("0\t12300\t")
    starts = re.findall(r"^(\S+) --> (\S+)$", (here / "out/talk.srt").read_text(), re.M)
    assert starts == [("00:00:00,000", "00:00:12,300"), ("00:00:25,700", "00:00:28,000")]
    assert "\n\n00:25.700 --> 00:28.000\n" in (here / "out/talk.vtt").read_text()


def test_sound_from_stdin_to_stdout(here):
    piped = transcribe("-", "-o", "-", "-f", "json", *TINY, stdin=TALK)
    filed = transcribe("talk.wav", "-f", "json", *TINY)
    from_file = json.loads((here / "talk.json").read_text())
    assert json.loads(piped.stdout)["segments"] == from_file["segments"]
    assert piped.exit_code == filed.exit_code == 0
    transcribe("-", *TINY, stdin=TALK)
    assert "stdin.txt" in tree(here)


def test_silence_gives_an_empty_transcript_and_a_note(here):
    (here / "quiet.wav").write_bytes(wav(SILENCE(RATE * 40)))
    done = transcribe("quiet.wav", "-f", "all", *TINY)
    assert done.exit_code == 0 and "nothing but silence" in done.stderr
    assert (here / "quiet.txt").read_text() == "" and (here / "quiet.vtt").read_text() == "WEBVTT\n\n"
    found = json.loads((here / "quiet.json").read_text())
    assert found["text"] == "" and found["segments"] == [] and found["silence_skipped"] == 40.0


def test_names_never_collide_and_bad_files_cost_themselves(here):
    for name in ("x/a.wav", "y/a.wav", "in/s/b.wav", "in/b.wav", "in/b.flac"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(wav(tone(0.5)))
    (here / "x/bad.wav").write_text("no sound")
    done = transcribe("x", "y/a.wav", "in", "-r", "-o", "out", *TINY)
    assert done.exit_code == 3 and "1 failed" in done.stderr and "bad.wav" in done.stderr
    assert tree(here / "out") == ["b.flac.txt", "b.wav.txt", "s/b.txt", "x/a.txt", "y/a.txt"]


def test_what_exists_is_skipped_when_asked(here):
    (here / "other.wav").write_bytes(wav(tone(0.5)))
    assert transcribe("talk.wav", *TINY).exit_code == 0
    (here / "talk.txt").write_text("mine")
    done = transcribe("talk.wav", "other.wav", "--skip-existing", *TINY)
    assert "1 done already" in done.stderr and (here / "talk.txt").read_text() == "mine"
    assert "other.txt" in tree(here)
    transcribe("talk.wav", *TINY)
    assert (here / "talk.txt").read_text() != "mine"


def test_sound_without_pauses_is_heard_twice_at_the_cuts(here):
    (here / "hum.wav").write_bytes(wav(tone(40)))
    transcribe("hum.wav", "-f", "json", "--chunk-duration", "10", "--overlap", "2", *TINY)
    segments = json.loads((here / "hum.json").read_text())["segments"]
    assert len(segments) > 3 and segments[0]["start"] == 0.0 and segments[-1]["end"] == 40.0
    for before, after in pairwise(segments):
        assert before["end"] == after["start"]  # its own part
        assert after["pieces"][0]["start"] == pytest.approx(after["start"] - 2)
        assert sum(p["end"] - p["start"] for p in after["pieces"]) <= 10


def test_a_recording_may_be_heard_at_once(here):
    (here / "hum.wav").write_bytes(wav(tone(60)))
    transcribe("hum.wav", "-f", "json", "--chunk-duration", "0", *TINY)
    [segment] = json.loads((here / "hum.json").read_text())["segments"]
    assert (segment["start"], segment["end"]) == (0.0, 60.0) and len(segment["pieces"]) == 3
    assert all(p["end"] - p["start"] <= 25 for p in segment["pieces"])


@pytest.mark.parametrize(("format_", "given", "window"), [
    ("txt", None, 120.0), ("json", None, 120.0), ("srt", None, 25.0), ("all", None, 25.0), ("srt", 90.0, 90.0),
    ("txt", 0.0, None),
])
def test_windows_are_short_by_default_and_shorter_where_times_are_shown(format_, given, window):
    assert _window({"output_format": format_, "chunk_duration": given}) == window


def test_the_request_names_language_task_and_words(here):
    outputs = {
        transcribe("talk.wav", "-o", "-", *options, *TINY[:2], "-m", "12").stdout
        for options in ([], ["--language", "fr"], ["--task", "translate"], ["--initial-prompt", "Acme"])
    }
    assert len(outputs) == 4


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["nowhere.wav", *TINY], 1, "nowhere.wav: no such file"),
    (["talk.wav", "-f", "all", "-o", "-"], 2, "needs files"),
    (["talk.wav", "talk.wav", "--output-name", "x"], 2, "several would overwrite"),
    (["talk.wav", "--output-name", "x/y"], 2, "is a name"),
    (["talk.wav", "-f", "docx"], 2, "docx"),
    (["talk.wav", "other.wav", "-o", "-"], 2, "mixes the texts of 2 files"),
    (["talk.wav", "--chunk-duration", "0.5"], 2, "at least 1 second"),
    (["talk.wav", *TINY, "-o", "talk.wav"], 1, "talk.wav/talk.txt: cannot be written"),
    ([".", *TINY, "--temp", "-1"], 1, "temperature"),
])
def test_what_cannot_be_done_is_said(here, arguments, code, words):
    done = transcribe(*arguments)
    assert done.exit_code == code and words in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_ask_says_how_a_long_sound_was_split(here):
    (here / "hum.wav").write_bytes(wav(tone(51)))
    done = CliRunner().invoke(cli, ["ask", "hum.wav", "-p", "What?", *TINY, "-R"])
    assert "51.0 s of sound, heard at once in 3 pieces of at most 25 s" in done.stderr
    short = CliRunner().invoke(cli, ["ask", "talk.wav", "-p", "What?", "--chunk-seconds", "20.5", *TINY, "-R"])
    assert "2 pieces of at most 20.5 s" in short.stderr
