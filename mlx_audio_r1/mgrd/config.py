"""What a run of MGRD is told: one YAML file, checked as a whole before anything is loaded.

    data: questions/          # train.jsonl with solutions, sound and text; valid.jsonl is measured on
    rounds: 2
    samples: 8                # replies to each question, of which the good ones are learnt
    cold_start: {data: replies/, iters: 200}
    sft: {epochs: 2, learning_rate: 1e-4}
    rl: {iters: 40, group_size: 16}

`train` holds what all training phases share. What the paper fixes is the default; what it leaves open
(learning rates, K, the number of rounds) is marked in docs/mgrd.md.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.mgrd.filters import FilterConfig
from mlx_audio_r1.mgrd.measuring import Measuring
from mlx_audio_r1.mgrd.select import Selection
from mlx_audio_r1.mgrd.self_phases import SelfCognition
from mlx_audio_r1.train.config import TrainConfig, checked_keys, read_yaml, resolve
from mlx_audio_r1.train.curate import Curation
from mlx_audio_r1.train.recipes import CONFIGS
from mlx_audio_r1.train.rl_config import RLConfig

FREE_TO_CHANGE = ("name", "rounds")  # between a run and its continuation
NOT_SHARED = ("data", "model", "adapter_path", "resume_adapter_file", "train_mode", "feature_cache")
OWN_KEYS = ("data", "epochs", "examples")  # keys of the training phases that are no settings of `train`
Keys = dict[str, Any]


@dataclass(frozen=True)
class MGRDConfig:
    """A run. None where a phase is left out."""

    data: str = ""
    model: str | None = None
    name: str = ""
    text: str | None = None  # rows of text reasoning that every SFT has beside the kept chains (equation 5)
    rounds: int = 2
    samples: int = 8
    seed: int = 0
    max_seq_length: int = 10_240
    max_rows: int = 32
    train: Keys = field(default_factory=dict)
    cold_start: Keys | None = None  # data, and keys of train sft
    text_rl: Keys | None = None  # keys of train rl, on the questions without sound, before round 1
    select: Keys = field(default_factory=dict)
    filter: Keys = field(default_factory=dict)
    sft: Keys = field(default_factory=dict)
    curate: Keys = field(default_factory=dict)
    rl: Keys | None = field(default_factory=dict)
    self_cognition: Keys | None = None
    measure: Keys = field(default_factory=dict)

    def check(self) -> None:
        """Raises TrainingError for what no phase could use, naming the key."""
        if not self.data:
            raise TrainingError("data is missing: give the folder with train.jsonl, whose rows have a solution")
        for name, least in (("rounds", 0), ("samples", 2), ("max_rows", 1), ("max_seq_length", 8)):
            if getattr(self, name) < least:
                raise TrainingError(f"{name} is {getattr(self, name)}; {least} is the least")
        self.selection, self.filters, self.curation, self.measuring, self.self_knowledge  # noqa: B018  (raise)
        for part in (self.train, self.cold_start, self.text_rl, self.sft, self.rl):
            wrong = next((key for key in part or {} if key in NOT_SHARED and key != "data"), None)
            if wrong:
                raise TrainingError(f"{wrong} is set by the run itself: leave it out of its phases")
        if self.cold_start is not None and not self.cold_start.get("data"):
            raise TrainingError("cold_start: data is missing: a folder with train.jsonl, questions and replies")
        self.training("sft", _without(self.sft, OWN_KEYS))
        self.training("sft", _without(self.cold_start or {}, OWN_KEYS))
        for part in (self.rl, self.text_rl):
            self.training("rl", part or {})
        self.training("sft", _without(self.self_knowledge.sft, OWN_KEYS))
        self.training("dpo", _without(self.self_knowledge.dpo, OWN_KEYS))

    @property
    def selection(self) -> Selection:
        return Selection(**checked_keys(self.select, "select", Selection))

    @property
    def filters(self) -> FilterConfig:
        return FilterConfig(**checked_keys(self.filter, "filter", FilterConfig))

    @property
    def curation(self) -> Curation:
        return Curation(**checked_keys(self.curate, "curate", Curation))

    @property
    def measuring(self) -> Measuring:
        return Measuring(**checked_keys(self.measure, "measure", Measuring))

    @property
    def self_knowledge(self) -> SelfCognition:
        return SelfCognition(**checked_keys(self.self_cognition or {}, "self_cognition", SelfCognition))

    def training(self, mode: str, given: Mapping[str, Any], **more: Any) -> TrainConfig:
        """The configuration of a training phase: what all share, its own keys, and what the run adds.

        Shared keys that this kind of training does not have are for the others. Raises TrainingError.
        """
        known = {f.name for f in fields(CONFIGS[mode])}
        shared = {key: value for key, value in self.train.items() if key in known}
        base = {"seed": self.seed, "max_seq_length": self.max_seq_length}
        return resolve(mode, {**base, **shared, **given, **more}, kind=CONFIGS[mode])

    def sampling(self, data: str, adapter_path: str, **more: Any) -> RLConfig:
        """How a phase samples replies to the questions of `data`. more: of RLConfig."""
        reward = (self.rl or {}).get("reward", {})
        given = {"data": data, "adapter_path": adapter_path, "seed": self.seed, "group_size": self.samples,
                 "max_seq_length": self.max_seq_length, "max_rows": self.max_rows, "value": "none",
                 "reward": reward}  # fmt: skip
        return resolve("rl", {**given, **more}, kind=RLConfig)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_config(path: Path) -> MGRDConfig:
    """The run that a YAML file describes; its paths count from the file. Raises TrainingError."""
    values = checked_keys(read_yaml(path), str(path), MGRDConfig)
    config = MGRDConfig(**_from_there(values, path.resolve().parent))
    try:
        config.check()
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None
    return config


def _from_there(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Relative paths of data, counted from `folder`; a model's only where it is a folder there."""
    def there(text: str) -> str:
        return str(folder / text)

    moved = {**values, **{key: there(values[key]) for key in ("data", "text") if values.get(key)}}
    if values.get("model") and (folder / values["model"]).is_dir():
        moved["model"] = there(values["model"])
    for phase in ("cold_start", "self_cognition"):
        part = typing.cast(Mapping[str, Any] | None, values.get(phase))
        if part and part.get("data"):
            moved[phase] = {**part, "data": there(part["data"])}
    return moved


def _without(keys: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in names}
