"""K replies to each prompt, sampled from the policy as it is: what reinforcement learning learns from.

The batch engine samples them, at temperature 1 and with nothing cut off, penalised or forced, so that the
log-probabilities it records are those of the policy. Token ids are kept as they were drawn, the one that
ends the reply too. Every rollout is a line of a file as soon as it is finished, and each draws from a
stream of its own, so a phase that was killed goes on and comes to the same set. The surprise: "the same"
holds for the choices; a batch of other rows rounds float32 differently, by 1e-6 in a log-probability.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_audio_r1.adapters import settle
from mlx_audio_r1.batch import Draft, Engine
from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.generate import Settings
from mlx_audio_r1.models.adapter_layers import adapted
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.record_file import RecordFile
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.batches import collate
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.features import Features
from mlx_audio_r1.train.forward import embedded

FORMAT = 1  # of the file
WAITING = 2  # replies that wait for a row before the next prompt is read


@dataclass(frozen=True)
class RolloutConfig:
    """How a phase samples. Defaults are the paper's (section 4.3), where it says."""

    samples: int = 16  # a prompt
    max_tokens: int = 10_240  # of a reply
    max_sequence: int | None = None  # tokens of prompt and reply; None: the model's context
    temperature: float = 1.0  # 0 to measure; what is learnt from is sampled at 1
    seed: int = 0
    max_rows: int = 32  # replies that decode at once: 8, or a multiple of 32, on a Mac
    kv_limit: int | None = None  # bytes; None: what the machine offers
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 5_000


@dataclass(frozen=True)
class Rollout:
    """One sampled reply. ids and logprobs: of every token it chose, the stop token included.

    logprobs: float32, natural, from the whole distribution. finish_reason: `stop`; or `length` or `loop`,
    and then it is truncated. scores: what a reward was made of.
    """

    step: int
    prompt: str  # its name: train.jsonl:12
    sample: int  # its number among the replies to the prompt
    prompt_tokens: int
    ids: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    finish_reason: str
    thinking: str
    answer: str
    reward: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    thinking_tokens: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def truncated(self) -> bool:
        """It did not end by itself."""
        return self.finish_reason != "stop"

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt, self.sample

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rollout:
        """Raises TypeError, KeyError or ValueError for what `as_dict` never gave."""
        read = {f.name: values[f.name] for f in fields(cls)}
        ids, logprobs = tuple(map(int, read["ids"])), tuple(map(float, read["logprobs"]))
        if not ids or len(ids) != len(logprobs):
            raise ValueError(f"{len(ids)} ids, {len(logprobs)} log-probabilities")
        return cls(**{**read, "ids": ids, "logprobs": logprobs})


Judge = Callable[[Example, Rollout], Rollout]  # gives it back with its reward and scores


class RolloutFile(RecordFile[Rollout]):
    """The rollouts of one phase: a line that says which, then one for each.

    policy: anything that tells the weights apart; rollouts of others are never mixed in. Raises
    TrainingError where the file is of another phase, DiskError where it cannot be written.
    """

    def __init__(self, path: Path, config: RolloutConfig, step: int = 0, policy: str = ""):
        self.step = step
        head = {
            "rollouts": FORMAT, "step": step, "seed": config.seed, "max_tokens": config.max_tokens,
            "kv_bits": config.kv_bits, "temperature": config.temperature, "policy": policy,
        }  # fmt: skip
        super().__init__(path, head, Rollout.from_dict, _another)

    def missing(self, prompt: str, samples: int) -> list[int]:
        """Numbers of the samples that are not there."""
        return [i for i in range(samples) if (prompt, i) not in self.found]

    def of(self, prompts: Sequence[Example], samples: int) -> list[Rollout]:
        """In the order of prompts and samples, whatever order they were finished in. Raises TrainingError."""
        keys = [(prompt.name, i) for prompt in prompts for i in range(samples)]
        absent = next((key for key in keys if key not in self.found), None)
        if absent is not None:
            raise TrainingError(f"{self.path}: sample {absent[1]} of {absent[0]} is missing; sample first")
        for prompt in prompts:
            if any(self.found[prompt.name, i].prompt_tokens != len(prompt) for i in range(samples)):
                raise TrainingError(f"{self.path}: {prompt.name} was another prompt then; move it away")
        return [self.found[key] for key in keys]


