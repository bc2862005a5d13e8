"""Candidates of the embedded model: four questions about clips of the acoustic world, and one sum.

Replies are written, not sampled, where a test needs to know what they say.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from mlx_audio_r1 import load
from mlx_audio_r1.mgrd.candidate import Candidate
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.acoustic_world import world_item
from mlx_audio_r1.tasks.from_rows import item_from_row
from mlx_audio_r1.train.examples import ExampleMaker
from mlx_audio_r1.train.features import FeatureStore
from mlx_audio_r1.train.rollouts import Rollout, RolloutConfig, RolloutFile, sample_rollouts
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.sounds import Sounds
from tests.train.data_sets import write_rows, write_wav

ASKED = ((3, "count"), (8, "compare"), (5, "source"), (11, "order"))  # seed, task
SURROGATE = "The transcript tells of a bell. According to the text there are others."


class World:
    """The embedded model and its questions. `written` makes a candidate of words."""

    def __init__(self, folder):
        self.truths = [world_item(seed, task, "easy", choice=task != "order") for seed, task in ASKED]
        rows = []
        for i, item in enumerate(self.truths):
            write_wav(folder / f"{i}.wav", np.asarray(item.sounds[0].source))
            words = next(part for part in item.messages()[0].parts if not isinstance(part, AudioPart))
            rows.append({"messages": [{"role": "user", "content": f"<audio>{words}"}], "audios": [f"{i}.wav"]})
        rows.append({"messages": [{"role": "user", "content": "What is 1 + 2?"}], "solution": "3",
                     "problem_type": "number"})  # fmt: skip
        found = list(read_rows(write_rows(folder / "train.jsonl", rows)))
        self.r1 = load("nano")
        sounds = Sounds(convention=self.r1.config.length_convention)
        self.features = FeatureStore(self.r1.model, folder / "features", sounds)
        maker = ExampleMaker(self.r1.tokenizer, self.r1.config, sounds)
        self.prompts = [maker.prompt(row) for row in found]
        sum_row = found[-1]
        asked = item_from_row(sum_row.columns, [turn.message for turn in sum_row.history], sum_row.where)
        self.items = [*self.truths, asked]
        self.folder = folder

    @cached_property
    def sampled(self):
        """The likeliest reply to each question about a clip."""
        config = RolloutConfig(samples=1, max_tokens=100, temperature=0.0, max_rows=4)
        file = RolloutFile(self.folder / "rollouts.jsonl", config)
        prompts = self.prompts[:-1]
        list(sample_rollouts(self.r1.model, self.r1.tokenizer, prompts, self.features, config, file))
        return [Candidate(item, prompt, file.found[prompt.name, 0])
                for item, prompt in zip(self.items, prompts, strict=False)]  # fmt: skip

    def written(self, question, sample=0, thinking=None, answer=None, finish="stop", closed=True):
        """A candidate whose reply says this; the truth where it is None."""
        ref = self.items[question].ref
        thinking = ref["thinking"] if thinking is None else thinking
        answer = ref["answer"] if answer is None else answer
        tokenizer, prompt = self.r1.tokenizer, self.prompts[question]
        text = f"{thinking}\n</think>\n{answer}" if closed else thinking
        ids = tokenizer.encode(text) + ([min(tokenizer.stop_ids)] if finish == "stop" else [])
        rollout = Rollout(0, prompt.name, sample, len(prompt), tuple(ids), (0.0,) * len(ids), finish, thinking,
                          answer if closed else "")  # fmt: skip
        return Candidate(self.items[question], prompt, rollout)

    def misheard(self, question, other, sample=0):
        """What the model says of another clip behind this one."""
        rollout = self.sampled[other].rollout
        own = replace(rollout, prompt=self.prompts[question].name, sample=sample)
        return Candidate(self.items[question], self.prompts[question], own)
