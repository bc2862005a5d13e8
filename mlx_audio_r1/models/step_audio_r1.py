"""Step-Audio-R1: audio encoder, audio adaptor and mlx-lm's Qwen2 decoder.

The surprise: audio reaches the decoder only through `embed`, which replaces the embeddings of the
`<audio_patch>` ids of a *prompt*. A patch id that the model writes itself is an ordinary token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen2

from mlx_audio_r1.config import ModelConfig
from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.kernels.choice import allowed
from mlx_audio_r1.models.audio_adaptor import AudioAdaptor
from mlx_audio_r1.models.audio_encoder import AudioEncoder
from mlx_audio_r1.models.decoder import open_decoder

T = TypeVar("T")
PACKED = "packed_attention"
CHUNKS_TOGETHER = 4  # 100 s: more than enough rows for a GPU, and about 100 MB of hidden states


class Model(nn.Module):
    """log-mel and token ids in, logits out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.adapter_off = False  # set while adapters.disabled is in force
        self.audio_encoder = AudioEncoder(config.audio)
        self.audio_adaptor = AudioAdaptor(config.audio)
        self.language_model = open_decoder(qwen2.Model(qwen2.ModelArgs.from_dict(asdict(config.text))))

    def passes(self, chunks: Iterable[T]) -> Iterator[list[T]]:
        """Chunks in groups to be encoded in one pass each: one by one where packed attention is off."""
        rest = iter(chunks)
        while together := list(islice(rest, CHUNKS_TOGETHER if allowed(PACKED) else 1)):
            yield together

    def encode_audio(self, log_mel: mx.array) -> mx.array:
        """One chunk, (T, n_mels) -> (N, hidden_size)."""
        return self.encode_chunks([log_mel])[0]

    def encode_chunks(self, log_mels: Sequence[mx.array]) -> list[mx.array]:
        """Chunks (T, n_mels) -> (N, hidden_size) each.

        A chunk hears nothing of the others: in the official server's padded batches the features of a
        short chunk depend on its neighbours, here they never do.
        """
        pairs = zip(log_mels, self.chunk_features(log_mels), strict=True)
        return [self._adapted(features, log_mel.shape[0]) for log_mel, features in pairs]

    def _adapted(self, features: mx.array, frames: int) -> mx.array:
        rows = self.audio_adaptor(features[None])[0]
        if self.config.length_convention == "hf":
            return rows[: ((frames - 1) // 2 // 2 - 1) // 2 + 1]
        return rows

    def audio_features(self, log_mel: mx.array) -> mx.array:
        """What the adaptor reads of one chunk: (T, n_mels) -> (((T + 1) // 2) // 2, n_audio_state)."""
        return self.chunk_features([log_mel])[0]

    def chunk_features(self, log_mels: Sequence[mx.array]) -> list[mx.array]:
        """The same of several: one after the other, or in one pass where packed attention is not off."""
        mels = [log_mel.astype(self.audio_encoder.conv1.weight.dtype) for log_mel in log_mels]
        # The length there is T - 2, which hides the last frame after conv2 from attention.
        hidden = 1 if self.config.length_convention == "hf" else 0
        if allowed(PACKED):
            return self.audio_encoder.packed(mels, hidden)
        return [self.audio_encoder(mel[None], _key_mask(mel.shape[0], hidden))[0] for mel in mels]

    def embed(self, ids: mx.array, features: Sequence[mx.array], patch_id: int) -> mx.array:
        """(L,) ids and the features of the prompt's chunks in order -> (L, hidden_size).

        Raises PromptError when the patches in `ids` and the rows of `features` differ in number.
        """
        x = self.language_model.model.embed_tokens(ids)
        at = [i for i, token in enumerate(ids.tolist()) if token == patch_id]
        rows = sum(f.shape[0] for f in features)
        if len(at) != rows:
            raise PromptError(f"the prompt has {len(at)} audio patches, the audio {rows} rows")
        if not at:
            return x
        x[mx.array(at)] = mx.concatenate(list(features)).astype(x.dtype)
        return x

    def __call__(
        self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None
    ) -> mx.array:
        """(B, L) ids, or (B, L, hidden_size) embeddings beside them -> (B, L, vocab_size) logits."""
        return self.language_model(inputs, cache=cache, input_embeddings=input_embeddings)

    @property
    def layers(self) -> list[nn.Module]:
        """The decoder's blocks: where mlx-lm looks for a cache and for LoRA."""
        return self.language_model.layers


def _key_mask(frames: int, hidden: int) -> mx.array | None:
    """Over the frames after conv2, False for the last `hidden`."""
    conv_frames = (frames + 1) // 2
    return mx.arange(conv_frames) < conv_frames - hidden if hidden else None
