"""The nano model's own tokenizer and the ids of its prompts.

A byte-level BPE trained on questions and reasoning of the acoustic world, split as Qwen2 splits (digits
stay single). The official special tokens are added behind it under their own names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from mlx_audio_r1.nano.drills import TELLING, WORDS
from mlx_audio_r1.nano.phrasing import ADDITIONS, LEAD_INS, vary
from mlx_audio_r1.prompt import AudioPart, Message, Segment, Special, render, to_ids
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tasks.acoustic.world import Truth
from mlx_audio_r1.tokenizer import AUDIO_END, END_TURN, QWEN2_SPLIT, Tokenizer

VOCABULARY = 1_024  # with the special tokens; fewer where the texts have no more pairs
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|EOT|>", "<|BOT|>", "<audio_start>", "<audio_end>",
            "<audio_patch>", "<tts_start>", "<tts_end>", "<tts_pad>")  # fmt: skip
TEXTS = 12_000  # questions the merges are learnt from
SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are a careful listener.", "Answer in a few words.",
                  "You are an expert in audio analysis.", "Listen, then think, then answer.")  # fmt: skip
CLOSE = "\n</think>\n"
_SOUND = AudioPart(None)  # a stand-in: only its number of patches matters


def learn_tokenizer(truths: Sequence[Truth], seed: int = 0) -> tokenizers.Tokenizer:
    """Learn the merges and add the special tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(_texts(truths, seed), trainer)
    backend.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIALS])
    return backend


def save_tokenizer(backend: tokenizers.Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_TURN,
        "clean_up_tokenization_spaces": False, "model_max_length": 4096,
    })  # fmt: skip
    _write(folder / "generation_config.json", {
        "eos_token_id": [backend.token_to_id(END_TURN)],
        "pad_token_id": backend.token_to_id("<|endoftext|>"),
        "do_sample": False, "max_new_tokens": 256,
    })  # fmt: skip


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _texts(truths: Sequence[Truth], seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for i in rng.integers(0, len(truths), TEXTS):
        question = q.make_question(truths[i], rng)
        yield vary(rng, question.text)
        yield f"{question.reasoning}{CLOSE}{question.answer}"
        yield q.describe(truths[i])
    frame = ["human\n", "assistant\n<think>\n", "assistant\n<think>\n\n</think>\n", "system\n"]
    yield from frame * 500
    yield from [*q.OFF_TOPIC, *SYSTEM_PROMPTS, q.HEARS, q.NOT_A_SOUND_QUESTION] * 20
    ways = [way for task in q.TASKS.values() for way in task.ways]
    yield from [*ways, *LEAD_INS, *ADDITIONS, *TELLING, "Say again: "] * 20
    yield from [f" {word}" for word in WORDS] * 10


class Prompts:
    """Prompts and completions as ids; equal texts are tokenised once."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.special = tokenizer.special
        self.encode = lru_cache(maxsize=200_000)(tokenizer.encode)  # to_ids asks for this and `special`
        self.audio_end = tokenizer.special[AUDIO_END]
        self.end_turn = tokenizer.special[END_TURN]

    def prompt(
        self,
        text: str,
        patches: Sequence[int],
        thinking: bool = True,
        text_first: bool = False,
        system: str | None = None,
    ) -> list[int]:
        """Ids of one question about clips of so many patches each."""
        sounds = [_SOUND] * len(patches)
        parts = [*([text] if text else []), *sounds] if text_first else [*sounds, *([text] if text else [])]
        messages = [Message("user", tuple(parts))]
        if system:
            messages.insert(0, Message("system", (system,)))
        segments: list[Segment | Special] = render(messages, thinking=thinking)
        return to_ids(segments, [[n] for n in patches], self)  # type: ignore[arg-type]

    def completion(self, question: q.Question, thinking: bool = True) -> list[int]:
        """Ids of what the model should write, its end included."""
        text = f"{question.reasoning}{CLOSE}{question.answer}" if thinking else question.answer
        return [*self.encode(text), self.end_turn]
