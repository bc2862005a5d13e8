"""A reply in a batch is the reply alone; the queue, the memory limit and honest ends, on real models.

Batched products round differently from single ones: logits of size 5 move by about 1e-5. Equal tokens
are asked for only where the model's choice is clear: every reply compared has a margin between its two
best logits of at least MARGIN at every step, which `clear` checks.
"""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map_with_path
from mlx_lm.generate import generate_step

from mlx_audio_r1 import load
from mlx_audio_r1.batch import BUSY_CHUNK, Engine, SeededSampler, seed_of
from mlx_audio_r1.errors import PromptError
from mlx_audio_r1.generate import LOOP_TOKENS, Settings, sampler
from mlx_audio_r1.many import Conversations, answer_many, sample
from tests.helpers import random_checkpoint
from tests.test_generate import ASK, bias_towards

MARGIN = 5e-4
GREEDY = {"temperature": 0.0, "max_tokens": 30, "thinking_budget": 5}  # 10 tokens close the reasoning
Q8 = {"kv_bits": 8, "kv_group_size": 32}


def lively(r1):
    """Norms of one: hardly a token comes twice then, so a wrong context shows."""
    decoder = r1.model.language_model
    decoder.update(tree_map_with_path(
        lambda name, p: mx.ones_like(p) if "norm" in name else p, decoder.parameters()))
    return r1


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    """Random weights in heads of 32, which quantisation groups can divide."""
    folder = tmp_path_factory.mktemp("batch") / "model"
    return lively(load(random_checkpoint(folder, heads=4, kv_heads=2, seed=3)))


def tone(seconds: float, pitch: float) -> tuple[np.ndarray, int]:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (0.3 * np.sin(2 * np.pi * pitch * t)).astype(np.float32), 16_000


@pytest.fixture(scope="module")
def questions(r1):
    """Prompts of six lengths, with and without sound."""
    return [
        r1.question(tone(1.0, 440), "What is it?"), ASK, r1.question(tone(3.0, 200), "?"),
        [{"role": "user", "content": "Count to " + "a hundred and " * 12 + "one."}],
        r1.question([tone(0.5, 900), tone(0.7, 300)]), [{"role": "user", "content": "Why?"}],
    ]


@pytest.fixture(scope="module")
def alone(r1, questions):
    replies = [clear(r1, question, r1.reply(question, **GREEDY)) for question in questions]
    assert min(len({*reply.token_ids}) for reply in replies) > 16
    return replies


def clear(r1, messages, reply, gap: float = MARGIN):
    """The reply, after a check that no greedy choice in it was close."""
    prompt = r1.prepare(messages)
    ids, written = prompt.ids, reply.token_ids
    tail = r1.model.language_model.model.embed_tokens(mx.array(written))
    logits = r1.model(mx.array([ids + written]),
                      input_embeddings=mx.concatenate([prompt.embeddings, tail])[None])[0, len(ids) - 1 : -1]
    best = mx.sort(logits, axis=-1)[:, -2:]
    chosen = mx.argmax(logits, axis=-1) == mx.array(written)
    gaps = mx.where(chosen, best[:, 1] - best[:, 0], mx.inf)  # tokens the gate forced were no choice
    assert gaps.min().item() > gap, "the margin is too small: take another seed or question"
    return reply


def replies_of(many) -> dict[tuple[int, int], object]:
    return {(e.request, e.sample): many.reply(e) for e in many if e.finish_reason}


def same(a, b) -> bool:
    return (a.token_ids, a.thinking, a.answer, a.finish_reason, a.usage) == (
        b.token_ids, b.thinking, b.answer, b.finish_reason, b.usage)


# ---- equal to the reply alone


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_many_questions_get_the_replies_they_get_alone(r1, questions, alone, rows):
    got = list(answer_many(r1, questions, max_rows=rows, **GREEDY))
    assert all(map(same, got, alone))


