"""mlx-lm's LoRA and DoRA layers with the same parameters and names, computed in the model's own type.

The matrices stay float32, the masters that an optimizer moves. mlx-lm multiplies with them as they are, which
promotes a full float32 copy of a bfloat16 input; here they are rounded to the input's type first. What else
is different in DoRA: a magnitude is applied as `m / norm - 1`, since `m / norm` in bfloat16 loses every
change below 0.4 %; and the norm comes from |w|^2 and two thin products, so a quantised weight is never
unpacked in a step.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner import dora, lora

from mlx_audio_r1.models.packed import times

Factors = tuple[mx.array, mx.array]


class _Adapted(nn.Module):
    """What both kinds share. `off` leaves nothing but the base layer, to the bit."""

    off = False
    _settled: Factors | None = None

    def factors(self, dtype: mx.Dtype) -> Factors:
        """lora_a (in, r) and lora_b (r, out) in `dtype`; gradients reach the masters."""
        if self._settled is not None and self._settled[0].dtype == dtype:
            return self._settled
        return self.lora_a.astype(dtype), self.lora_b.astype(dtype)

    def update_of(self, x: mx.array) -> mx.array:
        """scale * x A B, (..., out) in the type of x."""
        a, b = self.factors(x.dtype)
        return self.scale * ((self.dropout(x) @ a) @ b)

    def settle(self, dtype: mx.Dtype) -> None:
        """For inference: round the factors once instead of at every call."""
        if self.lora_a.dtype != dtype:
            _keep(self, "_settled", (self.lora_a.astype(dtype), self.lora_b.astype(dtype)))

    def unsettle(self) -> None:
        """Forget what was computed for inference."""
        _keep(self, "_settled", None)

    def _set_training_mode(self, mode: bool) -> None:
        super()._set_training_mode(mode)
        if mode:
            self.unsettle()

    def _begin(self, key: mx.array) -> None:
        width = in_features(self.linear)
        bound = width**-0.5
        self.lora_a = mx.random.uniform(-bound, bound, (width, self.lora_b.shape[0]), key=key)
        self.lora_b = mx.zeros(self.lora_b.shape)


class LoRALinear(_Adapted, lora.LoRALinear):
    """y = base(x) + scale * x A B."""

    def __call__(self, x: mx.array) -> mx.array:
        y = self.linear(x)
        return y if self.off else y + self.update_of(x)


class DoRALinear(_Adapted, dora.DoRALinear):
    """y = m / |W + scale B^T A^T| * (x W^T + scale * x A B) + bias, the norm taken row by row.

    The norm is a constant to the gradient, as in the DoRA paper (section 4.3).
    """

    _settled_gain: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        y = self.linear(x)
        if self.off:
            return y
        update = self.update_of(x)
        product = y - self.linear.bias if "bias" in self.linear else y
        return y + update + self.gain().astype(x.dtype) * (product + update)

    def gain(self) -> mx.array:
        """m / |W + scale B^T A^T| - 1, (out,) float32; exactly 0 for a fresh layer."""
        if self._settled_gain is not None:
            return self._settled_gain
        return self.m / mx.stop_gradient(self._norm()) - 1

    def _norm(self) -> mx.array:
        """|W + sBA| from |W|^2 + 2 s <W, BA> + s^2 |BA|^2, row by row: nothing of W's size is made."""
        rows = self.lora_b.T  # (out, r)
        across = times(self.linear, self.lora_a.T).T  # W A, (out, r)
        gram = self.lora_a.T @ self.lora_a
        square = (rows * (2 * self.scale * across + self.scale**2 * (rows @ gram))).sum(axis=-1)
        return mx.sqrt(mx.maximum(self._squares + square, 1e-30))

    def settle(self, dtype: mx.Dtype) -> None:
        super().settle(dtype)
        _keep(self, "_settled_gain", self.gain())
        mx.eval(self._settled_gain)

    def unsettle(self) -> None:
        super().unsettle()
        _keep(self, "_settled_gain", None)

    def _begin(self, key: mx.array) -> None:
        super()._begin(key)
        weight = self._dequantized_weight().astype(mx.float32)
        _keep(self, "_squares", mx.square(weight).sum(axis=-1))
        self.m = mx.sqrt(mx.maximum(self._squares, 1e-30))  # as in _norm, so a fresh layer's gain is 0


Adapted = LoRALinear | DoRALinear
_OURS = {lora.LoRALinear: LoRALinear, dora.DoRALinear: DoRALinear}


def open_adapters(model: nn.Module, seed: int) -> None:
    """Make every LoRA and DoRA layer of `model` ours, and begin it: A uniform, B zero, m the base's norm.

    The bits of A depend on `seed` and the layer's name alone, whatever else is adapted.
    """
    for name, module in model.named_modules():
        if type(module) in _OURS:
            module.__class__ = _OURS[type(module)]
            module._begin(mx.random.key((seed % 2**32) << 32 | zlib.crc32(name.encode())))


def measure(model: nn.Module) -> None:
    """Compute the norms of DoRA now, layer by layer: unpacked, the weights of a large model fill memory."""
    for _, layer in adapted(model):
        if isinstance(layer, DoRALinear):
            mx.eval(layer._squares, layer.m)


def adapted(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """Name and layer of every LoRA or DoRA layer."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, _Adapted))


def in_features(linear: nn.Module) -> int:
    """Values a linear takes. mlx-lm's DoRA gets this wrong where 32 is no multiple of the bits."""
    width = linear.weight.shape[-1]
    return width * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else width


def _keep(module: nn.Module, name: str, value: object) -> None:
    """Beside the parameters: not trained, saved or cast."""
    object.__setattr__(module, name, value)
