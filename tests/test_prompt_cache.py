"""A sound asked about twice is heard once: the work is counted, and what is kept is never wrong."""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_audio_r1 import load, prompt_cache
from mlx_audio_r1.errors import DiskError
from mlx_audio_r1.many import Conversations, answer_many
from mlx_audio_r1.models.shared_prefix import EXACT, KVFormat, Segment
from mlx_audio_r1.prompt import AudioPart, Message
from mlx_audio_r1.prompt_cache import ByteLRU, Folder, Prefix, PromptCache, fingerprint
from mlx_audio_r1.session import audio_comes_first
from tests.helpers import random_checkpoint
from tests.test_batch import lively

GREEDY = {"temperature": 0.0, "max_tokens": 24, "thinking_budget": 2}
Q8 = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0}
CLIP = ((0.3 * np.sin(np.arange(32_000) / 7)).astype(np.float32), 16_000)  # 2 s: 25 patches
PREFIX = 1 + len("human\n") + 1 + 25 + 1  # <|BOT|>, the role, <audio_start>, patches, <audio_end>


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("cache") / "model", heads=4, kv_heads=2)


@pytest.fixture
def r1(checkpoint):
    r1 = lively(load(checkpoint))
    r1.prompt_cache = PromptCache("this model")
    return r1


@pytest.fixture
def exact(r1):
    """Replies without any cache."""
    def reply(question, **options):
        r1.prompt_cache, kept = None, r1.prompt_cache
        try:
            return r1.reply(question, **{**GREEDY, **options})
        finally:
            r1.prompt_cache = kept
    return reply


def work(r1, questions, num_samples: int = 1, **options) -> tuple[int, list[list[int]]]:
    """Prompt tokens read for these questions in one batch, and the tokens of their first replies."""
    with Conversations(r1) as many:
        for question in questions:
            many.submit(question, num_samples, **{**GREEDY, **options})
        replies = {e.request: many.reply(e) for e in many if e.finish_reason and e.sample == 0}
        return many.engine.counts.prefilled, [replies[i].token_ids for i in range(len(questions))]


@pytest.mark.parametrize("options", [{}, Q8], ids=["exact", "8 bit"])
def test_a_second_question_skips_the_encoder_and_the_audio(r1, options):
    first, second = r1.question(CLIP, "What is it?"), r1.question(CLIP, "Who?")
    whole = [len(r1.prompt_ids(question)) - 1 for question in (first, second)]
    assert work(r1, [first], **options)[0] == whole[0] and r1.prompt_cache.encoded == 1
    tokens, later = work(r1, [second], **options)
    assert tokens == whole[1] - PREFIX and r1.prompt_cache.encoded == 1
    assert work(r1, [second, first], **options) == (sum(whole) - 2 * PREFIX, [*later, *work(r1, [first],
                                                                              **options)[1]])


def test_what_is_kept_changes_no_reply(r1, exact):
    questions = [r1.question(CLIP, text) for text in ("What is it?", "Who?", "Why?")]
    expected = [exact(question).token_ids for question in questions]
    for _ in range(2):
        assert work(r1, questions)[1] == expected
        assert work(r1, questions, num_samples=3)[1] == expected
    assert [reply.token_ids for reply in answer_many(r1, questions, **GREEDY)] == expected


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}, {"max_kv_size": 100}], ids=str)
def test_single_replies_use_it_too(r1, exact, options):
    questions = [r1.question(CLIP, text) for text in ("What is it?", "Who?")]
    read = []
    for question in (*questions, questions[0]):
        reply = r1.reply(question, progress=lambda done, total: read.append(total), **{**GREEDY, **options})
        assert reply.token_ids == exact(question, **options).token_ids
    skipped = 0 if "max_kv_size" in options else PREFIX
    assert read[-1] == len(r1.prompt_ids(questions[0])) - skipped
    assert r1.prompt_cache.encoded == 1


def test_questions_about_one_sound_share_it_while_they_run(r1):
    prompts = [r1.question(CLIP, text) for text in ("What is it?", "Who?", "Why?")]
    work(r1, prompts[:1])
    with Conversations(r1) as many:
        for prompt in prompts:
            many.submit(prompt, **GREEDY)
        while many.engine.running < 3:
            many.step()
        per_token = 4 * 2 * 2 * 32 * 4  # layers, keys and values, kv heads, head size, float32
        assert many.engine.kv_nbytes == per_token * (PREFIX + 3 * 256)


