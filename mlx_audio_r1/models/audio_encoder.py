"""The audio encoder: log-mel at 100 Hz -> features at 25 Hz.

Whisper-large-v3's shape (which is Qwen2-Audio's), with one twist: the average pool comes before the
last LayerNorm, and a clip keeps its own length instead of being padded to 30 seconds.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.config import AudioConfig


class PositionTable(nn.Module):
    """Learned positions (n, width). No nn.Embedding: that could be quantised, and a slice of a
    quantised table is not a slice of rows."""

    def __init__(self, n: int, width: int):
        super().__init__()
        self.weight = mx.zeros((n, width))

    def __call__(self, length: int) -> mx.array:
        return self.weight[:length]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        B, L, D = x.shape
        q, k, v = (
            proj(x).reshape(B, L, self.heads, -1).transpose(0, 2, 1, 3)
            for proj in (self.query, self.key, self.value)
        )
        x = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=mask)
        return self.out(x.transpose(0, 2, 1, 3).reshape(B, L, D))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn_ln = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp_ln = nn.LayerNorm(width)
        self.mlp = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        x = x + self.attn(self.attn_ln(x), mask)
        h = self.mlp_ln(x)
        for layer in self.mlp:
            h = layer(h)
        return x + h


class AudioEncoder(nn.Module):
    """(B, T, n_mels) -> (B, ((T + 1) // 2) // 2, width)."""

    def __init__(self, config: AudioConfig):
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = PositionTable(config.n_audio_ctx, width)
        self.blocks = [Block(width, config.n_audio_head) for _ in range(config.n_audio_layer)]
        self.after_norm = nn.LayerNorm(width)

    def __call__(self, log_mel: mx.array, key_mask: mx.array | None = None) -> mx.array:
        """`key_mask` (L,) bool over the frames after conv2: False frames are attended to by none."""
        x = self.stem(log_mel)
        for block in self.blocks:
            x = block(x, key_mask)
        return self.after_norm(_pool_by_two(x))

    def stem(self, log_mel: mx.array) -> mx.array:
        """Two convolutions and the positions: (B, T, n_mels) -> (B, (T + 1) // 2, width)."""
        x = nn.gelu(self.conv1(log_mel))
        x = nn.gelu(self.conv2(x))
        return x + self.positional_embedding(x.shape[1])


def _pool_by_two(x: mx.array) -> mx.array:
    """Mean of neighbouring frames; an odd last frame is dropped."""
    B, L, D = x.shape
    return x[:, : L - L % 2].reshape(B, L // 2, 2, D).mean(axis=2)
