"""report.html of a run: what was learnt, at what cost, and what the model says before and after.

Made from the files of the run alone (metrics.jsonl, train_config.json, samples.jsonl), so it can be
made at any moment: before the first row, while the run goes on, after it died.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mlx_audio_r1 import __version__
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import write_file
from mlx_audio_r1.report import page, plots
from mlx_audio_r1.report.page import Html, Section
from mlx_audio_r1.report.plots import Line
from mlx_audio_r1.report.samples import Reply, Sample, samples
from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.config import TrainConfig

CONFIG, SAMPLES, REPORT = "train_config.json", "samples.jsonl", "report.html"
RL_PLOTS = (  # caption, keys of metrics.jsonl, axis; here what reinforcement learning has of its own
    ("Reward", ("reward", "val_reward"), "zero"),
    ("Accuracy", ("accuracy", "val_accuracy"), "share"),
    ("Replies that reason", ("reasoning", "val_reasoning"), "share"),
    ("Tokens of a reply, and of its reasoning", ("length", "thinking_length", "val_length"), "zero"),
    ("Replies without an end, or without an answer that can be read", ("truncated", "unparsed"), "zero"),
    ("Entropy of the policy, nats a token", ("entropy",), "zero"),
    ("Tokens without a gradient because of the clip, share", ("clipped",), "zero"),
    ("Sampled against learnt: difference of log-probabilities", ("rollout_diff",), "zero"),
    ("Sampled against learnt: divergence, nats a token", ("rollout_kl",), "zero"),
    ("Sampled against learnt: largest ratio", ("max_rollout_ratio",), "log"),
    ("Divergence within a batch of rollouts, nats a token", ("update_kl",), "zero"),
    ("Divergence from the policy at the start, nats a token", ("reference_kl",), "zero"),
    ("Loss of the values", ("value_loss",), "log"),
    ("Variance of the rewards that the values explain", ("value_explained",), "linear"),
)
PLOTS = (
    *RL_PLOTS,
    ("Loss", ("loss", "val_loss"), "log"),
    ("Learning rate", ("learning_rate",), "zero"),
    ("Tokens a second", ("tokens_per_second", "sampled_per_second"), "zero"),
    ("Peak memory, GB", ("peak_memory_gb",), "zero"),
    ("Norm of the gradient before clipping", ("norm",), "log"),
)
NOT_PLOTTED = {"step", "tokens", "seconds"}
UNLESS_ZERO = {"clipped", "update_kl", "reference_kl"}  # as they are with one update a batch, and no KL
NAMES = {
    "loss": "training loss", "val_loss": "validation loss", "length": "reply", "thinking_length": "reasoning",
    "val_length": "validation reply", "truncated": "no end", "unparsed": "not to be read",
    "tokens_per_second": "learnt", "sampled_per_second": "sampled",
}  # fmt: skip
TILES = {"reward": "reward", "accuracy": "accuracy", "length": "tokens of a reply"}  # of the rewarded replies
UNTOLD = {"val_thinking_length", "val_truncated", "val_unparsed", "val_length", "val_reasoning"}  # in no tile
SHOWN_REPLIES = 3  # of a question: the first, one in the middle, the last
RISE = 1.02  # times the least validation loss: from there a report says that the run went past it
SHOWN_STEPS = 8  # steps that a warning lists

Row = Mapping[str, Any]


def write_report(folder: Path | str) -> Path:
    """Make `folder`/report.html and tell where it is. Raises TrainingError when there is no run."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in (CONFIG, metrics.FILE)):
        raise TrainingError(f"{folder}: no {metrics.FILE} and no {CONFIG}; give the folder of a training run")
    config = _config(folder / CONFIG)
    rows = [row for row in metrics.read(folder) if isinstance(row, dict) and _number(row.get("step"))]
    sections = [
        Section("Outcome", _outcome(config, rows)),
        Section("Over the run", _plots(rows)),
        Section("The same questions over the run", samples(_samples(folder))),
        *_facts(config),
        Section("Settings", _settings(config)),
    ]
    title = f"Training report: {folder.resolve().name}"
    text = page.page(title, _subtitle(config, rows), sections, f"mlx-audio-r1 {__version__}, {folder}")
    write_file(folder / REPORT, text)
    return folder / REPORT


