"""An adapter merged into its base: a new checkpoint, written as a conversion is, one tensor at a time.

W + scale * B A is computed in float32, a block of rows at a time, and rounded once to the type of the
weight. The surprise: a quantised base is refused by default. What is merged would be quantised anew, and
rounding to 4 bits is coarser than most of what was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_audio_r1.adapter_config import AdapterConfig
from mlx_audio_r1.adapter_files import fingerprint, read_adapter, read_arrays
from mlx_audio_r1.adapters import LEAVES, checked
from mlx_audio_r1.convert.flow import Job, Options, run
from mlx_audio_r1.convert.plan import Plan, Step, make_plan, outline, plan_to_keep
from mlx_audio_r1.convert.recipe import Recipe
from mlx_audio_r1.convert.source import Source
from mlx_audio_r1.errors import CheckpointError
from mlx_audio_r1.hub import NANO, NANO_NAME, locate

REFUSED = (
    "{model} is quantised, and what is merged would be quantised anew, which can move its replies further than "
    "the adapter did: merge exactly with --dequantize, do it all the same with --requantize, or use the "
    "adapter as it is with --adapter-path"
)
WARNING = "warning: {n} merged layers are quantised anew; compare with --adapter-path before you rely on it"


@dataclass(frozen=True)
class Merging:
    """The adapter, by the weights it changes. layers: module -> lora_a (in, r), lora_b (r, out), m (out,).
    whole: weight -> what takes its place, in MLX's axes."""

    layers: Mapping[str, Mapping[str, mx.array]]
    whole: Mapping[str, mx.array]
    scale: float

    @classmethod
    def of(cls, arrays: Mapping[str, mx.array], scale: float) -> Merging:
        """Of arrays by their full names."""
        layers: dict[str, dict[str, mx.array]] = {}
        whole = {}
        for name, x in arrays.items():
            module, _, leaf = name.rpartition(".")
            if leaf in LEAVES:
                layers.setdefault(module, {})[leaf] = x.astype(mx.float32)
            else:
                whole[name] = x.astype(mx.float32)
        return cls(layers, whole, scale)

    def touches(self, step: Step) -> bool:
        name = step.outputs[0].name
        return name in self.whole or self._layer(step) is not None

    def rows(self, step: Step, x: mx.array, start: int, stop: int) -> mx.array:
        """W + scale * B A, or that on the length m row by row: the rows are independent of each other."""
        layer = self._layer(step)
        if layer is None:
            return self.whole[step.outputs[0].name][start:stop]
        x = x + self.scale * (layer["lora_b"].T[start:stop] @ layer["lora_a"].T)
        if "m" not in layer:
            return x
        return x * (layer["m"][start:stop] / mx.linalg.norm(x, axis=1))[:, None]

    def _layer(self, step: Step) -> Mapping[str, mx.array] | None:
        module, _, part = step.outputs[0].name.rpartition(".")
        return self.layers.get(module) if part == "weight" else None


def fuse(
    model: str | Path | None,
    adapter_path: str | Path,
    save_path: str | Path,
    *,
    dequantize: bool = False,
    requantize: bool = False,
    options: Options | None = None,
) -> Path:
    """Merge an adapter into `model` (a folder, a repository, None is nano) and give the folder made.

    A quantised model needs `dequantize` (exact, and as large as it was before it was quantised) or
    `requantize`, where a merged layer is quantised. Raises CheckpointError, HubError or DiskError; the same
    call goes on after an interruption.
    """
    options = options or Options()
    if dequantize and requantize:
        raise CheckpointError("--dequantize or --requantize: choose one")
    config, weights = read_adapter(adapter_path)
    flags = [word for word, given in (("--dequantize", dequantize), ("--requantize", requantize)) if given]

    def plan(source: Source) -> tuple[Plan, Merging]:
        merging = Merging.of(_checked_arrays(source, config, weights), config.lora_parameters.scale)
        return _plan(source, merging, flags, model, options), merging

    def command(origin: str, target: str) -> list[str]:
        base = NANO_NAME if locate(model) == NANO else origin
        name = Path(adapter_path).expanduser().resolve().name
        return ["audio-r1", "fuse", "--model", base, "--adapter-path", name, "--save-path", target, *flags]

    request = {
        "hf_path": str(locate(model)),
        "options": ["--adapter-path", str(adapter_path), *flags],
        "adapter": fingerprint(adapter_path),
    }
    kind = {"full": "full fine-tune", "lora": "LoRA adapter", "dora": "DoRA adapter"}[config.fine_tune_type]
    after = "; the merged layers were quantised anew" if requantize else ""
    return run(Job(request, options, plan, command, f"with a {kind} merged into it",
                   f"Merged in float32{after}.", "--save-path"), save_path)


def _checked_arrays(source: Source, config: AdapterConfig, weights: Path) -> dict[str, mx.array]:
    """The adapter's arrays by full names. Raises CheckpointError when one does not fit the source."""
    return checked(outline(source.entries(), source.json("config.json")), config, read_arrays(weights), weights)


def _plan(
    source: Source, merging: Merging, flags: list[str], model: str | Path | None, options: Options
) -> Plan:
    entries, raw_config = source.entries(), source.json("config.json")
    quantised = bool(raw_config.get("quantization"))
    if quantised and "--dequantize" not in flags:
        names = {entry.name for entry in entries}
        packed = [name for name in merging.layers if f"{name}.scales" in names]
        if packed and "--requantize" not in flags:
            raise CheckpointError(REFUSED.format(model=model or NANO_NAME))
        if packed:
            options.say(WARNING.format(n=len(packed)))
        return plan_to_keep(entries, raw_config, packed, options.shard_bytes)
    if flags and not quantised:
        raise CheckpointError(f"{model or NANO_NAME} is not quantised, so {flags[0]} has nothing to do")
    return make_plan(entries, raw_config, Recipe(dequantize=quantised), options.shard_bytes)
