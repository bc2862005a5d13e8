"""What is learnt of a row, token by token, and that the prompt is the one that is served."""

from dataclasses import replace

import numpy as np
import pytest

from mlx_audio_r1 import load
from mlx_audio_r1.config import patch_count
from mlx_audio_r1.errors import DataError
from mlx_audio_r1.train.examples import ExampleMaker, ExampleOptions
from mlx_audio_r1.train.replies import completion_text, is_laid_out, thinking_and_answer
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.sounds import Sounds
from tests.helpers import GOLDEN
from tests.train.data_sets import asked, tone, write_rows, write_wav

EMPTY_THINKING = "\n</think>\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    write_wav(folder / "a.wav", tone(1.0))
    write_wav(folder / "b.wav", tone(0.5, 880))
    write_wav(folder / "minute.wav", tone(60.0, 440.03))  # no whole periods in 25 s
    return folder


@pytest.fixture
def row(folder):
    def read(data):
        return next(read_rows(write_rows(folder / "train.jsonl", [data])))

    return read


def maker(r1, context=4_096, **options):
    config = replace(r1.config, text=replace(r1.config.text, max_position_embeddings=context))
    sounds = Sounds(convention=config.length_convention)
    return ExampleMaker(r1.tokenizer, config, sounds, ExampleOptions(**options))


def learnt(r1, example):
    """The text of the tokens that are learnt."""
    return r1.tokenizer.decode(example.ids[example.weights > 0].tolist())


@pytest.mark.parametrize(("reply", "written"), [
    ("A", "\n</think>\nA"),
    ("<think>\nx\n</think>\nA", "x\n</think>\nA"),
    ("<think>\n\n</think>\nA", "\n</think>\nA"),
    ("<think>x</think>A", "x</think>A"),
    ("  <think>\r\nx\n</think>\nA ", "x\n</think>\nA "),
    ("x\n</think>\nA", "x\n</think>\nA"),
    ("the <think> tag", "\n</think>\nthe <think> tag"),
])
def test_the_model_writes_what_follows_the_opening_tag(reply, written):
    assert completion_text(reply) == written


def test_replies_are_split_and_their_layout_is_seen():
    assert thinking_and_answer("<think>\nx\n</think>\nA") == ("x", "A")
    assert thinking_and_answer("A") == ("", "A")
    assert [is_laid_out(r) for r in ("A", "<think>\nx\n</think>\nA", "<think>x\n</think>\nA",
                                     "<think>\nx</think>A")] == [True, True, False, False]  # fmt: skip


def test_the_prompt_is_the_served_one_and_the_reply_is_tokenised_by_itself(tiny, row, folder):
    data = asked("What?", "<think>\nhigh\n</think>\nA tone", "a.wav", "b.wav")
    made = maker(tiny).sft(row(data))
    parts = [{"type": "audio", "audio": str(folder / name)} for name in ("a.wav", "b.wav")]
    prompt = tiny.prompt_ids([{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}])
    reply = [*tiny.tokenizer.encode("high\n</think>\nA tone"), tiny.tokenizer.special["<|EOT|>"]]
    assert made.ids.tolist() == [*prompt, *reply] and made.ids.dtype == np.int32
    assert made.weights.tolist() == [0.0] * len(prompt) + [1.0] * len(reply)
    assert made.weights.dtype == np.float32
    assert [chunk.patches for chunk in made.sounds] == [13, 7]
    assert (made.ids[made.patch_at] == tiny.tokenizer.audio_patch_id).all() and len(made.patch_at) == 20
    assert made.name == "train.jsonl:1"


def test_a_reply_without_reasoning_is_learnt_in_the_papers_form(tiny, row):
    made = maker(tiny).sft(row(asked("What?", "A tone", "a.wav")))
    assert tiny.tokenizer.decode(made.ids.tolist()).endswith("assistant\n<think>\n\n</think>\nA tone<|EOT|>")
    assert learnt(tiny, made) == "\n</think>\nA tone<|EOT|>"


def test_text_is_never_a_special_token(tiny, row):
    made = maker(tiny).sft(row(asked("<|EOT|><audio_patch>", "<|EOT|>")))
    assert (made.ids == tiny.tokenizer.special["<|EOT|>"]).sum() == 2  # the user's turn and the reply end
    assert len(made.patch_at) == 0 and made.sounds == ()


HISTORY = [{"role": "system", "content": "S"}, {"role": "user", "content": "one"},
           {"role": "assistant", "content": "<think>\nhm\n</think>\nfirst"}, {"role": "user", "content": "two"},
           {"role": "assistant", "content": "second"}]  # fmt: skip


def conversation(**flags):
    """The same exchange, with these flags on the assistant's first turn."""
    return {"messages": [{**turn, **flags} if i == 2 else turn for i, turn in enumerate(HISTORY)]}


@pytest.mark.parametrize(("flags", "close", "text"), [
    ({}, False, f"{EMPTY_THINKING}second<|EOT|>"),
    ({"loss": False}, False, f"{EMPTY_THINKING}second<|EOT|>"),
    ({"loss": True}, False, f"hm\n</think>\nfirst{EMPTY_THINKING}second<|EOT|>"),
    ({"loss": True}, True, f"hm\n</think>\nfirst<|EOT|>{EMPTY_THINKING}second<|EOT|>"),
])
def test_earlier_turns_are_learnt_where_they_say_so(tiny, row, flags, close, text):
    made = maker(tiny, close_history=close).sft(row(conversation(**flags)))
    assert learnt(tiny, made) == text
    prompt = tiny.prompt_ids(HISTORY[:-1], close_history=close)
    assert made.ids[: len(prompt)].tolist() == prompt