def test_late_and_early_rows_and_groups_do_not_disturb_each_other(r1, questions, alone):
    """Every few steps another prompt with one to three replies and a limit of its own."""
    limits = [30, 12, 30, 30, 8, 3]
    replies, submitted, steps = {}, 0, 0
    with Conversations(r1, max_rows=5) as many:
        while many.engine.busy or submitted < 6:
            if steps % 4 == 0 and submitted < 6:
                limited = {**GREEDY, "max_tokens": limits[submitted]}
                many.submit(questions[submitted], 3 - submitted % 3, **limited)
                submitted += 1
            replies |= {(e.request, e.sample): many.reply(e) for e in many.step() if e.finish_reason}
            steps += 1
    assert len(replies) == 12
    expected = [
        alone[i] if limit == 30 else
        clear(r1, questions[i], r1.reply(questions[i], **{**GREEDY, "max_tokens": limit}))
        for i, limit in enumerate(limits)
    ]
    assert all(same(reply, expected[i]) for (i, _), reply in replies.items())


@pytest.mark.parametrize("kv", [{**Q8, "quantized_kv_start": 0}, {**Q8, "kv_bits": 4, "quantized_kv_start": 0},
                                {**Q8, "quantized_kv_start": 60}], ids=["8", "4", "8 from 60"])
def test_quantised_rows_are_those_of_one_quantised_stream(r1, questions, kv):
    # 60 lies inside some replies: their rows turn one by one while they decode.
    # Both sides read the same codes, so only float32 rounding differs: but a key that rounds to the
    # next code moves logits by 1e-3. It does not happen here, or the tokens would say so.
    options = {**GREEDY, **kv}
    some = [questions[i] for i in (0, 2, 5, 1)]
    expected = [r1.reply(question, **options) for question in some]
    with Conversations(r1, max_rows=6) as many:
        for i, question in enumerate(some):
            many.submit(question, 1 + i % 2, **options)
        got = replies_of(many)
    assert len(got) == 6 and all(same(reply, expected[i]) for (i, _), reply in got.items())


def test_samples_of_one_prompt_are_equal_when_greedy_also_in_waves(r1, questions, alone):
    with Conversations(r1, max_rows=3) as many:
        many.submit(questions[2], 7, **GREEDY)
        got = replies_of(many)
        read = many.engine.counts.prefilled
    assert len(got) == 7 and all(same(reply, alone[2]) for reply in got.values())
    assert read == alone[2].usage.prompt_tokens - 1  # once for all seven


def test_long_prompts_are_read_in_pieces_between_the_steps_of_running_rows(r1):
    long = [{"role": "user", "content": "x" * 2 * BUSY_CHUNK}]
    with Conversations(r1, max_rows=2) as many:
        many.submit(ASK, **{**GREEDY, "max_tokens": 12})
        while not many.step():
            pass
        many.submit(long, **GREEDY)
        counts = []
        for _ in range(2):
            before = many.engine.counts.prefilled
            [event] = many.step()
            assert event.request == 0
            counts.append(many.engine.counts.prefilled - before)
        assert counts == [BUSY_CHUNK] * 2
        got = replies_of(many)
    assert same(got[1, 0], r1.reply(long, **GREEDY))


# ---- sampling


OPTIONS = [{}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 20}, {"top_p": 0.9, "top_k": 30, "min_p": 0.01}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_seeded_sampler_draws_what_mlx_lms_draws_from_that_seed(options):
    settings = Settings(temperature=0.8, **options)
    logprobs = [mx.random.normal((1, 512), key=mx.random.key(i)) * 3 for i in range(20)]
    logprobs = [x - mx.logsumexp(x) for x in logprobs]
    mx.random.seed(11)
    expected = [sampler(settings)(x).item() for x in logprobs]
    own = SeededSampler(settings, 11)
    assert [own(x).item() for x in logprobs] == expected


def test_a_seed_gives_the_same_samples_whatever_runs_beside_them(r1, questions):
    hot = {"temperature": 1.0, "max_tokens": 12, "seed": 5}
    first = sample(r1, questions[0], 3, **hot)
    assert first[0].token_ids == r1.reply(questions[0], **hot).token_ids
    assert len({tuple(reply.token_ids) for reply in first}) == 3
    with Conversations(r1, max_rows=4) as many:
        many.submit(questions[1], 2, temperature=1.0, max_tokens=9)
        many.submit(questions[0], 3, **hot)
        got = replies_of(many)
    assert [got[1, i].token_ids for i in range(3)] == [reply.token_ids for reply in first]


