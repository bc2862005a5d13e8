"""Importing: what the folder has, what the report counts, versions by digest, one line for what is broken."""

import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mlx_audio_r1.audio import duration
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench
from mlx_audio_r1.evaluate.benches import bench
from mlx_audio_r1.evaluate.detect import detect
from mlx_audio_r1.evaluate.import_report import REPORT, read_report
from mlx_audio_r1.evaluate.importing import ImportOptions, import_bench
from mlx_audio_r1.evaluate.pinning import file_sha256, fingerprint, question_key
from mlx_audio_r1.tasks.item_files import read_items
from tests.evaluate import layouts

ALLOW = ImportOptions(allow_missing=True)


def items_of(folder: Path):
    return list(read_items(folder / "items.jsonl"))


def sounds_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "audio").iterdir()}


def small(name: str, path: Path, **more) -> Bench:
    """The bench as if its real data set had the questions of `path`."""
    count = sum(1 for _ in bench(name).read(path))
    return replace(bench(name), expected={"": {"": count}}, **more)


# Every layout


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout_is_imported_and_recognised(tmp_path, layout):
    name, make, parquet = layouts.LAYOUTS[layout]
    if parquet:
        pytest.importorskip("pyarrow")
    path, out = make(tmp_path / "download"), tmp_path / "out"
    report = import_bench(bench(name), path, out, ImportOptions(check_audio=True))
    items = items_of(out)
    assert detect(path).name == name
    assert report == read_report(out) and report.items == len(items) == sum(1 for _ in bench(name).read(path))
    assert not report.left_out and not report.damaged
    assert len({item.uid for item in items}) == len(items)
    for item in items:
        # an MP3 decodes to whole frames of 576 samples at 24 kHz, up to two more than went in
        assert duration(item.sounds[0].source) == pytest.approx(0.2, abs=0.06)
        assert item.bench == name and item.version == report.version and item.extra["profile"]


# The folder


def test_sounds_that_are_files_stay_and_are_found_from_the_folder(tmp_path):
    path, out = layouts.mmau_json(tmp_path / "a" / "MMAU"), tmp_path / "a" / "b" / "mmau"
    import_bench(bench("mmau"), path, out)
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    first = lines[0]["turns"][0]["parts"][2]["audio"]
    assert first == "../../MMAU/test-mini-audios/00-mmau.wav"
    assert not (out / "audio").exists()
    shutil.move(tmp_path / "a", tmp_path / "moved")
    moved = items_of(tmp_path / "moved" / "b" / "mmau")
    assert all(Path(item.sounds[0].source).is_file() for item in moved)


def test_sounds_in_parquet_become_files_named_by_their_content(tmp_path):
    pytest.importorskip("pyarrow")
    import_bench(bench("mmau"), layouts.mmau_parquet(tmp_path / "p"), tmp_path / "out")
    kinds = [path.suffix for path in sorted((tmp_path / "out" / "audio").iterdir())]
    assert kinds == [".wav", ".mp3", *[".wav"] * 6]


