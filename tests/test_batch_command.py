"""`audio-r1 batch` as people use it: a folder with broken files in it, killed at random, ends complete."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlx_audio_r1 import load
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.jobs.asking import Asking
from mlx_audio_r1.jobs.hearing import Cutting, hear
from mlx_audio_r1.jobs.run import outcomes
from mlx_audio_r1.jobs.sources import Item
from mlx_audio_r1.jobs.transcripts import cutting

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "tests" / "golden" / "tiny-fp32")
GREEDY = ["--model", TINY, "--temp", "0", "-m", "12", "--thinking-budget", "4"]


def write_tone(path: Path, seconds: float, hertz: float, amplitude: float = 0.3) -> Path:
    samples = np.sin(2 * np.pi * hertz * np.arange(int(seconds * 16_000)) / 16_000) * amplitude * 32_767
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def fill(folder: Path, good: int) -> Path:
    """Tones of different lengths, and among them the ways in which files are broken."""
    for i in range(good):
        write_tone(folder / f"tone{i:03d}.wav", 0.3 + i % 5 * 0.4, 150 + 10 * i)
    (folder / "a-text.wav").write_text("this is no sound")
    (folder / "m-empty.wav").write_bytes(b"")
    whole = (folder / "tone000.wav").read_bytes()
    (folder / "s-truncated.wav").write_bytes(whole[:40])
    (folder / "u-half.wav").write_bytes(whole[: len(whole) // 2])  # gives what it has, with a note
    (folder / "z-header.flac").write_bytes(b"fLaC" + bytes(40))
    (folder / "gone.wav").symlink_to(folder / "no-such-file")
    return folder


BROKEN = {"a-text.wav", "m-empty.wav", "s-truncated.wav", "z-header.flac", "gone.wav"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("sounds"), 12)


def batch(*arguments: object, stdin: str | None = None):
    return CliRunner().invoke(cli, ["batch", *map(str, arguments)], input=stdin)


def records(path: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = Counter((record["id"], record.get("sample")) for record in found)
    assert keys.most_common(1)[0][1] == 1, "a recording has two lines"
    return {record["id"]: record for record in found}


def said(record: dict) -> tuple:
    """What must not depend on how a run went."""
    keys = ("file", "duration", "pieces", "think", "answer", "finish_reason", "usage", "error", "prompt")
    return tuple(json.dumps(record.get(key)) for key in keys)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> dict[str, dict]:
    out = tmp_path_factory.mktemp("out") / "out.jsonl"
    done = batch(folder, "-o", out, "-p", "What?", *GREEDY)
    assert done.exit_code == 3 and "5 failed" in done.stderr and done.stdout == ""
    return records(out)


def test_every_recording_has_its_line(folder, undisturbed):
    assert {Path(id_).name for id_ in undisturbed} == {path.name for path in folder.iterdir()}
    failed = {Path(id_).name: r for id_, r in undisturbed.items() if "error" in r}
    assert failed.keys() == BROKEN
    for name, record in failed.items():
        assert record["error"]["class"] == "AudioError" and name in record["error"]["message"]
        assert "answer" not in record


def test_a_line_has_what_the_format_promises(folder, undisturbed):
    record = undisturbed[str(folder / "tone004.wav")]
    assert {"id", "file", "duration", "pieces", "think", "answer", "finish_reason", "usage", "timings", "model",
            "prompt"} == record.keys()
    assert record["duration"] == 1.9 and record["pieces"] == [{"start": 0.0, "end": 1.9}]
    assert record["usage"]["audio_tokens"] == 24  # 1.9 s at 12.5 a second, rounded up
    half = undisturbed[str(folder / "u-half.wav")]
    assert half["duration"] == 0.149 and "4778 are there" in half["notes"][0]


def test_replies_in_a_batch_are_those_of_ask(folder, undisturbed):
    for name in ("tone000.wav", "tone007.wav", "tone011.wav"):
        path = str(folder / name)
        alone = json.loads(CliRunner().invoke(cli, ["ask", path, "-p", "What?", *GREEDY, "--json"]).stdout)
        record = undisturbed[path]
        assert [record[k] for k in ("think", "answer", "finish_reason", "usage", "duration")] == [
            alone[k] for k in ("think", "answer", "finish_reason", "usage", "duration")]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_number_of_rows_changes_nothing(folder, undisturbed, tmp_path, rows):
    batch(folder, "-o", tmp_path / "out.jsonl", "-p", "What?", *GREEDY, "--max-concurrency", rows)
    other = records(tmp_path / "out.jsonl")
    assert {id_: said(r) for id_, r in other.items()} == {id_: said(r) for id_, r in undisturbed.items()}


def test_what_is_done_is_skipped_and_the_exit_code_stays(folder, undisturbed, tmp_path):
    out = tmp_path / "out.jsonl"
    ordered = [*undisturbed.values()]
    out.write_text("".join(json.dumps(r) + "\n" for r in ordered[:-3]) + json.dumps(ordered[-3])[:-9])
    again = batch(folder, "-o", out, "-p", "What?", *GREEDY)
    assert f"{len(ordered) - 3} done already" in again.stderr and again.exit_code == 3
    assert {k: said(r) for k, r in records(out).items()} == {k: said(r) for k, r in undisturbed.items()}
    before = out.read_bytes()
    third = batch(folder, "-o", out, "-p", "What?", "--model", "./nowhere")  # the model is not even loaded
    assert third.exit_code == 3 and "5 of them failed" in third.stderr and out.read_bytes() == before


def test_failures_are_tried_again_when_asked(folder, tmp_path):
    out, mine = tmp_path / "out.jsonl", tmp_path / "sounds"
    mine.mkdir()
    (mine / "a.wav").write_text("not yet")
    write_tone(mine / "b.wav", 0.5, 300)
    assert batch(mine, "-o", out, "-p", "What?", *GREEDY).exit_code == 3
    write_tone(mine / "a.wav", 0.5, 400)
    assert batch(mine, "-o", out, "-p", "What?", *GREEDY).exit_code == 3
    again = batch(mine, "-o", out, "-p", "What?", *GREEDY, "--retry-failed")
    assert again.exit_code == 0 and not any("error" in r for r in records(out).values())
    other = batch(mine, "-o", out, "-p", "Who?", *GREEDY)
    assert other.exit_code == 1 and "another question" in other.stderr
    anew = batch(mine, "-o", out, "-p", "Who?", *GREEDY, "--overwrite")
    assert anew.exit_code == 0 and {r["prompt"] for r in records(out).values()} == {"Who?"}


def test_a_manifest_with_its_prompts_and_columns(folder, tmp_path):
    rows = [
        {"audio": str(folder / "tone001.wav"), "id": "one", "prompt": "Who?", "answer": "gold", "é": [1]},
        {"audio": str(folder / "tone001.wav")},
        {"audio": "missing.wav", "id": "lost"},
        {"nothing": True},
    ]
    manifest = tmp_path / "items.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = batch(manifest, "-o", tmp_path / "out.jsonl", "-p", "What?", *GREEDY)
    found = records(tmp_path / "out.jsonl")
    assert done.exit_code == 3 and len(found) == 4
    assert found["one"]["columns"] == {"answer": "gold", "é": [1]} and found["one"]["prompt"] == "Who?"
    assert found[rows[1]["audio"]]["prompt"] == "What?" and "columns" not in found[rows[1]["audio"]]
    assert "no such file" in found["lost"]["error"]["message"]
    assert "no audio" in found[f"{manifest}:4"]["error"]["message"]
    same = batch(manifest, "-o", manifest, "-p", "What?", *GREEDY)
    assert same.exit_code == 2 and "is an input" in same.stderr


def test_samples_have_a_line_each_and_are_completed_one_by_one(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    sampling = ["-p", "What?", "--model", TINY, "--temp", "1", "--seed", "5", "-m", "8", "--num-samples", "3"]
    paths = [folder / "tone001.wav", folder / "tone002.wav"]
    assert batch(*paths, "-o", out, *sampling).exit_code == 0
    whole = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((r["id"], r["sample"]) for r in whole) == sorted((str(p), i) for p in paths for i in range(3))
    assert len({r["think"] for r in whole}) > 2
    kept = [r for r in whole if (r["id"], r["sample"]) != (str(paths[0]), 1)]
    out.write_text("".join(json.dumps(r) + "\n" for r in kept))
    assert batch(*paths, "-o", out, *sampling).exit_code == 0
    again = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((r["id"], r["sample"], r["think"]) for r in again) == sorted(
        (r["id"], r["sample"], r["think"]) for r in whole)


def test_lists_and_pipes(folder):
    listed = "\n".join([str(folder / "tone001.wav"), str(folder / "gone.wav")])
    done = batch("-", "-p", "What?", *GREEDY, stdin=listed)
    first, second = sorted(map(json.loads, done.stdout.splitlines()), key=lambda r: "error" in r)
    assert first["answer"] is not None and "error" in second and done.exit_code == 3


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["nowhere.wav", *GREEDY], 1, "nowhere.wav: no such file"),
    (["*.nothing", *GREEDY], 1, "nothing matches"),
    (["x.wav", "--model", TINY, "--temp", "-3"], 1, "temperature"),
    (["x.wav", "--model", "./nowhere"], 1, "nowhere"),
    (["x.wav", *GREEDY, "--max-kv-size", "64"], 2, "No such option"),
    (["x.wav", *GREEDY, "--chunk-seconds", "40"], 1, "29.98"),
    (["x.wav", *GREEDY, "--task", "transcribe", "--choices", "a|b"], 1, "choices"),
    (["x.wav", *GREEDY, "-o", "/dev/null/x"], 1, "/dev/null/x"),
])
def test_what_cannot_run_says_so(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = batch(*arguments)
    assert done.exit_code == code and words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recording_over_the_limit_is_refused(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    batch(folder / "tone000.wav", folder / "tone004.wav", "-o", out, "-p", "?", *GREEDY, "--limit-seconds", "1")
    found = records(out)
    assert "answer" in found[str(folder / "tone000.wav")]
    assert "limit of 1 s" in found[str(folder / "tone004.wav")]["error"]["message"]


def test_transcripts_in_a_batch_are_heard_in_windows(tmp_path):
    parts = [write_tone(tmp_path / f"{i}.wav", 10, 200).read_bytes()[44:] for i in range(3)]
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((b"\0\0" * 16_000 * 12).join(parts))
    write_tone(tmp_path / "quiet.wav", 5, 200, amplitude=0.0)
    done = batch(tmp_path / "long.wav", tmp_path / "quiet.wav", "-o", tmp_path / "o.jsonl",
                 "--task", "transcribe", "--model", TINY, "-m", "6")
    assert done.exit_code == 0
    found = records(tmp_path / "o.jsonl")
    long, quiet = found[str(tmp_path / "long.wav")], found[str(tmp_path / "quiet.wav")]
    assert [(p["start"], p["end"]) for p in long["pieces"]] == [(0.0, 10.3), (21.7, 32.3), (43.7, 54.0)]
    assert long["text"] == long["answer"] == " ".join(p["text"] for p in long["pieces"]).strip()
    assert long["usage"]["reasoning_tokens"] == 0 and long["usage"]["answer_tokens"] == 18
    assert long["silence_skipped"] == 22.8
    assert quiet["text"] == "" and quiet["pieces"] == [] and "silence" in quiet["notes"][0]


def test_a_sound_asked_about_twice_is_encoded_once(folder):
    r1 = load(TINY)
    path = str(folder / "tone003.wav")
    items = [Item(f"{i}", path, prompt) for i, prompt in enumerate(["What?", "Who?", "What?"])]
    asking = Asking(settings={"temperature": 0.0, "max_tokens": 8})
    found = {o.item.id: o.heard[0].reply for o in outcomes(r1, items, asking, Cutting())}
    assert r1.prompt_cache.encoded == 1
    assert found["0"].token_ids == found["2"].token_ids == load(TINY).ask(
        path, "What?", temperature=0.0, max_tokens=8).token_ids
    assert load(TINY).ask(path, "Who?", temperature=0.0, max_tokens=8).token_ids == found["1"].token_ids


def test_a_recording_that_cannot_fit_the_context_is_not_even_decoded(tmp_path):
    path = write_tone(tmp_path / "long.wav", 90, 200)
    config = replace(load(TINY).config.text, max_position_embeddings=500)
    cut = cutting(replace(load(TINY).config, text=config), "ask", 25.0)
    assert cut.fits == 40.0
    [broken] = hear([Item("a", str(path))], cut)
    assert "at most 40 seconds fit" in str(broken.error)


def test_a_reply_is_kept_within_the_memory_there_is(folder):
    r1 = load(TINY)
    items = [Item("a", str(folder / "tone003.wav"))]
    asking = Asking(prompt="What?", settings={"temperature": 0.0})
    [outcome] = outcomes(r1, items, asking, Cutting(), room=600)
    usage = outcome.heard[0].reply.usage
    written = usage.reasoning_tokens + usage.answer_tokens
    assert outcome.heard[0].reply.finish_reason in ("length", "loop", "stop")
    assert usage.prompt_tokens + written <= 600


# Killed


def start(inputs: list[Path], out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", "batch", *map(str, inputs),
         "-o", str(out), "-p", "What?", *GREEDY, "--max-concurrency", "2", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )


@pytest.fixture
def never(tmp_path) -> Path:
    """A recording that nobody writes: a run that comes to it cannot end by itself, however slow its killer."""
    path = tmp_path / "never.wav"
    os.mkfifo(path)
    return path


def lines_of(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def wait_for_lines(process: subprocess.Popen, out: Path, count: int) -> None:
    while lines_of(out) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)


def kill_until_done(folder: Path, never: Path, out: Path, total: int, kills: int, rng: random.Random) -> None:
    """Kill the run at random moments, and tear its last line as a lost page would."""
    for _ in range(kills):
        process = start([folder, never], out)
        wait_for_lines(process, out, min(total, lines_of(out) + rng.randint(1, max(1, total // (kills + 1)))))
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        whole = out.read_bytes()
        out.write_bytes(whole[: len(whole) - rng.choice([0, 1, 30])])
    last = start([folder], out)
    last.communicate()
    assert last.returncode == 3


def test_a_run_killed_at_random_moments_ends_complete_and_right(folder, undisturbed, never, tmp_path):
    out = tmp_path / "out.jsonl"
    kill_until_done(folder, never, out, total=len(undisturbed), kills=3, rng=random.Random(4))
    assert {id_: said(r) for id_, r in records(out).items()} == {id_: said(r) for id_, r in undisturbed.items()}


def test_ctrl_c_ends_cleanly_with_what_is_done(folder, undisturbed, never, tmp_path):
    out = tmp_path / "out.jsonl"
    paths = [Path(id_) for id_ in undisturbed]
    process = start([*paths[:8], never, *paths[8:]], out, "-m", "400", "--thinking-budget", "300")
    wait_for_lines(process, out, 3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130 and b"Traceback" not in stderr
    assert b"run the same command to go on" in stderr
    found = records(out)  # every line whole
    assert 3 <= len(found) <= 8 and found.keys() <= {*map(str, paths[:8])}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_files_killed_eight_times(never, tmp_path):
    folder = fill(tmp_path / "sounds", 494)
    calm = tmp_path / "calm.jsonl"
    process = start([folder], calm)
    process.communicate()
    assert process.returncode == 3
    expected = records(calm)
    assert len(expected) == 500
    out = tmp_path / "out.jsonl"
    kill_until_done(folder, never, out, total=500, kills=8, rng=random.Random(1))
    assert {id_: said(r) for id_, r in records(out).items()} == {id_: said(r) for id_, r in expected.items()}
    shutil.rmtree(folder)
