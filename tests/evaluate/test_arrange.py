"""Prompts byte for byte as the authors of Step-Audio-R1 sent them, and the ways of others."""

# ruff: noqa: RUF001  (full-width marks are meant)
from pathlib import Path

import pytest

from mlx_audio_r1.evaluate.arrange import arranged, profile_of, rearranged, with_sounds
from mlx_audio_r1.evaluate.bench import AUDIO, OPTIONS_HERE, TEXT, Profile, Question
from mlx_audio_r1.evaluate.benches import BENCHES, bench
from mlx_audio_r1.generate import Settings
from mlx_audio_r1.prompt import AudioPart, Special, render
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn
from mlx_audio_r1.tasks.item_files import item_from_json, item_to_json
from mlx_audio_r1.tasks.label import Label

WHICH = Question("q", "Which one?", (Path("a.wav"),), Choice(("Cello", "Harp"), (1,)), chance=0.5)
SPOKEN = Question("s", "", (Path("a.wav"),), Label("valid", ("valid", "invalid")))
CHOICES = (
    "<|BOT|>human\nWhich one?\nPlease choose the answer from the following options, do not provide any "
    "additional explanations or content: \nA. Cello\nB. Harp\n\n<audio_patch><|EOT|><|BOT|>assistant\n<think>\n"
)  # the space before the newline is theirs; between text and sound the server writes one more newline


def prompt(item: Item) -> str:
    """What the server would render, a sound as one patch."""
    shown = {str: lambda s: s, Special: lambda s: s.name, AudioPart: lambda _: "<audio_patch>"}
    segments = render(item.messages(), thinking=item.extra["thinking"])
    return "".join(shown[type(segment)](segment) for segment in segments)


@pytest.mark.parametrize("name", ["mmau", "mmsu", "mmar"])
def test_multiple_choice_is_asked_in_the_authors_words_text_first(name):
    assert prompt(arranged(WHICH, bench(name).profile(), "u")) == CHOICES


def test_spoken_mqa_is_text_and_sound():
    item = arranged(SPOKEN, bench("spoken-mqa").profile(), "u")
    assert prompt(item) == (
        "<|BOT|>human\nSolve the given math question step by step.\n<audio_patch><|EOT|>"
        "<|BOT|>assistant\n<think>\n"
    )


def test_big_bench_audio_is_sound_and_chinese_words():
    item = arranged(SPOKEN, bench("big-bench-audio").profile(), "u")
    assert prompt(item) == (
        '<|BOT|>human\n<audio_patch>仅用 "valid" 或 "invalid"，"yes" 或 "no"，或者数字来直接回答上面的问题，'
        "不要添加任何其他描述。<|EOT|><|BOT|>assistant\n<think>\n"
    )


def test_the_sound_alone_can_be_asked():
    item = arranged(SPOKEN, bench("big-bench-audio").profile("audio-only"), "u")
    assert prompt(item) == "<|BOT|>human\n<audio_patch><|EOT|><|BOT|>assistant\n<think>\n"


@pytest.mark.parametrize(("name", "penalty"), [("mmau", 1.0), ("mmar", 1.07), ("big-bench-audio", 1.0)])
def test_settings_are_the_authors(name, penalty):
    said = arranged(SPOKEN, bench(name).profile(), "u").extra["settings"]
    assert said == {"temperature": 0.7, "repetition_penalty": penalty, "max_tokens": 32_000}


@pytest.mark.parametrize("name", BENCHES)
def test_every_profile_has_settings_that_generation_takes_and_a_name_of_its_own(name):
    profiles = bench(name).profiles
    assert all(Settings(**profile.settings) for profile in profiles)
    assert len({profile.name for profile in profiles}) == len(profiles)


REQUEST = "Please choose the answer from the following options, do not provide any additional explanations"
OTHERS = {
    "official/mmsu": "Choose the most suitable answer from options A, B, C, and D. You must respond with only "
                     "A, B, C, or D.\n\nQuestion: Which one?\n\nA. Cello\nB. Harp",
    "brackets": "Which one?\n(A) Cello\n(B) Harp",
    "none": f"Which one?\n{REQUEST} or content:\nCello\nHarp\n",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_item_can_be_asked_in_other_words(name):
    item = rearranged(arranged(WHICH, bench("mmau").profile(), "u"), bench("mmau").profile(name))
    assert prompt(item) == (
        f"<|BOT|>human\n{OTHERS[name]}\n<audio_patch><|EOT|><|BOT|>assistant\n<think>\n"
    )
    assert profile_of(item) == name


def test_a_style_wins_over_the_profiles():
    item = rearranged(arranged(WHICH, bench("mmau").profile(), "u"), bench("mmau").profile(), style="brackets")
    assert "(B) Harp\n<audio_patch>" in prompt(item)


def test_going_to_another_profile_and_back_changes_nothing():
    there = arranged(WHICH, bench("mmau").profile(), "u")
    back = rearranged(rearranged(there, Profile("x", order=(AUDIO, TEXT), system="Listen.", thinking=False)),
                      bench("mmau").profile())  # fmt: skip
    assert prompt(back) == CHOICES
    assert back.extra == there.extra


def test_an_item_that_was_written_down_can_be_arranged_again():
    written = item_to_json(arranged(SPOKEN, bench("big-bench-audio").profile(), "u"))
    item = rearranged(item_from_json(written), Profile("system", system="Listen well.", thinking=False))
    assert prompt(item) == (
        "<|BOT|>system\nListen well.<|EOT|><|BOT|>human\n<audio_patch><|EOT|>"
        "<|BOT|>assistant\n<think>\n\n</think>\n"
    )


def test_options_can_stand_behind_the_sound():
    item = arranged(WHICH, Profile("x", order=(TEXT, AUDIO, OPTIONS_HERE), option_style="brackets"), "u")
    assert prompt(item).startswith("<|BOT|>human\nWhich one?\n<audio_patch>\n(A) Cello\n(B) Harp<|EOT|>")


TALK = (
    Turn("system", ("Its own.",)),
    Turn("user", (AudioPart(Path("a.wav")), "first")),
    Turn("assistant", ("one",)),
    Turn("user", (AudioPart(Path("b.wav")), "second", OPTIONS)),
)


def test_a_question_with_turns_keeps_them_under_every_profile():
    item = arranged(Question("t", "second", (), Choice(("x", "y"), (0,)), turns=TALK), Profile("a"), "u")
    with_system = rearranged(item, Profile("b", system="Added.", order=(AUDIO,), option_style="brackets"))
    assert [turn.role for turn in with_system.turns] == ["system", "system", "user", "assistant", "user"]
    assert rearranged(with_system, Profile("a")).turns == item.turns == TALK
    assert "(A) x\n(B) y" in prompt(with_system)


def test_sounds_are_replaced_in_their_places():
    item = arranged(Question("t", "", (), Label("x"), turns=TALK), Profile("a"), "u")
    changed = with_sounds(item, ["one.wav", "two.wav"])
    assert [sound.source for sound in changed.sounds] == ["one.wav", "two.wav"]
    assert changed.turns[1].parts[1] == "first"
