"""Copies of metrics.jsonl: each step stands in them once, whatever ended the run."""

import json
import math
import struct
import sys

import pytest

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.sinks import TENSORBOARD, WANDB_NOTE, sinks

CONFIG = {"iters": 40, "lora_parameters": {"rank": 4}}


def train_row(step, loss=0.5):
    return {"step": step, "loss": loss, "norm": 1.0, "seconds": 2.0 * step}


ROWS = [{"step": 0, "val_loss": 2.0}, train_row(10), train_row(20, 0.25), {"step": 20, "val_loss": 1.5}]


class Run:
    """metrics.jsonl and one sink, as the trainer serves them; `go_on` is what a resumed run does first."""

    def __init__(self, folder, name):
        self.folder, self.path = folder, folder / "metrics.jsonl"
        self.sinks = sinks(name, folder, "sounds", CONFIG)

    def write(self, rows):
        for row in rows:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            for sink in self.sinks:
                sink(row)
        return self

    def close(self):
        for sink in self.sinks:
            sink.close()

    @classmethod
    def go_on(cls, folder, name, step):
        """From the checkpoint of a step: later rows are dropped."""
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows if r["step"] <= step))
        return cls(folder, name)


def events(folder):
    """(name, step, value, time) of every scalar TensorBoard would read: the files in the order of names."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / TENSORBOARD).glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)  # then its checksum, the event, the event's checksum
            event = Event.FromString(data[at + 12 : at + 12 + size])
            scalars = (v for v in event.summary.value if v.WhichOneof("value") == "simple_value")
            found += [(v.tag, event.step, v.simple_value, event.wall_time) for v in scalars]
            at += size + 16
    return found


def without_time(found):
    return [event[:3] for event in found]


def expected(rows):
    """The scalars of rows in the sink's names."""
    scalars = []
    for row in rows:
        for key, value in row.items():
            if key != "step":
                name = f"val/{key[4:]}" if key.startswith("val_") else f"train/{key}"
                scalars.append((name, row["step"], value))
    return scalars


def test_nothing_is_reported_unless_asked_for(tmp_path):
    assert sinks(None, tmp_path, None, {}) == sinks("", tmp_path, None, {}) == []


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="report_to is 'mlflow'; choose from tensorboard, wandb"):
        sinks("tensorboard, mlflow", tmp_path, None, {})


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(TrainingError) as refusal:
        sinks(name, tmp_path, None, {})
    line = str(refusal.value)
    assert f"pip install 'mlx-audio-r1[{name}]'" in line and package in line and "\n" not in line


def test_tensorboard_has_every_number_of_every_row(tmp_path):
    pytest.importorskip("tensorboardX")
    Run(tmp_path, "tensorboard").write(ROWS).close()
    assert without_time(events(tmp_path)) == expected(ROWS)
    assert math.isnan(_loss_of_nan(tmp_path / "nan"))


def _loss_of_nan(folder):
    folder.mkdir()
    Run(folder, "tensorboard").write([train_row(1, math.nan)]).close()
    return events(folder)[0][2]


def test_tensorboard_shows_each_step_once_after_a_kill_and_its_time(tmp_path):
    pytest.importorskip("tensorboardX")
    Run(tmp_path, "tensorboard").write(ROWS).close()
    again = [train_row(20, 0.25), {"step": 20, "val_loss": 1.5}, train_row(30)]
    Run.go_on(tmp_path, "tensorboard", step=10).write(again).close()
    found = events(tmp_path)
    assert without_time(found) == expected([*ROWS[:2], *again])
    when = {(name, step): time for name, step, _, time in found}
    assert when["train/loss", 20] - when["train/loss", 10] == pytest.approx(20, abs=1e-3)


def test_tensorboard_forgets_a_run_that_was_overwritten(tmp_path):
    pytest.importorskip("tensorboardX")
    Run(tmp_path, "tensorboard").write(ROWS).close()
    (tmp_path / "metrics.jsonl").unlink()
    Run(tmp_path, "tensorboard").write(ROWS[:1]).close()
    assert without_time(events(tmp_path)) == expected(ROWS[:1])


# ---- wandb, offline: what it was told stands in its own file


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def logged(folder):
    """(run id, row) of everything wandb keeps for `wandb sync`."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # waits for its writer
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for record in map(Record.FromString, records(path.read_bytes())):
            if record.WhichOneof("record_type") == "history":
                items = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                found.append((path.stem.removeprefix("run-"), {k: v for k, v in items.items() if k[0] != "_"}))
    return found


def records(data, header=7, block=32_768):
    """Payloads of a LevelDB log, which wandb's files are: blocks of records, each with 7 bytes before it."""
    at, parts = header, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # too little for a record: filled with zeros
            at += block - at % block
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_gets_each_row_once_in_one_run_after_a_kill(tmp_path, offline):
    Run(tmp_path, "wandb").write(ROWS[:3]).close()
    again = [train_row(20, 0.25), {"step": 20, "val_loss": 1.5}, train_row(30)]
    Run.go_on(tmp_path, "wandb", step=10).write(again).close()
    found = logged(tmp_path)
    assert [(row["step"], "val/loss" in row) for _, row in found] == [
        (0, True), (10, False), (20, False), (20, True), (30, False)]
    assert len({run for run, _ in found}) == 1
    assert found[1][1] == {"step": 10, "train/loss": 0.5, "train/norm": 1.0, "train/seconds": 20.0}
    assert json.loads((tmp_path / WANDB_NOTE).read_text())["sent"] == [30, False]


def test_wandb_begins_a_new_run_where_the_old_one_was_overwritten(tmp_path, offline):
    for _ in range(2):
        Run(tmp_path, "wandb").write(ROWS[:1]).close()
        (tmp_path / "metrics.jsonl").unlink()
    assert len({run for run, _ in logged(tmp_path)}) == 2
