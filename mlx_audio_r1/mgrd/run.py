"""A whole run of MGRD: its phases one after the other, into one folder.

    outcome = run(read_config(Path("mgrd.yaml")), Path("run"))

Run again, it goes on where it was: phases that are done are passed over, the one that was killed finds its
own files. Another configuration in the same folder is refused, except for more rounds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.files import disk_errors, write_file
from mlx_audio_r1.mgrd.config import FREE_TO_CHANGE, MGRDConfig
from mlx_audio_r1.mgrd.journal import Journal, Stopped
from mlx_audio_r1.mgrd.report import write_report
from mlx_audio_r1.mgrd.rounds import phases_of
from mlx_audio_r1.mgrd.run_files import CONFIG, read_object
from mlx_audio_r1.mgrd.work import Work, train_file
from mlx_audio_r1.train.folder import digest_of
from mlx_audio_r1.train.rows import find_splits
from mlx_audio_r1.train.watch import Silent, Watcher


@dataclass(frozen=True)
class Outcome:
    """How a run went. adapter: the last one; None where nothing has been trained yet."""

    folder: str
    finished: bool
    phases: int  # that are done
    adapter: str | None
    report: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(
    config: MGRDConfig,
    folder: Path,
    watch: Watcher | None = None,
    until: str | None = None,
    api_key: str | None = None,
) -> Outcome:
    """Do what is not done yet, up to and with the phase `until`. Raises the errors of its phases.

    api_key: of the server that judges, where the filters name one.
    """
    config.check()
    watch = watch or Silent()
    phases = phases_of(config)
    names = [phase.name for phase in phases]
    if until not in (None, *names):
        raise TrainingError(f"no phase {until!r}; there are {', '.join(names)}")
    _open(folder, config)
    journal = Journal(folder, names)
    work = Work(config, folder, journal, watch, api_key)
    done = 0
    try:
        for phase in phases:
            if not journal.is_done(phase.name):
                watch.say(f"phase {phase.name}")
                work.phase = phase.name
                with journal.running(phase.name):
                    phase.do(work)
                mx.clear_cache()
            done += 1
            if phase.name == until:
                break
    except Stopped:
        watch.say("stopped; the same command goes on")
    adapter = work.policy(config.rounds)
    return Outcome(str(folder), done == len(phases), done, str(adapter) if adapter else None,
                   str(write_report(folder)))  # fmt: skip


def _open(folder: Path, config: MGRDConfig) -> None:
    """Write mgrd.json, or find the run that is in the folder and check that this is the same one."""
    told = {**json.loads(json.dumps(config.as_dict())), "depends_on": _digests(config)}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    before = read_object(folder / CONFIG)
    for key in told:
        if before and key not in FREE_TO_CHANGE and before.get(key) != told[key]:
            raise TrainingError(f"{folder}: the run there has another {key} ({_short(before.get(key))}, now "
                                f"{_short(told[key])}): give the same to go on, or another folder")
    if before and told["rounds"] < before.get("rounds", 0):
        raise TrainingError(f"{folder}: the run there has {before['rounds']} rounds; give as many, or more")
    write_file(folder / CONFIG, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _digests(config: MGRDConfig) -> dict[str, str]:
    """Of every file that a phase will read: what is missing is said now, not hours later. Raises DataError."""
    others = {"text": config.text, "cold_start": (config.cold_start or {}).get("data")}
    files = {name: train_file(data) for name, data in others.items() if data}
    files |= {"questions": train_file(config.data), **find_splits(config.data)}
    return {name: digest_of(path) for name, path in files.items()}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