def sample_rollouts(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Example],
    features: Features | None,
    config: RolloutConfig,
    file: RolloutFile,
    judge: Judge | None = None,
    *,
    thinking: bool = True,
) -> Iterator[Rollout]:
    """Sample what `file` does not have yet; each rollout as it is finished, judged and written.

    prompts: as `ExampleMaker.prompt` makes them, of different names. thinking: they end in `<think>\n`, and
    not behind a reasoning that is closed. Leave the loop at any time; the next call goes on. Raises
    PromptError for a prompt that can never fit.
    """
    if len({prompt.name for prompt in prompts}) < len(prompts):
        raise TrainingError("a prompt stands twice in one step; its samples would be the same ones")
    asked: dict[int, Example] = {}
    todo = iter([p for p in prompts if file.missing(p.name, config.samples)])
    exhausted = False
    engine = Engine(model, tokenizer, max_rows=config.max_rows, kv_limit=config.kv_limit, logprobs=True,
                    stop_loops=True)  # fmt: skip
    with as_policy(model), engine:
        while engine.busy or not exhausted:
            while not exhausted and engine.waiting < WAITING:
                prompt = next(todo, None)
                exhausted = prompt is None
                if prompt is not None:
                    missing = file.missing(prompt.name, config.samples)
                    asked[_submit(engine, prompt, features, config, file.step, missing, thinking)] = prompt
            for event in engine.step():
                if event.finish_reason:
                    prompt = asked[event.request]
                    rollout = _rollout(event.draft, prompt, file.step)
                    rollout = judge(prompt, rollout) if judge else rollout
                    file.append(rollout)
                    yield rollout


def _submit(
    engine: Engine, prompt: Example, features: Features | None, config: RolloutConfig, step: int,
    missing: Sequence[int], thinking: bool,
) -> int:  # fmt: skip
    """Queue the missing samples of a prompt. The others are cancelled before they begin, so that each keeps
    its number and its stream."""
    settings = Settings(
        max_tokens=_room(engine.model, prompt, config),
        temperature=config.temperature, seed=seed_of(config.seed, step, prompt.name), kv_bits=config.kv_bits,
        kv_group_size=config.kv_group_size, quantized_kv_start=config.quantized_kv_start,
    )  # fmt: skip
    embeddings = prompt_embeddings(engine.model, prompt, features)
    request = engine.submit(prompt.ids.tolist(), embeddings, settings, thinking, config.samples)
    for sample in sorted({*range(config.samples)} - {*missing}):
        engine.cancel(request, sample)
    return request


def _room(model: Model, prompt: Example, config: RolloutConfig) -> int:
    """Tokens that a reply to `prompt` may have. Raises DataError where there is none left."""
    room = (config.max_sequence or model.config.context_length) - len(prompt)
    if room < 1:
        raise DataError(f"{prompt.where}: {len(prompt):,} tokens leave no room for a reply: raise "
                        "--max-seq-length or shorten it")
    return min(config.max_tokens, room)


def prompt_embeddings(model: Model, prompt: Example, features: Features | None) -> mx.array:
    """(L, hidden_size): a prompt as the training forward sees it, sounds included."""
    embeddings = embedded(model, collate([prompt], features))[0, : len(prompt)]
    mx.eval(embeddings)
    return embeddings


def read_rollouts(path: Path) -> list[Rollout]:
    """The whole rollouts of a file, of whatever phase. Raises DataError."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        if not lines or "rollouts" not in json.loads(lines[0]):
            raise ValueError
        return [Rollout.from_dict(json.loads(line)) for line in lines[1:] if line.endswith(b"\n")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: not a file of rollouts ({why})") from None


def seed_of(seed: int, step: int, prompt: str) -> int:
    """The seed of a prompt's samples at a step; the engine makes of it one for each."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{prompt}".encode()).digest()[:8], "little")


@contextmanager
def as_policy(model: Model) -> Iterator[None]:
    """No dropout inside the block, and adapters computed once; the model trains on as before behind it."""
    training = model.training
    model.eval()
    settle(model)
    try:
        yield
    finally:
        for _, layer in adapted(model):
            layer.unsettle()
        model.train(training)


def _rollout(draft: Draft, prompt: Example, step: int) -> Rollout:
    if not all(map(math.isfinite, draft.logprobs)):
        raise TrainingError(f"{prompt.where}: log-probabilities that are no numbers; look at the sound with "
                            "audio-r1 data check, or go back to an earlier checkpoint")
    return Rollout(
        step=step, prompt=prompt.name, sample=draft.sample, prompt_tokens=len(prompt),
        ids=tuple(draft.writer.token_ids), logprobs=tuple(draft.logprobs),
        finish_reason=draft.writer.finish_reason or "length", thinking=draft.text["thinking"],
        answer=draft.text["answer"], thinking_tokens=draft.writer.reasoning_tokens,
    )  # fmt: skip


def _another(found: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """What these rollouts were sampled with, where it was another one."""
    name = next((key for key, value in head.items() if found.get(key) != value), None)
    return f"sampled with another {name} ({found.get(name)!r}, now {head[name]!r})" if name else ""