def test_a_kept_prefix_is_quantised_with_the_prompt_that_is_long_enough(r1):
    question = r1.question(CLIP, "What is it?")
    start = PREFIX + 5  # the prefix alone is kept exact, the prompt is not
    options = {**GREEDY, **Q8, "quantized_kv_start": start}
    expected = r1.reply(question, **options).token_ids
    with Conversations(r1) as many:
        many.submit(question, 2, **options)
        events = []
        while not events:
            events = many.step()
        prompt = len(r1.prompt_ids(question)) - 1
        per_token = 4 * 2 * 2 * (32 + 2 * 4)  # layers, keys and values, kv heads, 32 bytes and two floats
        assert many.engine.kv_nbytes == per_token * (prompt + 2 * 256)
        tokens = [event.token for event in [*events, *many] if event.sample == 0]
    assert tokens == expected


def test_a_prompt_that_ends_with_a_sound_is_answered(r1, exact):
    messages = [Message("assistant", (AudioPart(CLIP[0], 16_000),))]
    assert r1.reply(messages, **GREEDY).token_ids == exact(messages).token_ids
    assert work(r1, [messages])[1] == [exact(messages).token_ids]


def test_other_sounds_orders_settings_and_models_are_not_mixed_up(r1, exact, checkpoint, monkeypatch):
    question = r1.question(CLIP, "What is it?")
    whole = len(r1.prompt_ids(question)) - 1
    work(r1, [question])
    other = (CLIP[0] * 0.99, 16_000)
    assert work(r1, [r1.question(other, "What is it?")]) == (
        whole, [exact(r1.question(other, "What is it?")).token_ids])
    two, owt = r1.question([CLIP, other], "?"), r1.question([other, CLIP], "?")
    for sounds in (two, owt):
        assert work(r1, [sounds]) == (len(r1.prompt_ids(sounds)) - 1, [exact(sounds).token_ids])
    assert work(r1, [question], **Q8)[0] == whole
    assert work(r1, [question])[0] == whole - PREFIX
    encoded = r1.prompt_cache.encoded
    monkeypatch.setattr(prompt_cache, "FRONT_END_VERSION", 2)
    assert work(r1, [question])[0] == whole and r1.prompt_cache.encoded == encoded + 1


def test_only_sounds_that_come_first_leave_a_prefix(r1):
    def parts(*kinds: str) -> list[Message]:
        return [Message("user", tuple(AudioPart(CLIP[0], 16_000) if k == "a" else k for k in kinds))]

    assert audio_comes_first(parts("a", "q")) and audio_comes_first(parts("a", "a"))
    assert not audio_comes_first(parts("q", "a")) and not audio_comes_first(parts("q"))
    assert audio_comes_first([Message("system", ("s",)), *parts("a", "q"), *parts("q")])
    behind = parts("What is it?", "a")
    first = work(r1, [behind])
    assert work(r1, [behind]) == first and r1.prompt_cache.encoded == 1


def test_a_forgotten_cache_works_again(r1):
    question = r1.question(CLIP, "What is it?")
    first = work(r1, [question])
    r1.prompt_cache.clear()
    assert r1.prompt_cache.nbytes == 0 and work(r1, [question]) == first


# ---- on disk


def on_disk(r1, folder, **limits) -> PromptCache:
    r1.prompt_cache = PromptCache("this model", folder=folder, **limits)
    return r1.prompt_cache


@pytest.mark.parametrize("options", [{}, Q8], ids=["exact", "8 bit"])
def test_another_process_finds_it_on_disk(r1, tmp_path, options):
    question = r1.question(CLIP, "What is it?")
    on_disk(r1, tmp_path)
    whole, expected = work(r1, [question], **options)
    assert len(list(tmp_path.iterdir())) == 2
    kept = on_disk(r1, tmp_path)
    assert work(r1, [question], **options) == (whole - PREFIX, expected) and kept.encoded == 0
    r1.prompt_cache = PromptCache("that model", folder=tmp_path)
    assert work(r1, [question], **options) == (whole, expected) and r1.prompt_cache.encoded == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    others = [other for other in path.parent.iterdir() if other != path]
    shutil.copy(others[0], path)


