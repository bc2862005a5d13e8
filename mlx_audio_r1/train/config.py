"""What a fine-tuning run is told: mlx_lm.lora's option names and YAML keys, and ours beside them.

The command line beats the file, the file beats the defaults; a key that nobody knows is refused. The
surprise: one dataclass serves every recipe, so that a file written for `sft` says at once what `dpo`
would not use (`USED_BY`).
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import TrainingError

FINE_TUNE_TYPES = ("lora", "dora", "full")
OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor", "lion")
RATES = {"sft": 1e-4, "dpo": 5e-6, "rl": 1e-5}  # learning rates where none is given
LORA = {"rank": 16, "scale": 2.0, "dropout": 0.0}  # alpha / rank = 2, on all linears of a layer
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
USED_BY = {
    "beta": ("dpo",), "label_smoothing": ("dpo",), "pack": ("sft",),
    **dict.fromkeys(("mask_prompt", "grad_accumulation_steps", "compile", "over_long", "train_encoder", "test"),
                    ("sft", "dpo")),
}  # fmt: skip
FREE_TO_CHANGE = frozenset({  # between a run and its continuation
    "iters", "val_batches", "test", "steps_per_report", "steps_per_eval", "save_every", "keep_checkpoints",
    "samples", "report_to", "project_name", "feature_cache", "feature_cache_gb", "clear_cache_threshold",
    "memory_limit_gb", "adapter_path", "max_rows",
})  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """A run. Counts are optimizer steps unless they say otherwise."""

    data: str = ""  # folder with train.jsonl, valid.jsonl, test.jsonl
    model: str | None = None  # folder or repository; None is the model `ask` would use
    train_mode: str = "sft"
    fine_tune_type: str = "lora"
    optimizer: str = "adamw"
    optimizer_config: dict[str, dict[str, Any]] = field(default_factory=dict)
    learning_rate: float | None = None  # None: RATES
    lr_schedule: dict[str, Any] | None = None  # {name, warmup, arguments}, as in mlx-lm
    clip_norm: float = 1.0
    mask_prompt: bool = True
    num_layers: int = -1  # last layers to train; -1 is all
    lora_parameters: dict[str, Any] = field(default_factory=dict)  # LORA below it; keys: where
    train_adaptor: bool = False  # the whole audio adaptor, beside the adapter
    train_encoder: bool = False  # the whole audio encoder: features are then computed every step
    batch_size: int = 4  # examples (pairs in dpo) at once
    max_tokens_per_batch: int | None = None  # instead of batch_size: as many examples as fit
    grad_accumulation_steps: int = 1
    pack: bool = False  # several short examples in one row
    iters: int = 1000
    val_batches: int = 25  # -1: all of valid.jsonl
    test: bool = False  # measure the loss on test.jsonl at the end
    steps_per_report: int = 10
    steps_per_eval: int = 200
    save_every: int = 100
    keep_checkpoints: int = 3
    samples: int = 4  # validation clips answered before and after, for the report
    adapter_path: str = "adapters"
    resume_adapter_file: str | None = None  # begin with these weights instead of fresh ones
    max_seq_length: int = 2048
    over_long: str = "refuse"  # or drop: what happens to rows beyond it
    grad_checkpoint: bool = True
    attention: str = "auto"  # plain, blockwise; auto: blockwise from 2,048 tokens
    compile: bool = False
    feature_cache: str | None = None  # folder of encoder outputs; None: beside the adapter
    feature_cache_gb: float = 20.0
    memory_limit_gb: float | None = None  # None: what the planner says this machine offers
    clear_cache_threshold: int = 0  # bytes of MLX's buffer pool; 0 leaves it alone
    report_to: str | None = None  # tensorboard, wandb, or both with a comma
    project_name: str | None = None
    seed: int = 0
    beta: float = 0.1
    label_smoothing: float = 0.0

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return RATES[self.train_mode] if self.learning_rate is None else self.learning_rate

    @property
    def lora(self) -> dict[str, Any]:
        """LoRA's parameters, defaults filled in."""
        return {**LORA, **self.lora_parameters}

    def with_model(self, model: str | None) -> TrainConfig:
        """The same with another base."""
        return replace(self, model=model)

    @property
    def folder(self) -> Path:
        return Path(self.adapter_path)

    def check(self) -> None:
        """Raises TrainingError for a value that cannot be."""
        _check_values(self)

    @property
    def also_trained(self) -> tuple[str, ...]:
        """Modules trained as a whole beside the adapter."""
        named = (("audio_adaptor", self.train_adaptor), ("audio_encoder", self.train_encoder))
        return tuple(name for name, trained in named if trained)


AnyConfig = typing.TypeVar("AnyConfig", bound=TrainConfig)


