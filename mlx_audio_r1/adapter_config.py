"""adapter_config.json, in mlx-lm's layout: what kind of adapter it is, and on which layers.

Three keys are mlx-lm's (`fine_tune_type`, `num_layers`, `lora_parameters`), `model` is its name for the base,
`also_trained` is ours. Keys of other tools are carried along. The surprise: `num_layers` counts from the last
layer and 0 or -1 is all of them; and `scale` is what other tools call alpha / rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import CheckpointError, ConfigError

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapters.safetensors"
FINE_TUNE_TYPES = ("lora", "dora", "full")
_OWN = ("fine_tune_type", "num_layers", "lora_parameters", "also_trained", "model")


def _names(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        raise ConfigError(f"{what} is {value!r}, expected a list of module names")
    if what == "keys" and not value:
        raise ConfigError("lora_parameters: keys is empty; leave it out to adapt every linear")
    return tuple(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class LoRAParameters:
    """mlx-lm's `lora_parameters`. keys: names within a decoder layer, such as self_attn.q_proj, or names
    from the root, such as audio_adaptor.linear1; patterns with * are allowed. None is every linear of the
    trained layers."""

    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    keys: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not _is_int(self.rank) or not 1 <= self.rank <= 65_536:
            raise ConfigError(f"lora_parameters: rank is {self.rank!r}, expected a whole number, 1 to 65536")
        if not _is_number(self.scale):
            raise ConfigError(f"lora_parameters: scale is {self.scale!r}, expected a number")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora_parameters: dropout is {self.dropout!r}, expected a share below 1")
        object.__setattr__(self, "keys", None if self.keys is None else _names(self.keys, "keys"))

    def to_dict(self) -> dict[str, Any]:
        keys = None if self.keys is None else list(self.keys)
        return {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, "keys": keys}


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter is. also_trained: modules trained as a whole beside it. model: the base's name.
    extra: keys of adapter_config.json that other tools put there."""

    fine_tune_type: str = "lora"
    num_layers: int = -1
    lora_parameters: LoRAParameters = LoRAParameters()
    also_trained: tuple[str, ...] = ()
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.fine_tune_type not in FINE_TUNE_TYPES:
            raise ConfigError(f"fine_tune_type is {self.fine_tune_type!r}: choose one of {FINE_TUNE_TYPES}")
        if not _is_int(self.num_layers) or self.num_layers < -1:
            raise ConfigError(f"num_layers is {self.num_layers!r}, expected a whole number; -1 is all layers")
        if self.model is not None and not isinstance(self.model, str):
            raise ConfigError(f"model is {self.model!r}, expected the name of the base")
        object.__setattr__(self, "also_trained", _names(self.also_trained, "also_trained"))

    @property
    def is_full(self) -> bool:
        """True where the weights themselves are trained and there are no LoRA layers."""
        return self.fine_tune_type == "full"

    def to_dict(self) -> dict[str, Any]:
        """The content of adapter_config.json."""
        own = {
            "fine_tune_type": self.fine_tune_type,
            "num_layers": self.num_layers,
            "lora_parameters": None if self.is_full else self.lora_parameters.to_dict(),
            "also_trained": list(self.also_trained),
            "model": self.model,
        }
        return {**own, **{key: value for key, value in self.extra.items() if key not in own}}


def parse_adapter_config(data: Any) -> AdapterConfig:
    """adapter_config.json as JSON -> AdapterConfig. Raises ConfigError naming the key that is wrong."""
    if not isinstance(data, Mapping):
        raise ConfigError("expected an object at the top level")
    if "peft_type" in data:
        raise ConfigError("this is a PEFT adapter; turn it into one of these with: audio-r1 adapters import")
    kind = data.get("fine_tune_type", "lora")
    full = kind == "full"
    if not full and "num_layers" not in data:
        raise ConfigError("num_layers is missing; is this an adapter of mlx-lm or audio-r1?")
    return AdapterConfig(
        fine_tune_type=kind,
        num_layers=data.get("num_layers", -1),
        lora_parameters=LoRAParameters() if full else _parse_lora(data.get("lora_parameters")),
        also_trained=data.get("also_trained") or (),
        model=data.get("model"),
        extra={key: value for key, value in data.items() if key not in _OWN},
    )


def _parse_lora(data: Any) -> LoRAParameters:
    if not isinstance(data, Mapping):
        raise ConfigError("lora_parameters is missing; it holds rank, scale and dropout")
    if "scale" not in data and "alpha" in data:
        raise ConfigError("lora_parameters has alpha where mlx-lm has scale; write scale = alpha / rank")
    for key in ("rank", "scale"):
        if key not in data:
            raise ConfigError(f"lora_parameters lacks {key}")
    return LoRAParameters(data["rank"], data["scale"], data.get("dropout") or 0.0, data.get("keys"))


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read an adapter_config.json. Raises CheckpointError naming the file."""
    try:
        return parse_adapter_config(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from None
