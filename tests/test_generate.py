"""Decoding: the budget, loops, honest reasons, seeds and the KV options, on real models."""

import mlx.core as mx
import pytest

from mlx_audio_r1 import load
from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.generate import (
    LOOP_TOKENS,
    PRESETS,
    LoopWatch,
    ReplyWriter,
    Settings,
    processors,
    settings_from,
)

ASK = [{"role": "user", "content": "What do you hear?"}]


@pytest.fixture(scope="module")
def stuck(golden_dir):
    """A checkpoint whose head can say one thing only: the letter A."""
    r1 = load(golden_dir / "tiny-fp32")
    bias_towards(r1, ord("A"))
    return r1


def bias_towards(r1, token: int) -> None:
    """Make `token` the only one with a logit above 0, whatever the input."""
    r1.model.language_model.model.norm = Constant()
    head = mx.zeros((512, 128))
    head[token] = 1.0
    r1.model.language_model.lm_head.weight = head


class Constant:
    """Stands where the last norm stands and gives ones: a model that always says the same."""

    def __call__(self, x: mx.array) -> mx.array:
        return mx.ones_like(x)


def test_the_budget_closes_the_reasoning_and_an_answer_follows(tiny):
    reply = tiny.reply(ASK, temperature=0.0, max_tokens=40, thinking_budget=10)
    close = tiny.tokenizer.encode("\n</think>\n")
    assert reply.token_ids[10 : 10 + len(close)] == close
    assert tiny.tokenizer.decode(reply.token_ids).count("</think>") == 1
    assert reply.answer and reply.finish_reason in ("budget", "length")
    free = tiny.reply(ASK, temperature=0.0, max_tokens=40)
    assert free.answer == "" and free.finish_reason == "length"
    assert reply.token_ids[:10] == free.token_ids[:10]


def test_a_budget_leaves_room_for_the_answer(tiny):
    reply = tiny.reply(ASK, temperature=0.0, max_tokens=40, thinking_budget=10_000)
    assert reply.answer and reply.finish_reason == "length"
    assert reply.usage.answer_tokens >= 10


def test_budget_zero_answers_at_once(tiny):
    reply = tiny.reply(ASK, temperature=0.0, max_tokens=30, thinking_budget=0)
    assert reply.thinking == "" and reply.answer


def test_no_thinking_leaves_no_reasoning(tiny):
    reply = tiny.reply(ASK, temperature=0.0, max_tokens=12, thinking=False)
    assert reply.thinking == "" and reply.usage.reasoning_tokens == 0
    assert reply.usage.answer_tokens == 12


def test_a_loop_ends_the_reasoning_and_then_the_answer(stuck):
    reply = stuck.reply(ASK, temperature=0.0, max_tokens=1000)
    assert reply.finish_reason == "loop"
    assert set(reply.thinking) == {"A"} and set(reply.answer) == {"A"}
    assert len(reply.token_ids) < 3 * LOOP_TOKENS


def test_a_stop_token_ends_the_reply(golden_dir):
    r1 = load(golden_dir / "tiny-fp32")
    bias_towards(r1, r1.tokenizer.special["<|EOT|>"])
    reply = r1.reply(ASK, temperature=0.0, max_tokens=50, thinking=False)
    assert reply.finish_reason == "stop" and reply.answer == "" and len(reply.token_ids) == 1


def test_a_budget_is_reported_when_the_answer_ends_by_itself(tiny, golden_dir):
    # Seen from outside: closed by the budget, then stopped by a stop id of our choosing.
    r1 = load(golden_dir / "tiny-fp32")
    first = r1.reply(ASK, temperature=0.0, max_tokens=60, thinking_budget=5)
    begin = 5 + len(r1.tokenizer.encode("\n</think>\n"))
    new = [t for i, t in enumerate(first.token_ids) if i > begin and t not in first.token_ids[:i]]
    r1.tokenizer.stop_ids = frozenset({new[0]})
    reply = r1.reply(ASK, temperature=0.0, max_tokens=60, thinking_budget=5)
    assert reply.finish_reason == "budget"


@pytest.mark.parametrize(("period", "tokens"), [
    # six repeats and at least 64 tokens; three repeats of what is as long as a paragraph
    (1, 64), (2, 64), (7, 64), (40, 240), (127, 762), (128, 384), (512, 1536),
])
def test_loop_watch_sees_any_period(period, tokens):
    watch = LoopWatch()
    seen = [watch.push(i % period) for i in range(2000)]
    assert seen.index(True) + 1 == tokens


