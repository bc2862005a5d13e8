"""What a conversion does to the weights, in mlx-lm's words."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1.errors import ConfigError

MODES = {  # mode -> (group sizes, bits) that MLX has kernels for; the default comes first
    "affine": ((64, 32, 128), (4, 2, 3, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}
QUANT_PREDICATES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
DTYPE_NAMES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class Recipe:
    """One conversion. `None` stands for the default of the mode, or for the source's own dtype."""

    quantize: bool = False
    bits: int | None = None
    group_size: int | None = None
    mode: str = "affine"
    quant_predicate: str | None = None
    dtype: str | None = None
    dequantize: bool = False

    def __post_init__(self) -> None:
        if self.quant_predicate:
            object.__setattr__(self, "quantize", True)
        _one_of("--q-mode", self.mode, tuple(MODES))
        group_sizes, bits = MODES[self.mode]
        _one_of("--q-bits", self.bits, (*bits, None))
        _one_of("--q-group-size", self.group_size, (*group_sizes, None))
        _one_of("--quant-predicate", self.quant_predicate, (*QUANT_PREDICATES, None))
        _one_of("--dtype", self.dtype, (*DTYPE_NAMES, None))
        if self.quantize and self.dequantize:
            raise ConfigError("quantise or dequantise: choose one of -q and -d")
        if self.quant_predicate and self.mode != "affine":
            raise ConfigError("--quant-predicate goes with --q-mode affine only")
        if not self.quantize and (self.bits or self.group_size or self.mode != "affine"):
            raise ConfigError("--q-bits, --q-group-size and --q-mode do nothing without -q")

    def options(self) -> list[str]:
        """The command-line options that give this recipe."""
        words = []
        if self.quant_predicate:
            words += ["--quant-predicate", self.quant_predicate]
        elif self.quantize:
            words += ["-q"]
        if self.mode != "affine":
            words += ["--q-mode", self.mode]
        if self.bits:
            words += ["--q-bits", str(self.bits)]
        if self.group_size:
            words += ["--q-group-size", str(self.group_size)]
        if self.dtype:
            words += ["--dtype", self.dtype]
        if self.dequantize:
            words += ["-d"]
        return words


def _one_of(option: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        known = ", ".join(str(c) for c in choices if c is not None)
        raise ConfigError(f"{option} {value}: choose one of {known}")