def test_scales_weigh_their_own_turn(tiny, row):
    data = conversation(loss_scale=0.5)
    data["messages"][-1] = {**data["messages"][-1], "loss_scale": 2}
    made = maker(tiny).sft(row(data))
    by_weight = {w: tiny.tokenizer.decode(made.ids[made.weights == w].tolist()) for w in (0.5, 2.0)}
    assert by_weight == {0.5: "hm\n</think>\nfirst", 2.0: f"{EMPTY_THINKING}second<|EOT|>"}


def test_the_last_turn_may_be_switched_off_beside_another(tiny, row):
    data = conversation(loss=True)
    data["messages"][-1] = {**data["messages"][-1], "loss": False}
    assert learnt(tiny, maker(tiny).sft(row(data))) == "hm\n</think>\nfirst"


def test_without_the_mask_all_text_is_learnt_and_never_the_sound(tiny, row):
    made = maker(tiny, mask_prompt=False).sft(row(asked("What?", "A", "a.wav")))
    special = tiny.tokenizer.special
    sound = np.isin(made.ids, [special[f"<audio_{name}>"] for name in ("start", "patch", "end")])
    assert sound.sum() == 15 and not made.weights[sound].any()
    assert made.weights[0] == 0 and (made.weights[1:] == ~sound[1:]).all()
    quiet = maker(tiny, mask_prompt=False).sft(row(conversation(loss=False)))
    assert "first" not in learnt(tiny, quiet) and "one" in learnt(tiny, quiet)


def test_schemas_of_tools_are_rendered_and_do_not_move_the_weights(tiny, row):
    made = maker(tiny).sft(row({**conversation(loss=True), "tools": [{"name": "f"}]}))
    assert learnt(tiny, made) == f"hm\n</think>\nfirst{EMPTY_THINKING}second<|EOT|>"
    prompt = tiny.prompt_ids(HISTORY[:-1], tools=[{"name": "f"}])
    assert made.ids[: len(prompt)].tolist() == prompt


def test_a_preference_is_one_prompt_with_two_replies(tiny, row):
    data = {"prompt": "<audio>Q", "chosen": "<think>\nx\n</think>\nA", "rejected": "B", "audios": ["a.wav"]}
    chosen, rejected = maker(tiny, mask_prompt=False).pair(row(data))
    assert learnt(tiny, chosen) == "x\n</think>\nA<|EOT|>"
    assert learnt(tiny, rejected) == "\n</think>\nB<|EOT|>"
    prompts = [e.ids[: len(e) - e.learnt].tolist() for e in (chosen, rejected)]
    assert prompts[0] == prompts[1] and chosen.sounds == rejected.sounds
    assert maker(tiny).prompt(row(data)).ids.tolist() == prompts[0]


def test_a_prompt_for_rl_has_nothing_learnt(tiny, row):
    made = maker(tiny).prompt(row({"prompt": "<audio>Q", "audios": ["a.wav"], "solution": "A"}))
    assert made.learnt == 0 and tiny.tokenizer.decode(made.ids.tolist()).endswith("assistant\n<think>\n")


@pytest.mark.parametrize("convention", ["vllm", "hf"])
def test_long_sounds_fall_into_the_chunks_that_ask_hears(tiny, tiny_hf, row, folder, convention):
    r1 = {"vllm": tiny, "hf": tiny_hf}[convention]
    made = maker(r1).sft(row(asked("What?", "A", "minute.wav", "b.wav")))
    samples = [400_000, 400_000, 160_000, 8_000]  # 25, 25, 10 and 0.5 s
    assert [chunk.samples for chunk in made.sounds] == samples
    assert [chunk.patches for chunk in made.sounds] == [patch_count(n, convention) for n in samples]
    assert [chunk.index for chunk in made.sounds] == [0, 1, 2, 0]
    assert len({chunk.digest for chunk in made.sounds}) == 4
    assert len(made.patch_at) == sum(chunk.patches for chunk in made.sounds)
    assert (made.ids == r1.tokenizer.special["<audio_start>"]).sum() == 4


def test_a_sound_is_heard_as_the_session_hears_it(row, folder):
    r1 = load(GOLDEN / "tiny-fp32")  # in chunks of 25 s, as is the default
    (part,) = row(asked("", "A", "minute.wav")).sounds
    heard, found = r1.listen([part], encode=False), Sounds()(part)
    assert [chunk.digest for chunk in found.chunks] == heard.digests
    assert [found.patches] == heard.patches and found.seconds == heard.seconds


@pytest.mark.parametrize(("data", "make", "words"), [
    (asked("Q", "A", "none.wav"), "sft", "none.wav: no such file"),
    (asked("Q", "A", "train.jsonl"), "sft", "not sound"),
    (asked("Q " * 900, "A"), "sft", "more than the context of 700"),
    (asked("Q", "A " * 900), "sft", "more than the context of 700"),
    (asked("Q", "A", "minute.wav"), "sft", "more than the context of 700"),
    ({"prompt": "Q", "answer": "A"}, "sft", "for RL"),
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "sft", "train dpo"),
    (asked("Q", "A"), "pair", "rejected_response"),
    ({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "loss": False}]},
     "sft", "no token of it is learnt"),
])  # fmt: skip
def test_what_cannot_be_learnt_is_refused_with_its_line(tiny, row, data, make, words):
    with pytest.raises(DataError) as caught:
        getattr(maker(tiny, context=700), make)(row(data))
    assert "train.jsonl:1: " in str(caught.value) and words in str(caught.value)
    assert "\n" not in str(caught.value)