@pytest.mark.parametrize("harm", [cut, flip, empty, swap])
def test_a_broken_file_is_removed_and_its_work_done_again(r1, tmp_path, harm):
    question = r1.question(CLIP, "What is it?")
    on_disk(r1, tmp_path)
    expected = work(r1, [question])
    good = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in good:
        harm(tmp_path / name)
    kept = on_disk(r1, tmp_path)
    assert work(r1, [question])[1] == expected[1] and kept.encoded in (0, 1)
    assert {path.name: len(path.read_bytes()) for path in tmp_path.iterdir()} == {
        name: len(data) for name, data in good.items()}
    assert work(r1, [question])[0] == expected[0] - PREFIX


def test_a_broken_file_is_gone_after_it_was_read(tmp_path):
    folder = Folder(tmp_path, 1 << 20)
    folder.write("k", {"x": mx.arange(100)})
    assert folder.read("k")["x"].tolist() == list(range(100))
    flip(tmp_path / "k.safetensors")
    assert folder.read("k") is None and not list(tmp_path.iterdir())


def test_the_folder_keeps_to_its_limit_and_drops_the_oldest(tmp_path):
    folder = Folder(tmp_path, 10_000)
    for i in range(6):
        folder.write(f"k{i}", {"x": mx.zeros(750)})  # 3000 bytes and a header
        if i > 1:
            assert folder.read("k0") is not None or i > 3
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    assert folder.read("k5") is not None and folder.read("k1") is None


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="no place for the prompt cache"):
        PromptCache("m", folder=tmp_path / "file" / "below")


# ---- parts


def test_the_least_recently_used_goes_first():
    lru = ByteLRU(100)
    for key in "abc":
        lru.put(key, key.upper(), 40)
    assert lru.get("a") is None and lru.get("b") == "B" and lru.nbytes == 80
    lru.put("d", "D", 40)
    assert lru.get("c") is None and lru.get("b") == "B"
    assert lru.put("e", "E", 101) == "E" and lru.get("e") is None and lru.nbytes == 80
    lru.put("b", "B", 10)
    assert lru.nbytes == 50


def test_memory_keeps_to_its_limit(r1):
    r1.prompt_cache = PromptCache("this model", max_bytes=60_000)
    for i in range(4):
        r1.listen([AudioPart(CLIP[0] * (1 + i), 16_000)])  # 25 x 128 float32: 12,800 bytes each
        assert r1.prompt_cache.nbytes == 12_800 * (i + 1)
    work(r1, [r1.question(CLIP, "What is it?")])  # a prefix of 33 tokens takes 67,584
    assert r1.prompt_cache.nbytes == 4 * 12_800


@pytest.mark.parametrize("form", [EXACT, KVFormat(4, 32, 0)], ids=["exact", "4 bit"])
def test_a_prefix_comes_back_from_disk_bit_by_bit(tmp_path, form):
    def segment(i: int) -> Segment:
        keys, values = (mx.random.normal((1, 2, 9, 32), key=mx.random.key(i + j)).astype(mx.bfloat16)
                        for j in (0, 50))
        return Segment(keys, values).quantised(form) if form.bits else Segment(keys, values)

    layers = [segment(i) for i in range(11)]  # more than ten: names must not be sorted as text
    PromptCache("m", folder=tmp_path).prefix([1] * 9, ["s"], form).fill(layers)
    back = PromptCache("m", folder=tmp_path).prefix([1] * 9, ["s"], form)
    assert back.length == 9 and len(back.layers) == 11
    for a, b in zip(layers, back.layers, strict=True):
        assert all(mx.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a.state, b.state, strict=True))


def test_two_who_ask_at_once_get_the_same_prefix():
    cache = PromptCache("m")
    first, second = (cache.prefix([1, 2], ["s"]) for _ in range(2))
    assert first is second and isinstance(first, Prefix) and first.layers is None
    first.fill([Segment(mx.zeros((1, 1, 2, 4)), mx.zeros((1, 1, 2, 4)))])
    assert cache.prefix([1, 2], ["s"]) is first and cache.prefix([1, 3], ["s"]) is not first


def test_the_fingerprint_follows_the_files(checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    prints = {fingerprint(folder)}
    assert fingerprint(folder) in prints
    flip(folder / "model.safetensors")
    prints.add(fingerprint(folder))
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    prints.add(fingerprint(folder))
    assert len(prints) == 3
