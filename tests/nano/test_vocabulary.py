"""The nano tokenizer: official specials, single digits, and a round trip for any text."""

import pytest

from mlx_audio_r1.nano.table import CHECKPOINT
from mlx_audio_r1.nano.vocabulary import SPECIALS, Prompts
from mlx_audio_r1.tasks.acoustic import questions as q
from mlx_audio_r1.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def prompts():
    return Prompts(Tokenizer.from_folder(CHECKPOINT))


def test_specials_are_single_tokens_and_thinking_is_text(prompts):
    backend = prompts.tokenizer._backend
    assert all(backend.token_to_id(name) is not None for name in SPECIALS)
    assert backend.token_to_id("<think>") is None
    assert len(prompts.encode("<think>")) > 1


def test_digits_stay_single(prompts):
    assert len(prompts.encode("1800")) == 4


@pytest.mark.parametrize("text", ["How many drums? 3, at 0.5 s.", "naïve 語 🎧\n\n  x", "<|EOT|>", ""])
def test_any_text_survives(prompts, text):
    assert prompts.tokenizer.decode(prompts.encode(text)) == text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "<|BOT|>human\n<audio_start><audio_patch><audio_patch><audio_end>Why?<|EOT|>"
             "<|BOT|>assistant\n<think>\n"),
        ({"thinking": False}, "<|BOT|>human\n<audio_start><audio_patch><audio_patch><audio_end>Why?<|EOT|>"
                              "<|BOT|>assistant\n<think>\n\n</think>\n"),
        ({"text_first": True}, "<|BOT|>human\nWhy?\n<audio_start><audio_patch><audio_patch><audio_end><|EOT|>"
                               "<|BOT|>assistant\n<think>\n"),
        ({"system": "Be brief."}, "<|BOT|>system\nBe brief.<|EOT|><|BOT|>human\n<audio_start><audio_patch>"
                                  "<audio_patch><audio_end>Why?<|EOT|><|BOT|>assistant\n<think>\n"),
    ],
)  # fmt: skip
def test_prompts_are_rendered_as_the_command_line_renders_them(prompts, options, expected):
    assert prompts.tokenizer.decode(prompts.prompt("Why?", [2], **options)) == expected


def test_completions_end_the_turn(prompts):
    question = q.Question("count", "How many?", "1 drum at 0.3 s.", "1", "1")
    assert prompts.tokenizer.decode(prompts.completion(question)) == "1 drum at 0.3 s.\n</think>\n1<|EOT|>"
    assert prompts.tokenizer.decode(prompts.completion(question, thinking=False)) == "1<|EOT|>"