def test_seeds_of_samples_are_all_different():
    assert seed_of(7, 0) == 7
    assert len({seed_of(seed, i) for seed in range(20) for i in range(20)}) == 400


def test_settings_are_each_requests_own(r1, questions, alone):
    with Conversations(r1) as many:
        many.submit(questions[0], **GREEDY)
        many.submit(questions[0], temperature=1.5, max_tokens=7, repetition_penalty=1.3)
        many.submit(questions[0], temperature=0.0, max_tokens=10, thinking=False)
        got = replies_of(many)
    assert same(got[0, 0], alone[0]) and len(got[1, 0].token_ids) == 7
    assert same(got[2, 0], r1.reply(questions[0], temperature=0.0, max_tokens=10, thinking=False))


# ---- log-probabilities


def test_logprobs_are_those_of_the_model_in_float32(r1, questions):
    prompt = r1.prepare(questions[0], temperature=1.0, max_tokens=10)
    with Engine(r1.model, r1.tokenizer, logprobs=True) as engine:
        engine.submit(prompt.ids, prompt.embeddings, prompt.settings, prompt.thinking_open, 3)
        drafts = {event.sample: event.draft for event in engine}
    for draft in drafts.values():
        written = draft.writer.token_ids
        tail = r1.model.language_model.model.embed_tokens(mx.array(written))
        whole = mx.concatenate([prompt.embeddings, tail])[None]
        logits = r1.model(mx.array([prompt.ids + written]), input_embeddings=whole)[0, len(prompt.ids) - 1 : -1]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        expected = mx.take_along_axis(logprobs, mx.array(written)[:, None], axis=-1)[:, 0]
        # logits of size 5 after some 30 float32 matrix products
        assert mx.abs(expected - mx.array(draft.logprobs)).max().item() < 1e-4


def test_logprobs_of_a_bf16_model_are_not_rounded_to_bf16(golden_dir):
    r1 = load(golden_dir / "tiny-bf16")
    prompt = r1.prepare(ASK, temperature=0.0, max_tokens=6)
    expected = []
    steps = generate_step(mx.array(prompt.ids), r1.model.language_model, max_tokens=6,
                          input_embeddings=prompt.embeddings,
                          logits_processors=[lambda _, logits: logits.astype(mx.float32)])
    expected = [logprobs[token].item() for token, logprobs in steps]
    with Engine(r1.model, r1.tokenizer, logprobs=True) as engine:
        engine.submit(prompt.ids, prompt.embeddings, prompt.settings, prompt.thinking_open)
        got = [event.logprob for event in engine]
    assert got == pytest.approx(expected, abs=1e-6)  # one row: the same bf16 logits
    rounded = mx.array(expected).astype(mx.bfloat16).astype(mx.float32).tolist()
    assert got != pytest.approx(rounded, abs=1e-4)


def test_forced_tokens_have_logprob_zero(r1):
    with Conversations(r1, logprobs=True) as many:
        many.submit(ASK, **GREEDY)
        events = list(many)
    close = r1.tokenizer.encode("\n</think>\n")
    assert [event.token for event in events[5 : 5 + len(close)]] == close
    assert all(event.logprob == 0 for event in events[5 : 5 + len(close)])
    assert all(event.logprob < 0 for event in events[:5])


# ---- how replies end


def test_events_carry_the_steps_of_the_stream(r1, questions, alone):
    with Conversations(r1) as many:
        many.submit(questions[2], **GREEDY)
        events = list(many)
    steps = [step for event in events for step in event.steps]
    assert steps == list(r1.stream(questions[2], **GREEDY))
    assert [event.token for event in events] == alone[2].token_ids
    assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)


@pytest.mark.parametrize("token", ["A", "<|EOT|>"])
def test_loops_and_stops_end_as_they_do_alone(golden_dir, token):
    r1 = load(golden_dir / "tiny-fp32")
    bias_towards(r1, r1.tokenizer.special.get(token) or ord(token))
    long = {"temperature": 0.0, "max_tokens": 1000}
    expected = [r1.reply(ASK, **long), r1.reply(ASK, thinking=False, **long)]
    with Conversations(r1) as many:
        many.submit(ASK, 2, **long)
        many.submit(ASK, thinking=False, **long)
        got = replies_of(many)
    assert same(got[0, 0], expected[0]) and same(got[0, 1], expected[0]) and same(got[1, 0], expected[1])
    assert got[1, 0].finish_reason == ("loop" if token == "A" else "stop")
    assert len(got[0, 0].token_ids) < 3 * LOOP_TOKENS