# ---- outcome


def _subtitle(config: Row, rows: Sequence[Row]) -> str:
    """What was trained, and how far it is."""
    step, steps = max((row["step"] for row in rows), default=0), config.get("iters")
    far = f"step {step:,} of {steps:,}" if _number(steps) else f"step {step:,}"
    what = [config.get("train_mode"), config.get("fine_tune_type"), config.get("model") or "the default model"]
    return ", ".join([*(str(word) for word in what if word), far])


def _outcome(config: Row, rows: Sequence[Row]) -> list[Html]:
    if not rows:
        return [page.note("No step has been reported yet.")]
    train, val = series(rows, "loss"), series(rows, "val_loss")
    speeds, tokens = [v for _, v in series(rows, "tokens_per_second").finite], series(rows, "tokens").finite
    measured = [key for key in _extras(rows) if key.startswith(("val_", "test_")) and key not in UNTOLD]
    rewarded = any("reward" in row for row in rows)  # its loss falls or rises by nothing that was learnt
    tiles = {
        "steps": f"{max(row['step'] for row in rows):,}",
        **{name: _from_to(series(rows, key)) for key, name in TILES.items() if rewarded},
        "training loss": None if rewarded else _from_to(train),
        "validation loss": _from_to(val),
        **{_name(key): _from_to(series(rows, key)) for key in measured},
        "tokens read": f"{sum(v for _, v in tokens):,.0f}" if tokens else None,
        "tokens a second, median": sorted(speeds)[len(speeds) // 2] if speeds else None,
        "peak memory": memory(max((v for _, v in series(rows, "peak_memory_gb").finite), default=None)),
        "time": duration(max((v for _, v in series(rows, "seconds").finite), default=None)),
    }
    told = {name: value for name, value in tiles.items() if value is not None}
    return [page.tiles(told), *(page.note(line, warning=True) for line in _warnings(rows, val))]


def _warnings(rows: Sequence[Row], val: Line) -> Iterable[str]:
    """What somebody who reads the plots in haste would miss."""
    odd = sorted({row["step"] for row in rows if not all(map(math.isfinite, filter(_number, row.values())))})
    if odd:
        listed = ", ".join(f"{step:,}" for step in odd[:SHOWN_STEPS]) + ", ..." * (len(odd) > SHOWN_STEPS)
        yield f"Not a number at step {listed}: lower the learning rate or look at the rows of the data there."
    if val.finite:
        step, least = min(val.finite, key=lambda pair: pair[1])
        last = val.finite[-1][1]
        if last > RISE * least > 0:
            rose = f"The validation loss was least, {least:.4g}, at step {step:,} and is {last:.4g} at the end"
            yield f"{rose}: train for fewer steps, or on more data."


def _from_to(line: Line) -> str | None:
    """First and last value."""
    if not line.values:
        return None
    first, last = line.values[0], line.values[-1]
    return f"{first:.4g}" if len(line.values) == 1 else f"{first:.4g} → {last:.4g}"


def duration(seconds: float | None) -> str | None:
    """3725 -> 1 h 2 min."""
    if seconds is None:
        return None
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{seconds:.1f} s"


def memory(gigabytes: float | None) -> str | None:
    """22.4 GB, 30.7 MB."""
    if gigabytes is None:
        return None
    return f"{gigabytes:.3g} GB" if gigabytes >= 0.1 else f"{gigabytes * 1e3:.3g} MB"


# ---- plots


def _plots(rows: Sequence[Row]) -> list[Html]:
    if not rows:
        return []
    lacking = plots.missing()
    if lacking:
        return [page.note(lacking)]
    known = {key for _, keys, _ in PLOTS for key in keys}
    extras = [key for key in _extras(rows) if not key.startswith("test_")
              and key not in known and key.removeprefix("val_") not in known]  # fmt: skip
    pairs = dict.fromkeys(key.removeprefix("val_") for key in extras)
    wanted = [*PLOTS, *((_name(key).capitalize(), (key, f"val_{key}"), "linear") for key in pairs)]
    drawn = []
    for caption, keys, axis in wanted:
        lines = [line for key in keys if (line := series(rows, key)).values]
        if lines and not (keys[0] in UNLESS_ZERO and not any(lines[0].values)):
            drawn.append((caption, plots.line_plot(lines, _read_aloud(caption, lines), axis)))
    return [page.plots(drawn)]


def _read_aloud(caption: str, lines: Sequence[Line]) -> str:
    said = (f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
    return f"{caption} over steps: {'; '.join(said)}"


def series(rows: Sequence[Row], key: str) -> Line:
    """The values of a key over steps."""
    pairs = [(row["step"], float(row[key])) for row in rows if _number(row.get(key))]
    return Line(_name(key), [s for s, _ in pairs], [v for _, v in pairs])


def _extras(rows: Sequence[Row]) -> list[str]:
    """Keys with numbers, in the order they came."""
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if _number(v) and k not in NOT_PLOTTED))


