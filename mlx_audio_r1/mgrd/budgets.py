"""A reasoning cut short: the prompt that asks for the answer now, after so many tokens of thinking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.rollouts import Rollout


def cut_short(prompt: Example, reply: Rollout, budget: int, tokenizer: Tokenizer) -> Example:
    """The prompt, the first `budget` tokens of the reply's reasoning, and its closing tag; nothing learnt.

    The tokens are those that were sampled. budget 0 is a direct answer.
    """
    closing = tokenizer.encode(f"\n{THINK_CLOSE}\n")
    thought = list(reply.ids[: min(budget, reply.thinking_tokens)])
    ids = np.concatenate([prompt.ids, np.array([*thought, *closing], np.int32)])
    return replace(prompt, ids=ids, weights=np.zeros(len(ids), np.float32))
