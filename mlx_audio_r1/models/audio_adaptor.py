"""The audio adaptor: encoder features at 25 Hz -> decoder embeddings at 12.5 Hz.

Upstream's tensors say `adapter`; here "adapter" is LoRA's word. GELU after the convolution, ReLU
between the linears: both as published.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.config import AudioConfig


class AudioAdaptor(nn.Module):
    """(B, P, n_audio_state) -> (B, (P + 1) // 2, llm_dim)."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        width = config.n_audio_state
        self.conv = nn.Conv1d(
            width, width, config.kernel_size, stride=config.adapter_stride, padding=1
        )
        self.linear1 = nn.Linear(width, config.adaptor_width)
        self.linear2 = nn.Linear(config.adaptor_width, config.llm_dim)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.gelu(self.conv(x))
        return self.linear2(nn.relu(self.linear1(x)))