def test_loop_watch_is_quiet_on_text_without_loops():
    watch = LoopWatch()
    rolling = [(i * i + i // 7) % 251 for i in range(3000)]
    assert not any(watch.push(t) for t in rolling)


def test_the_same_seed_gives_the_same_reply(tiny):
    replies = [tiny.reply(ASK, seed=s, temperature=1.0, max_tokens=16).token_ids for s in (1, 1, 2)]
    assert replies[0] == replies[1] != replies[2]


def test_prefill_in_small_steps_gives_the_same_tokens_and_reports_progress(tiny):
    calls = []
    small = tiny.reply(ASK, temperature=0.0, max_tokens=12, prefill_step_size=7,
                       progress=lambda done, total: calls.append((done, total)))
    assert small.token_ids == tiny.reply(ASK, temperature=0.0, max_tokens=12).token_ids
    total = small.usage.prompt_tokens
    assert calls[0] == (0, total) and calls[-1] == (total, total) and len(calls) > 4


def test_quantised_kv_follows_the_exact_one(nano_like):
    exact = nano_like.reply(ASK, temperature=0.0, max_tokens=8)
    quantised = nano_like.reply(ASK, temperature=0.0, max_tokens=8, kv_bits=8, kv_group_size=32,
                                quantized_kv_start=0)
    # 8-bit keys and values move logits by about 1e-2 here; the first tokens have wider margins
    assert quantised.token_ids[:4] == exact.token_ids[:4]


@pytest.fixture(scope="module")
def nano_like(tmp_path_factory):
    """Tiny weights in heads of 32, which quantisation groups can divide."""
    from tests.helpers import random_checkpoint

    return load(random_checkpoint(tmp_path_factory.mktemp("kv") / "model", heads=4, kv_heads=2))


def test_a_group_size_that_does_not_divide_the_heads_is_refused(tiny):
    with pytest.raises(PromptError, match="head size 16"):
        tiny.reply(ASK, kv_bits=4)
    assert settings_from({"max_new_tokens": None}).max_tokens == 32_000


def written(tiny, text: str, settings: Settings) -> tuple[str, str, str, int]:
    """What a model that wants to say `text` says: one token ahead of the writer, as mlx-lm samples."""
    ids = tiny.tokenizer.encode(text)
    writer = ReplyWriter(tiny.tokenizer, 1, settings, thinking_open=True)
    tokens, steps, wanted = [0], [], iter(ids)
    pending: list[int] = []
    while len(writer.token_ids) < settings.max_tokens and not writer.finish_reason:
        while len(pending) < 2:
            logits = mx.zeros((1, 512))
            gated = writer.gate(mx.array(tokens), logits)
            free = bool(mx.all(gated == logits))
            pending.append(next(wanted, 10) if free else int(mx.argmax(gated)))
            tokens.append(pending[-1])
        steps += writer.push(pending.pop(0))
    steps += writer.finish()
    parts = ["".join(s.text for s in steps if s.kind == k) for k in ("thinking", "answer")]
    return (*parts, writer.finish_reason, len(writer.token_ids))


def test_a_reasoning_that_is_opened_again_is_still_within_loop_watch_and_budget(tiny):
    looping = "x\n</think>\n<think>\n" + "ab" * 2000
    _, _, reason, length = written(tiny, looping, Settings(max_tokens=600))
    assert reason == "loop" and length < 400
    endless = "x\n</think>\n<think>\n" + "".join(chr(33 + i * i % 89) for i in range(2000))
    thinking, answer, _, _ = written(tiny, endless, Settings(max_tokens=600, thinking_budget=30))
    assert len(thinking) < 40 and len(answer) > 100


def test_a_budget_always_leaves_room_for_the_closing_tag(tiny):
    thinking, answer, _, _ = written(tiny, "a long thought " * 20, Settings(max_tokens=24, thinking_budget=100))
    assert answer and "<" not in thinking


def test_a_top_k_beyond_the_vocabulary_and_every_kind_of_kv_group(tiny):
    assert len(tiny.reply(ASK, top_k=1000, max_tokens=4).token_ids) == 4
    with pytest.raises(PromptError, match="cannot be quantised"):
        tiny.reply(ASK, kv_bits=8, kv_group_size=32)


def test_a_rotating_cache_smaller_than_the_prompt_is_refused(tiny):
    with pytest.raises(PromptError, match="max_kv_size"):
        tiny.reply(ASK, max_kv_size=16)


def test_presets_are_settings_and_the_penalty_sees_the_whole_stream(tiny):
    for preset in PRESETS.values():
        Settings(**preset)
    assert PRESETS["mmar"]["repetition_penalty"] == 1.07
    gate = ReplyWriter(tiny.tokenizer, 1, Settings(), True).gate
    penalty, _ = processors(Settings(repetition_penalty=2.0), gate)
    far_back = mx.array([7] + [9] * 500)
    assert penalty(far_back, mx.ones((1, 512)))[0, 7].item() == 0.5


@pytest.mark.parametrize("wrong", [
    {"max_tokens": 3.5}, {"max_tokens": True}, {"max_tokens": None}, {"temperature": "hot"},
    {"quantized_kv_start": -5}, {"kv_group_size": 16},
    {"max_tokens": 0}, {"temperature": -1}, {"top_p": 1.1}, {"kv_bits": 7}, {"thinking_budget": -1},
    {"kv_bits": 4, "max_kv_size": 64}, {"seed": -1},
])
def test_impossible_settings_are_named(wrong):
    with pytest.raises(PromptError, match=next(iter(wrong))):
        Settings(**wrong)


def test_generation_config_gives_defaults():
    got = settings_from({"temperature": 0.3, "top_p": 0.9, "do_sample": True, "eos_token_id": 1})
    assert (got.temperature, got.top_p, got.max_tokens) == (0.3, 0.9, 32_000)
    assert settings_from({"do_sample": False, "temperature": 0.3}).temperature == 0.0
    assert settings_from({"max_new_tokens": 77}).max_tokens == 77


def test_a_prompt_longer_than_the_context_says_how_much_fits(tiny):
    long = [{"role": "user", "content": "x" * 70_000}]
    with pytest.raises(PromptError, match="65536"):
        tiny.reply(long)