def _name(key: str) -> str:
    words = key.replace("val_", "validation ", 1) if key.startswith("val_") else key
    return NAMES.get(key, words.replace("_", " "))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- samples


def _samples(folder: Path) -> list[Sample]:
    """Replies of each question, early, halfway and late, in the order they were asked."""
    asked: dict[tuple[str, str], list[Row]] = {}
    for row in _lines(folder / SAMPLES):
        asked.setdefault((_text(row.get("where")), _text(row.get("prompt"))), []).append(row)
    return [_sample(folder, where, prompt, replies) for (where, prompt), replies in asked.items()]


def _sample(folder: Path, where: str, prompt: str, rows: Sequence[Row]) -> Sample:
    rows = sorted(rows, key=lambda row: row["step"] if _number(row.get("step")) else 0)
    shown = _spread(rows)
    replies = [Reply(_when(r.get("step")), _text(r.get("think")), _text(r.get("answer"))) for r in shown]
    audio = shown[0].get("audio") or []
    sounds = [_sound(folder, _text(name)) for name in (audio if isinstance(audio, list) else [audio])]
    return Sample(where, sounds, prompt, _text(shown[0].get("expected")), replies)


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    """The first, one halfway, the last; all where there are no more."""
    return rows if len(rows) <= SHOWN_REPLIES else [rows[0], rows[len(rows) // 2], rows[-1]]


def _sound(folder: Path, name: str) -> Path | str:
    """A data URI as it is; a path as it is, or from the run's folder where it is found there alone."""
    if name.startswith("data:"):
        return name
    there = not os.path.exists(name) and os.path.exists(folder / name)
    return folder / name if there else Path(name)


def _when(step: Any) -> str:
    return f"after {step:,} steps" if _number(step) and step else "before training"


def _lines(path: Path) -> list[Row]:
    """The objects of a JSONL file; what a kill tore is left out."""
    if not path.is_file():
        return []
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# ---- settings and data


def _config(path: Path) -> Row:
    """The resolved settings; none where the file is missing. Raises TrainingError."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path}: not JSON ({error}); the run would write it anew") from None
    return config if isinstance(config, dict) else {}


def _is_fact(name: str, value: Any) -> bool:
    """Facts are the mappings that are no setting: `data` is a path in TrainConfig."""
    mappings = {f.name for f in fields(TrainConfig) if "dict" in str(f.type)}
    return isinstance(value, Mapping) and name not in mappings


def _facts(config: Row) -> list[Section]:
    found = ((name, value) for name, value in config.items() if _is_fact(name, value) and value)
    return [Section(name.replace("_", " ").capitalize(), [_table(value)]) for name, value in found]


def _table(facts: Row) -> Html:
    """Mappings side by side where all are (a split a row), else names and values."""
    if not all(isinstance(value, Mapping) for value in facts.values()):
        return page.facts({name.replace("_", " "): value for name, value in facts.items()})
    columns = list(dict.fromkeys(key for value in facts.values() for key in value))
    rows = [[name, *(value.get(key) for key in columns)] for name, value in facts.items()]
    return page.grid(["", *(column.replace("_", " ") for column in columns)], rows)


def _settings(config: Row) -> list[Html]:
    told = {name: value for name, value in config.items() if not _is_fact(name, value)}
    return [page.facts(told)] if told else []
