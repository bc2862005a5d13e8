"""README.md of a converted model: what it came from, how, and under which licence."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from huggingface_hub.repocard_data import ModelCardData

from mlx_audio_r1 import __version__
from mlx_audio_r1.convert.recipe import MODES, Recipe
from mlx_audio_r1.errors import CheckpointError

CARRIED = ("license", "license_name", "license_link", "language")
TAGS = ("mlx", "mlx-audio-r1", "audio", "reasoning")
PIPELINE = "audio-text-to-text"
TEMPLATE = """---
{metadata}
---

# {title}

{origin}, {done} by mlx-audio-r1 {version}:

```
{command}
```

{weights}

```
pip install mlx-audio-r1
audio-r1 ask clip.wav -p "What do you hear?" --model {title}
```
"""


def source_metadata(readme: Path | None) -> dict[str, Any]:
    """The YAML block of the source's own card; empty when there is none."""
    if readme is None:
        return {}
    try:
        return metadata_load(readme) or {}
    except ValueError:
        raise CheckpointError(f"{readme}: the YAML block at its head is broken, so is the licence") from None


def make_card(
    title: str, command: list[str], base_model: str | None, metadata: dict[str, Any], *, done: str, weights: str
) -> str:
    """The whole README.md. `base_model` is a repository name, or None when the source was a folder;
    `done` and `weights` say what happened, to the model and to its weights."""
    base = base_model or metadata.get("base_model")
    own_tags = metadata.get("tags") or []
    fields = {key: metadata[key] for key in CARRIED if metadata.get(key)}
    fields |= {
        "library_name": "mlx",
        "pipeline_tag": PIPELINE,
        "tags": [*own_tags, *(tag for tag in TAGS if tag not in own_tags)],
    }
    if base:
        fields["base_model"] = base
    known = isinstance(base, str)
    link = f"[{base}](https://huggingface.co/{base})" if known else "A Step-Audio checkpoint"
    return TEMPLATE.format(
        metadata=ModelCardData(**fields).to_yaml().strip(),
        title=title,
        origin=link,
        version=__version__,
        done=done,
        command=shlex.join(command),
        weights=weights,
    )


def describe(recipe: Recipe) -> str:
    """What happened to the weights, in a sentence."""
    kept = f"in {recipe.dtype}" if recipe.dtype else "in the type of the source"
    audio = f"audio encoder and audio adaptor stay {kept}."
    if recipe.quant_predicate:
        return f"Decoder quantised with mlx-lm's {recipe.quant_predicate}; {audio}"
    if recipe.quantize:
        group_sizes, bits = MODES[recipe.mode]
        size, bits = recipe.group_size or group_sizes[0], recipe.bits or bits[0]
        return f"Decoder quantised to {bits} bits ({recipe.mode}, groups of {size}); {audio}"
    if recipe.dequantize:
        return f"Dequantised; weights {kept}."
    return f"Not quantised; weights {kept}."
