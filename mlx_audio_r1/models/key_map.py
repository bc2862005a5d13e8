"""Official tensor names -> names and axis order of the model here.

The whole of it is two small tables: prefixes, and the three convolutions whose axes differ
(PyTorch keeps [out, in, k], MLX wants [out, k, in]).
"""

from __future__ import annotations

PREFIXES = {  # official prefix -> ours
    "encoder.": "audio_encoder.",
    "adapter.": "audio_adaptor.",
    "model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
}
CONVOLUTIONS = frozenset(
    {"encoder.conv1.weight", "encoder.conv2.weight", "adapter.conv.weight"}
)
CONV_AXES = (0, 2, 1)
AUDIO_PREFIXES = ("audio_encoder.", "audio_adaptor.")  # never quantised
OFFICIAL_HEAD = "lm_head.weight"
OFFICIAL_ADAPTOR_LINEAR = "adapter.linear1.weight"


def our_name(official: str) -> str | None:
    """The name here of an official tensor, or None when it is not of this model."""
    for theirs, ours in PREFIXES.items():
        if official.startswith(theirs):
            return ours + official.removeprefix(theirs)
    return None


def is_official(names: object) -> bool:
    """True when the names are those of the PyTorch checkpoint."""
    return any(str(name).startswith(("encoder.", "adapter.")) for name in names)