def test_cancelled_rows_are_silent_and_the_others_do_not_notice(r1, questions, alone):
    with Conversations(r1, max_rows=4) as many:
        many.submit(questions[0], 3, **GREEDY)
        many.submit(questions[1], **GREEDY)
        many.submit(questions[2], 2, **GREEDY)
        events = []
        while len(events) < 15:
            events += many.step()
        assert many.cancel(0, 1) and many.cancel(2) and not many.cancel(2) and not many.cancel(9)
        silent = {(event.request, event.sample) for event in many}
        assert silent == {(0, 0), (0, 2), (1, 0)}
        assert many.engine.kv_nbytes == 0
    with Conversations(r1, max_rows=4) as many:
        many.submit(questions[3], 2, prefill_step_size=16, **GREEDY)
        many.submit(questions[0], **GREEDY)
        many.step()
        assert 0 < many.engine.counts.prefilled < 100 and many.cancel(0)  # in the middle of its prompt
        assert same(replies_of(many)[1, 0], alone[0])


# ---- memory


def test_rows_wait_until_their_bytes_are_free_and_estimates_hold(r1, questions, alone):
    with Conversations(r1) as many:
        for question in questions:
            many.submit(question, **GREEDY)
        one = max(many.engine.kv_bytes([request]) for request in many.engine._queue)
    with Conversations(r1, kv_limit=2 * one) as many:
        for i, question in enumerate(questions):
            many.submit(question, 1 + i % 2, **GREEDY)
        replies, most = {}, 0
        while many.engine.busy:
            for event in many.step():
                if event.finish_reason:
                    replies[event.request, event.sample] = many.reply(event)
            most = max(most, many.engine.kv_nbytes)
            assert many.engine.kv_nbytes <= 2 * one and many.engine.running <= 4
    assert len(replies) == 9 and all(same(reply, alone[i]) for (i, _), reply in replies.items())
    assert most > one  # and more than one row was let in


def sized(r1, length: int, max_tokens: int) -> tuple:
    """The arguments of Engine.submit for a prompt of so many tokens."""
    ids = np.random.RandomState(length).randint(5, 300, length).tolist()
    embeddings = r1.model.embed(mx.array(ids), [], r1.tokenizer.audio_patch_id)
    return ids, embeddings, Settings(max_tokens=max_tokens, temperature=0.0), False


@pytest.mark.parametrize("kv", [{}, {**Q8, "quantized_kv_start": 0}], ids=["exact", "8 bit"])
def test_the_estimate_covers_long_rows_beside_short_ones(r1, kv):
    with Conversations(r1) as many:
        for length, limit, n in (300, 6, 1), (20, 12, 1), (30, 12, 1), (290, 5, 2):
            ids, embeddings, settings, open_ = sized(r1, length, limit)
            many.engine.submit(ids, embeddings, replace(settings, **kv), open_, n)
        requests = [request for request in many.engine._queue for _ in range(request.num_samples)]
        estimate = many.engine.kv_bytes(requests)
        most = 0
        while many.engine.busy:
            many.step()
            most = max(most, many.engine.kv_nbytes)
            if not many.engine.waiting:
                rows = [request for request, _ in many.engine._drafts.values()]
                assert many.engine.kv_nbytes <= many.engine.kv_bytes(rows)
    # three rows side by side take three times the room of the longest, and the pair its prompt once; a
    # prompt that will be quantised counts twice, since it is exact while it is read
    assert estimate / (4 if kv else 2) < most <= estimate


def test_a_prompt_is_not_read_before_its_bytes_are_free(r1):
    with Conversations(r1, kv_limit=1_200_000) as many:  # each takes 512 tokens of 2,048 bytes at most
        first = many.engine.submit(*sized(r1, 201, 8))
        many.engine.submit(*sized(r1, 211, 8))
        seen = []
        while many.engine.busy:
            events = many.step()
            seen += [(event.request, many.engine.counts.prefilled) for event in events]
    assert len(seen) > 4 and {read for request, read in seen if request == first} == {200}