def resolve(
    mode: str, given: Mapping[str, Any], file: Path | None = None, kind: type[AnyConfig] | None = None
) -> AnyConfig:
    """Defaults of `kind` (TrainConfig), then the YAML file, then what was given.

    Raises TrainingError naming key and file.
    """
    kind = kind or typing.cast(type[AnyConfig], TrainConfig)
    values: dict[str, Any] = {}
    if file is not None:
        values |= checked_keys(read_yaml(file), str(file), kind)
    values |= checked_keys(given, "the command line", kind)
    if values.get("train_mode", mode) != mode:
        other = values["train_mode"]
        raise TrainingError(f"train_mode is {other!r}: run audio-r1 train {other}")
    config = kind(**{**values, "train_mode": mode})
    config.check()
    for key in values:
        if mode not in USED_BY.get(key, (mode,)):
            raise TrainingError(f"{key} is not used by {mode}: leave it out")
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises TrainingError."""
    import yaml

    class Loader(yaml.SafeLoader):  # YAML 1.1 takes 1e-4 for text; people who write it mean a number
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise TrainingError(f"{path}: expected `key: value` lines")
    return values


def checked_keys(values: Mapping[str, Any], where: str, kind: type) -> dict[str, Any]:
    """The fields of a dataclass `kind` that are given, as their types. Raises TrainingError."""
    kinds = typing.get_type_hints(kind)
    checked = {}
    for key, value in values.items():
        name = _ALIASES.get(key, key)
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TrainingError(f"{where}: unknown key {key!r}{hint}")
        checked[name] = _as(kinds[name], value, f"{where}: {key}")
    return checked


_ALIASES = {"train_type": "fine_tune_type"}


def _as(kind: Any, value: Any, what: str) -> Any:
    """`value` as `kind`."""
    options = kind.__args__ if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    plain = next(typing.get_origin(option) or option for option in options if option is not type(None))
    try:
        return _READERS[plain](value)
    except (TypeError, ValueError):
        raise TrainingError(f"{what} is {value!r}, expected {_WORDS[plain]}") from None


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _read_int(value: Any) -> int:
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError
    return int(number)


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _read_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return dict(value)


_READERS: dict[type, Callable[[Any], Any]] = {
    bool: _read_bool, int: _read_int, float: _read_float, str: _read_str, dict: _read_dict,
}  # fmt: skip
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}

_CHOICES = {
    "fine_tune_type": FINE_TUNE_TYPES,
    "optimizer": OPTIMIZERS,
    "over_long": ("refuse", "drop"),
    "attention": ("auto", "plain", "blockwise"),
}
_LEAST = {
    "batch_size": 1, "grad_accumulation_steps": 1, "iters": 1, "steps_per_report": 1, "steps_per_eval": 1,
    "save_every": 1, "keep_checkpoints": 1, "samples": 0, "max_seq_length": 8, "num_layers": -1,
    "val_batches": -1, "clip_norm": 0.0, "beta": 0.0, "label_smoothing": 0.0, "feature_cache_gb": 0.0,
}  # fmt: skip


def _check_values(config: TrainConfig) -> None:
    """Choices, bounds, and the keys within lora_parameters."""
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise TrainingError(f"{name} is {getattr(config, name)!r}; choose from {', '.join(choices)}")
    for name, least in _LEAST.items():
        if not getattr(config, name) >= least:
            raise TrainingError(f"{name} is {getattr(config, name)}; {least} is the least")
    if not 0 <= config.rate < float("inf"):
        raise TrainingError(f"learning_rate is {config.rate}; give a number from 0 up")
    if config.compile and config.train_encoder:
        raise TrainingError("compile does not go with train_encoder: every length of sound is another graph")
    if config.label_smoothing >= 0.5:
        raise TrainingError(f"label_smoothing is {config.label_smoothing}; it must stay below 0.5")
    unknown = set(config.lora_parameters) - {"rank", "scale", "dropout", "keys"}
    if unknown:
        hint = "; it is called scale here (alpha / rank)" if "alpha" in unknown else ""
        raise TrainingError(f"lora_parameters: unknown key {sorted(unknown)[0]!r}{hint}")
    if config.fine_tune_type != "full":
        _check_lora(config.lora)


def _check_lora(lora: Mapping[str, Any]) -> None:
    rank, dropout, keys = lora["rank"], lora["dropout"], lora.get("keys")
    if not isinstance(rank, int) or rank < 1:
        raise TrainingError(f"lora_parameters: rank is {rank!r}; give a whole number from 1 up")
    if not isinstance(lora["scale"], int | float):
        raise TrainingError(f"lora_parameters: scale is {lora['scale']!r}; give a number")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise TrainingError(f"lora_parameters: dropout is {dropout!r}; give a share below 1")
    if keys is not None and (not isinstance(keys, list) or not all(isinstance(key, str) for key in keys)):
        raise TrainingError("lora_parameters: keys must be a list of module names")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], kind: type[TrainConfig]) -> list[str]:
    """Keys of a `kind` that a continued run may not change and that differ."""
    keys = [f.name for f in fields(kind) if f.name not in FREE_TO_CHANGE]
    return [key for key in keys if old.get(key) != new.get(key)]
