"""The audio encoder: log-mel at 100 Hz -> features at 25 Hz.

Whisper-large-v3's shape (which is Qwen2-Audio's), with one twist: the average pool comes before the
last LayerNorm, and a clip keeps its own length instead of being padded to 30 seconds. Several clips go through
it together (`packed`) one behind the other, and again without padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from mlx_audio_r1.config import AudioConfig
from mlx_audio_r1.kernels.clips import Clips
from mlx_audio_r1.kernels.packed_attention import packed_attention
from mlx_audio_r1.kernels.pool_norm import pool_by_two, pool_norm

Seen = mx.array | Clips | None  # a mask of keys; or the clips whose rows (1, R, D) is; or everything


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

    def __call__(self, x: mx.array, seen: Seen) -> mx.array:
        B, L, D = x.shape
        q, k, v = (proj(x).reshape(B, L, self.heads, -1) for proj in (self.query, self.key, self.value))
        if isinstance(seen, Clips):
            x = packed_attention(q[0], k[0], v[0], seen, self.scale)
        else:
            q, k, v = (y.transpose(0, 2, 1, 3) for y in (q, k, v))
            x = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.scale, mask=seen)
            x = x.transpose(0, 2, 1, 3)
        return self.out(x.reshape(B, L, D))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn_ln = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp_ln = nn.LayerNorm(width)
        self.mlp = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]

    def __call__(self, x: mx.array, seen: Seen) -> mx.array:
        x = x + self.attn(self.attn_ln(x), seen)
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
        return self.after_norm(pool_by_two(x))

    def packed(self, log_mels: Sequence[mx.array], hidden: int = 0) -> list[mx.array]:
        """Clips (T, n_mels) of any lengths -> (((T + 1) // 2) // 2, width) each, by what `__call__` does.

        Frames never meet those of another clip; the last `hidden` of each clip are attended to by none. Only
        the linears see more rows than alone, and a matrix product may round differently for it.
        """
        if not log_mels:
            return []
        stems = [self.stem(log_mel[None])[0] for log_mel in log_mels]
        clips = Clips.of([len(stem) for stem in stems], hidden)
        x = mx.concatenate(stems)[None]
        for block in self.blocks:
            x = block(x, clips)
        norm = self.after_norm
        pooled = pool_norm(x[0], norm.weight, norm.bias, clips, norm.eps)
        return Clips.of([n // 2 for n in clips.lengths]).split(pooled)

    def stem(self, log_mel: mx.array) -> mx.array:
        """Two convolutions and the positions: (B, T, n_mels) -> (B, (T + 1) // 2, width)."""
        x = nn.gelu(self.conv1(log_mel))
        x = nn.gelu(self.conv2(x))
        return x + self.positional_embedding(x.shape[1])
