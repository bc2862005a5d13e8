"""The real path with the kernels in it, run by the simulator: goldens, batches, replies, and a broken kernel.

Logits within the limit of test_parity; tokens are equal, for no greedy step of the goldens has a margin below
0.04 (tests/golden/meta.json), a hundred times what kernels move a logit by.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from mlx_audio_r1 import load
from mlx_audio_r1.audio import load_audio
from mlx_audio_r1.kernels.choice import configured
from mlx_audio_r1.many import answer_many
from mlx_audio_r1.session import AudioR1
from tests.helpers import GOLDEN
from tests.metalsim import options
from tests.metalsim.simulate import Simulation
from tests.test_parity import LOGITS, PROMPTS, distance, greedy, messages_of

SOUND = GOLDEN.parents[1] / "mlx_audio_r1" / "nano" / "sample.wav"
QUESTION = "Name all sounds in order."


def golden_key(name: str) -> str:
    return name if name == "text_only" else f"{name}.vllm.prompt"


def tiny_r1() -> AudioR1:
    """Loaded where the kernels may run, so its weights lie side by side."""
    return load(GOLDEN / "tiny-fp32", chunk_seconds=29.98)


NAMES = [name.removesuffix(".vllm") for name in PROMPTS if not name.endswith(".hf")]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name == "s0_50" else pytest.mark.long) for name in NAMES
])
def test_goldens(simulation: Simulation, name: str, clips: Any, golden: Any) -> None:
    messages = messages_of(name, clips)
    with configured("on"):
        r1 = tiny_r1()
        prompt = r1.prepare(messages)
        cache = make_prompt_cache(r1.model.language_model)
        logits = r1.model(mx.array([prompt.ids]), cache, prompt.embeddings[None])[0]
        assert distance(logits, golden[f"{golden_key(name)}.logits"]) < LOGITS
        assert greedy(r1, messages, 32) == golden[f"{golden_key(name)}.greedy"].tolist()
    assert simulation.count("qkv_rope") > 0


KERNELS = {"add_rms_norm": 2, "qkv_rope": 1}  # launches a layer


def launched(simulation: Simulation, act: Callable[[], Any]) -> dict[str, int]:
    before = {name: simulation.count(name) for name in KERNELS}
    act()
    return {name: simulation.count(name) - n for name, n in before.items()}


def test_a_token_launches_two_norms_and_one_rotation_a_layer(simulation: Simulation) -> None:
    question = [{"role": "user", "content": "1+1=?"}]
    with configured("on"):
        r1 = tiny_r1()
        greedy(r1, question, 4)  # tries the kernels at these shapes
        few, more = (launched(simulation, lambda n=n: greedy(r1, question, n)) for n in (4, 9))
    for name, each in KERNELS.items():
        assert more[name] - few[name] == 5 * each * len(r1.model.layers)


def test_a_batch(simulation: Simulation, clips: Any, golden: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["s0_50", "text_only"]
    with configured("on"):
        r1 = tiny_r1()
        monkeypatch.setattr(r1.tokenizer, "stop_ids", frozenset())
        questions = [messages_of(name, clips) for name in names]
        replies = list(answer_many(r1, questions, temperature=0.0, max_tokens=16))
    for name, reply in zip(names, replies, strict=True):
        assert reply.token_ids == golden[f"{golden_key(name)}.greedy"].tolist()[:16]
    of_both = [x for x in simulation.launches if x.kernel == "qkv_rope" and x.traffic["offset"].size == 2 * 4]
    assert len(of_both) >= 12 * len(r1.model.layers)  # the rows start one after the other


def says(r1: AudioR1, *sounds: Any) -> tuple[str, str, list[int]]:
    reply = r1.ask(list(sounds), QUESTION, temperature=0.0, max_tokens=40)
    assert reply.finish_reason == "stop"
    return reply.thinking, reply.answer, reply.token_ids


@pytest.mark.parametrize("seconds", [1, pytest.param(8, marks=pytest.mark.long)])
def test_nano_answers_the_same(simulation: Simulation, seconds: int) -> None:
    [chunk] = load_audio(SOUND)
    sound = chunk.waveform[: seconds * 16_000], 16_000
    with configured("off"):
        plain = says(load(), sound)
    assert simulation.launches == []
    with configured("on"):
        assert says(load(), sound) == plain
    for name, each in KERNELS.items():
        assert simulation.count(name) >= each * 4 * len(plain[2])


@pytest.mark.parametrize("name", ["add_rms_norm", pytest.param("qkv_rope", marks=pytest.mark.long)])
def test_a_broken_kernel_costs_one_warning(simulation: Simulation, name: str) -> None:
    with configured("off"):
        plain = says(load())
    with configured("on"):
        load().ask(prompt=QUESTION, max_tokens=1)  # so that its text is known
    source = simulation.kernels[name].source
    edited = options(lint=False, edits={source: source + "this is no Metal"})
    with configured("on") as choice, edited, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert says(load()) == plain
    assert [str(w.message).split(" does")[0] for w in said] == [f"the kernel {name}"]
    assert list(choice.broken) == [name]