def test_a_seated_prompt_is_let_go(r1):
    with Conversations(r1) as many:
        many.engine.submit(*sized(r1, 500, 40))
        before = mx.get_active_memory()
        for _ in range(6):
            many.step()
        held = mx.get_active_memory() - before
        # a second copy of the prompt would be another megabyte
        assert many.engine.running and held < many.engine.kv_nbytes + 500_000


def test_what_can_never_fit_is_refused_with_the_numbers(r1):
    with Conversations(r1, kv_limit=1_100_000) as many:
        with pytest.raises(PromptError, match=r"take 4,194,304 bytes of KV cache, the limit is 1,100,000"):
            many.submit(ASK, max_tokens=2000)
        assert not many.engine.busy
        many.submit(ASK, max_tokens=4, temperature=0.0)
        assert len(replies_of(many)) == 1


def test_a_shared_prompt_takes_its_bytes_once(r1):
    long = [{"role": "user", "content": "x" * 300}]
    with Conversations(r1, max_rows=16) as many:
        many.submit(long, 16, temperature=0.0, max_tokens=4)
        while not many.step():
            pass
        prompt = len(r1.prompt_ids(long)) - 1
        per_token = 4 * 2 * 2 * 32 * 4  # layers, keys and values, kv heads, head size, float32
        assert many.engine.kv_nbytes == per_token * (prompt + 16 * 256)


def test_memory_is_given_back(r1, questions):
    levels = []
    for _ in range(3):
        list(answer_many(r1, questions, max_rows=3, **GREEDY))
        levels.append(mx.get_active_memory())
    assert levels[2] <= levels[1] + 4096


# ---- refusals


@pytest.mark.parametrize(("options", "said"), [
    ({"max_kv_size": 64}, "max_kv_size does not go with a batch"),
    ({"kv_bits": 4, "kv_group_size": 64}, "head size 32"),
])
def test_what_a_batch_cannot_do_is_refused(r1, options, said):
    with Conversations(r1) as many:
        with pytest.raises(PromptError, match=said):
            many.submit(ASK, **options)
        assert not many.engine.busy


def test_prompts_that_cannot_be_are_refused(r1):
    prompt = r1.prepare(ASK)
    settings = Settings(max_tokens=5)
    with Engine(r1.model, r1.tokenizer) as engine:
        for ids, rows, n in ([], prompt.embeddings, 1), (prompt.ids, prompt.embeddings[1:], 1), (
                prompt.ids, prompt.embeddings, 0):
            with pytest.raises(PromptError):
                engine.submit(ids, rows, settings, True, n)
        with pytest.raises(PromptError, match="context of 65536"):
            engine.submit(prompt.ids, prompt.embeddings, Settings(max_tokens=65_536), True)
        with pytest.raises(PromptError, match="the vocabulary has 512 tokens"):
            engine.submit(prompt.ids, prompt.embeddings, Settings(max_tokens=5, top_k=512), True)
    with pytest.raises(PromptError, match="max_rows"):
        Engine(r1.model, r1.tokenizer, max_rows=0)


def test_a_prompt_of_one_token_is_answered(r1):
    ids = r1.tokenizer.encode("A")
    embeddings = r1.model.embed(mx.array(ids), [], r1.tokenizer.audio_patch_id)
    with Engine(r1.model, r1.tokenizer) as engine:
        engine.submit(ids, embeddings, Settings(max_tokens=5, temperature=0.0), False, 2)
        tokens = {0: [], 1: []}
        for event in engine:
            tokens[event.sample].append(event.token)
    expected = [t for t, _ in generate_step(mx.array(ids), r1.model.language_model, max_tokens=5)]
    assert tokens == {0: expected, 1: expected}


def test_a_question_that_cannot_be_asked_raises(r1, questions):
    with pytest.raises(PromptError):
        list(answer_many(r1, [questions[0], []], **GREEDY))
    assert list(answer_many(r1, [])) == []