def test_an_array_of_samples_is_a_sound_too(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.mmau_rows(1)
    samples = layouts.tone(3, 8_000)
    made = {**{k: rows[0][k] for k in ("question", "choices", "answer")},
            "audio": {"array": samples.tolist(), "sampling_rate": 8_000}}  # fmt: skip
    layouts.write_parquet(tmp_path / "p" / "x.parquet", [made])
    import_bench(bench("mmau"), tmp_path / "p", tmp_path / "out")
    read, rate = soundfile.read(items_of(tmp_path / "out")[0].sounds[0].source, dtype="float32")
    assert rate == 8_000
    assert np.abs(read - samples).max() <= 1 / 32_767  # a step of 16 bits


def test_names_that_differ_in_case_alone_do_not_share_a_file(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.mmau_rows(3)
    rows[0]["id"], rows[1]["id"], rows[2]["id"] = "x/A", "x/a", "x?a"
    import_bench(bench("mmau"), layouts.mmau_parquet(tmp_path / "p", rows), tmp_path / "out")
    places = [item.sounds[0].source for item in items_of(tmp_path / "out")]
    assert len({Path(place).name.lower() for place in places}) == 3


def test_importing_again_writes_the_folder_anew(tmp_path):
    path, out = layouts.mmau_json(tmp_path / "p"), tmp_path / "out"
    import_bench(bench("mmau"), path, out)
    before = (out / "items.jsonl").read_text()
    import_bench(bench("mmau"), path, out)
    assert (out / "items.jsonl").read_text() == before
    with pytest.raises(EvaluationError, match="holds an import of mmau"):
        import_bench(bench("mmar"), layouts.mmar_jsonl(tmp_path / "q"), out)


def test_what_is_no_import_is_not_written_over(tmp_path):
    path = layouts.write_jsonl(tmp_path / "items.jsonl", layouts.generic_rows()[:1])
    layouts.write(tmp_path / "a.wav", layouts.wav(1))
    with pytest.raises(EvaluationError, match=r"items\.jsonl: is there already and of no import"):
        import_bench(bench("generic"), path, tmp_path)
    assert json.loads(path.read_text()) == layouts.generic_rows()[0]


def test_an_import_that_fails_leaves_no_items(tmp_path):
    rows = layouts.mmau_rows()
    rows[-1]["answer"] = "a tuba"
    with pytest.raises(EvaluationError):
        import_bench(bench("mmau"), layouts.mmau_json(tmp_path / "p", rows), tmp_path / "out")
    assert not (tmp_path / "out" / "items.jsonl").exists()


@pytest.mark.long
def test_an_import_killed_at_any_moment_ends_the_same_when_repeated(tmp_path):
    pytest.importorskip("pyarrow")
    layouts.mmau_parquet(tmp_path / "p", layouts.mmau_rows(4) + [
        {**row, "id": f"{n}-{row['id']}"} for n in range(400) for row in layouts.mmau_rows(4)
    ])  # fmt: skip
    code = "from mlx_audio_r1.cli.main import main; main()"
    command = [sys.executable, "-c", code, "eval", "import", "mmau", str(tmp_path / "p"), "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = 0
    for moment in range(8):
        out = tmp_path / f"out{moment}"
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("audio/*"))) <= 180 * moment:
            time.sleep(0.001)
        process.kill()
        if process.wait():
            killed += 1
            assert not (out / "items.jsonl").exists()
        subprocess.run([*command, str(out)], check=True, capture_output=True)
        assert (out / "items.jsonl").read_bytes() == (tmp_path / "whole" / "items.jsonl").read_bytes()
        assert sounds_in(out) == sounds_in(tmp_path / "whole")
    assert killed >= 4


# Versions and comparability


def test_a_known_version_with_all_its_questions_is_comparable(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    sha = file_sha256(path / "mmau-test-mini.json")
    known = small("mmau", path, versions={sha: "v05.15.25"})
    report = import_bench(known, path, tmp_path / "out")
    assert report.comparable and report.reasons == ()
    assert items_of(tmp_path / "out")[0].version == f"v05.15.25/{sha[:8]}"


def test_an_old_version_is_named(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    old = small("mmau", path, versions={file_sha256(path / "mmau-test-mini.json"): "2025-03-25"})
    report = import_bench(old, path, tmp_path / "out")
    assert report.reasons == ("version 2025-03-25, published numbers are of v05.15.25",)


def test_an_unknown_version_is_said_to_be_unknown(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    report = import_bench(small("mmau", path), path, tmp_path / "out")
    assert report.reasons == ("an unknown version, published numbers are of v05.15.25",)
    assert report.version.startswith("unknown/")


def test_the_same_questions_in_another_file_are_the_same_version(tmp_path):
    pytest.importorskip("pyarrow")
    path = layouts.mmau_json(tmp_path / "p")
    print_ = fingerprint(map(question_key, bench("mmau").read(path)))
    known = small("mmau", path, versions={print_: "v05.15.25"})
    for make in (layouts.mmau_parquet, layouts.mmau_others):
        report = import_bench(known, make(tmp_path / make.__name__), tmp_path / f"{make.__name__}-out")
        assert report.comparable, report.reasons


def test_what_is_wrong_with_an_old_file_is_told_with_its_version(tmp_path):
    rows = layouts.mmau_rows()
    rows[0]["answer"] = "a tuba"
    path = layouts.mmau_json(tmp_path / "p", rows)
    old = replace(bench("mmau"), versions={file_sha256(path / "mmau-test-mini.json"): "2025-05-16"})
    with pytest.raises(EvaluationError, match=r"none of the choices .* \(the file is version 2025-05-16"):
        import_bench(old, path, tmp_path / "out")


def test_counts_stand_beside_what_they_should_be(tmp_path):
    path = layouts.mmau_json(tmp_path / "p", layouts.mmau_rows(7))
    report = import_bench(bench("mmau"), path, tmp_path / "out")
    assert report.counts["task"] == {"music": 2, "sound": 3, "speech": 2}
    assert report.counts["sub_category"] == {"Kind 0": 4, "Kind 1": 3}
    assert "7 of 1000 items" in report.reasons and "3 of 333 sound" in report.reasons


# What is missing


def test_missing_sounds_are_counted_and_the_first_is_named(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    for name in ("02-mmau.wav", "05-mmau.wav"):
        (path / "test-mini-audios" / name).unlink()
    told = r"2 of 8 sounds .*first of mmau:test-mini:02-mmau.*is not there.*--allow-missing"
    with pytest.raises(EvaluationError, match=told):
        import_bench(bench("mmau"), path, tmp_path / "out")
    report = import_bench(bench("mmau"), path, tmp_path / "out", ALLOW)
    assert [uid for uid, _ in report.left_out] == ["mmau:test-mini:02-mmau", "mmau:test-mini:05-mmau"]
    assert report.items == 6 == len(items_of(tmp_path / "out"))
    assert "2 items without sound" in report.reasons


def test_a_sound_that_is_none_counts_as_missing(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    (path / "test-mini-audios" / "03-mmau.wav").write_text("<html>404</html>")
    report = import_bench(bench("mmau"), path, tmp_path / "out", ALLOW)
    assert [uid for uid, _ in report.left_out] == ["mmau:test-mini:03-mmau"]
    assert "cannot be opened" in report.left_out[0][1]


def test_a_row_without_a_sound_counts_as_missing(tmp_path):
    pytest.importorskip("pyarrow")
    rows = layouts.spoken_mqa_rows("short_digit", 3)
    rows[1]["context"] = {"bytes": None, "path": None}
    layouts.write_parquet(tmp_path / "p" / "short_digit.parquet", rows)
    report = import_bench(bench("spoken-mqa"), tmp_path / "p", tmp_path / "out", ALLOW)
    assert report.left_out == (("spoken-mqa:short_digit:1", "its row has no sound"),)


def test_where_nothing_can_be_heard_there_is_nothing_to_allow(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    shutil.rmtree(path / "test-mini-audios")
    with pytest.raises(EvaluationError, match="8 of 8 sounds"):
        import_bench(bench("mmau"), path, tmp_path / "out", ALLOW)


def test_damage_is_found_by_decoding(tmp_path):
    path = layouts.mmau_json(tmp_path / "p")
    file = io.BytesIO()
    soundfile.write(file, layouts.tone(1, 48_000), 48_000, format="FLAC")
    whole = file.getvalue()
    (path / "test-mini-audios" / "04-mmau.wav").write_bytes(whole[: len(whole) // 2])
    assert not import_bench(bench("mmau"), path, tmp_path / "quick").damaged
    report = import_bench(bench("mmau"), path, tmp_path / "out", ImportOptions(check_audio=True))
    assert [uid for uid, _ in report.damaged] == ["mmau:test-mini:04-mmau"]
    assert report.items == 8


# Broken layouts: one line, with the place


def spoiled(**changes):
    """MMAU's rows with the third one changed; None takes a column away."""
    rows = layouts.mmau_rows()
    rows[2] = {k: v for k, v in {**rows[2], **changes}.items() if v is not None}
    return rows


BROKEN = {
    "no answer": (spoiled(answer=None), r"mmau-test-mini\.json: item 3: no answer; there are id, audio_id"),
    "gold": (spoiled(answer="a tuba"), r"item 3: answer 'a tuba' is none of the choices \(rain, rain"),
    "one choice": (spoiled(choices=["rain"], answer="rain"), "item 3: 1 choices: expected 2 to 26"),
    "empty choice": (spoiled(choices=["rain", "", "x"], answer="rain"), "item 3: a choice is empty"),
    "choices": (spoiled(choices="rain"), "item 3: choices 'rain': expected a list"),
    "nested": (spoiled(choices=[["rain"], "x"], answer="x"), "item 3: choices .*: expected text"),
    "twice": (spoiled(id="00-mmau"), "questions 1 and 3 have the same id '00-mmau'; is the download there tw"),
    "other bench": (spoiled(task=None), "item 3: no task and difficulty: this is no file of MMAU"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_row_is_one_line_with_its_place(tmp_path, case):
    rows, message = BROKEN[case]
    with pytest.raises(EvaluationError, match=message) as found:
        import_bench(bench("mmau"), layouts.mmau_json(tmp_path / "p", rows), tmp_path / "out")
    assert "\n" not in str(found.value)


BROKEN_FILES = {
    "empty": (b"", "mmau-test-mini.json: is empty"),
    "list": (b"[]", "mmau-test-mini.json: an empty list"),
    "json": (b'[{"id": "a"},\n {"id" "b"}]', r"mini\.json: is not JSON \(Expecting ':' delimiter, line 2"),
    "lines": (b'{"task": "sound"', r"mmau-test-mini.json:1: is not JSON \("),
    "object": (b"[1, 2]", "mmau-test-mini.json: item 1: expected an object"),
    "bytes": (b"\xff\xfe\x00", "mmau-test-mini.json: is not UTF-8"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "is a Git LFS pointer"),
    "deep": (b"[" * 100_000, "mmau-test-mini.json: is not"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_a_broken_file_is_one_line(tmp_path, case):
    content, message = BROKEN_FILES[case]
    layouts.write(tmp_path / "p" / "mmau-test-mini.json", content)
    with pytest.raises(EvaluationError, match=message) as found:
        import_bench(bench("mmau"), tmp_path / "p", tmp_path / "out")
    assert "\n" not in str(found.value)


def test_a_folder_without_the_benchmark_says_what_is_looked_for(tmp_path):
    (tmp_path / "p").mkdir()
    looked_for = {"mmau": r"no mmau-test-mini\.json and no parquet", "mmsu": r"no question/mmsu\.jsonl",
                  "mmar": r"no MMAR-meta\.jsonl", "big-bench-audio": r"no metadata\.jsonl",
                  "spoken-mqa": "no parquet file", "generic": r"no items\.jsonl"}  # fmt: skip
    for name, wanted in looked_for.items():
        with pytest.raises(EvaluationError, match=wanted):
            import_bench(bench(name), tmp_path / "p", tmp_path / "out")
    with pytest.raises(EvaluationError, match="no such file or folder"):
        import_bench(bench("mmar"), tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(EvaluationError, match="mmau: give the path of your download"):
        import_bench(bench("mmau"), None, tmp_path / "out")


def test_a_missing_column_of_parquet_is_named_with_those_that_are_there(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in layouts.spoken_mqa_rows("short_digit")]
    path = layouts.write_parquet(tmp_path / "short_digit.parquet", rows)
    with pytest.raises(EvaluationError, match=r"short_digit\.parquet: no column answer; it has context, "):
        import_bench(bench("spoken-mqa"), path, tmp_path / "out")


def test_a_parquet_file_that_is_none_is_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    path = layouts.write(tmp_path / "x.parquet", b"PAR1 and then something else PAR1")
    with pytest.raises(EvaluationError, match=r"x\.parquet: cannot be read as parquet \(") as found:
        import_bench(bench("spoken-mqa"), path, tmp_path / "out")
    assert "\n" not in str(found.value)


def test_without_pyarrow_the_line_says_what_to_install(tmp_path, monkeypatch):
    layouts.write(tmp_path / "x.parquet", b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(EvaluationError, match=r"pip install 'mlx-audio-r1\[eval\]'"):
        import_bench(bench("spoken-mqa"), tmp_path / "x.parquet", tmp_path / "out")


def test_a_broken_report_is_one_line(tmp_path):
    layouts.write(tmp_path / REPORT, b'{"bench": "mmau"}')
    with pytest.raises(EvaluationError, match="import the benchmark again"):
        read_report(tmp_path)


# Which benchmark is it?


def test_what_nothing_reads_is_told_apart_from_what_is_not_there(tmp_path):
    layouts.write_jsonl(tmp_path / "p" / "x.jsonl", [{"nothing": 1}])
    with pytest.raises(EvaluationError, match="no benchmark has this layout"):
        detect(tmp_path / "p")
    with pytest.raises(EvaluationError, match="no such file"):
        detect(tmp_path / "q")
