"""Rollouts -> rewards: the verifier of the row's task, and the user's own functions beside it.

A row with a solution is checked against it (equations 6 and 7 of the paper); functions of
--reward-functions-file add their weighted scores; a row without a solution has theirs alone. The surprise:
what is judged is the text of the very tokens that were sampled, so a `</think>` that never came is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlx_audio_r1.errors import DataError
from mlx_audio_r1.tasks.from_rows import SOLUTION, item_from_row
from mlx_audio_r1.tasks.item import Item
from mlx_audio_r1.tasks.reward_functions import RewardFunction, score
from mlx_audio_r1.tasks.rewards import RewardConfig, reward
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.examples import Example
from mlx_audio_r1.train.rollouts import Rollout
from mlx_audio_r1.train.row_forms import Row


def items_of(rows: Sequence[Row], unverified: bool = False) -> dict[str, Item]:
    """Name of a row -> what is asked and true. Raises DataError with file:line.

    unverified: rows without a solution are left out, because functions judge them.
    """
    judged = [row for row in rows if not unverified or any(name in row.columns for name in SOLUTION)]
    return {row.name: item_from_row(row.columns, [turn.message for turn in row.history], row.where)
            for row in judged}  # fmt: skip


@dataclass(frozen=True)
class Judging:
    """A `rollouts.Judge`. rows: by name; items: those that have a verifier. thinking: the prompts end in an
    open reasoning."""

    tokenizer: Tokenizer
    rows: Mapping[str, Row]
    items: Mapping[str, Item]
    config: RewardConfig = field(default_factory=RewardConfig)
    functions: Sequence[RewardFunction] = field(default=())
    thinking: bool = True

    def direct(self) -> Judging:
        """The same for prompts that end behind an empty reasoning."""
        return replace(self, thinking=False)

    def __call__(self, prompt: Example, rollout: Rollout) -> Rollout:
        """The rollout with its reward, and scores: correct, reasoning, unparsed, each term and function.

        Raises DataError where nothing has anything to say of a reply.
        """
        text = completion_of(rollout, self.tokenizer)
        verified, scores = self._verified(prompt.name, text, rollout)
        said, more = self._said(prompt.name, text)
        if verified is None and said is None:
            raise DataError(f"{self.rows[prompt.name].where}: no solution, and no reward function says "
                            "anything of a reply to it")
        return replace(rollout, reward=(verified or 0.0) + (said or 0.0), scores=scores | more)

    def _verified(self, name: str, text: str, rollout: Rollout) -> tuple[float | None, dict[str, float]]:
        item = self.items.get(name)
        if item is None:
            return None, {}
        judged = reward(text, item, self.config, truncated=rollout.truncated, tokens=len(rollout),
                        thinking=self.thinking)  # fmt: skip
        return judged.value, {
            "correct": judged.verdict.correct,
            "reasoning": float(judged.reply.has_reasoning),
            "unparsed": float(judged.verdict.unparsed),
            **{f"term_{term}": value for term, value in judged.terms.items()},
        }

    def _said(self, name: str, text: str) -> tuple[float | None, dict[str, float]]:
        """The functions' sum and their single scores; None where all of them said nothing."""
        if not self.functions:
            return None, {}
        row = self.rows[name]
        columns = {key: [value] for key, value in row.columns.items()}
        found = score(self.functions, [row.history[-1].text], [text], columns)
        single = {f"function_{key}": values[0] for key, values in found.by_name.items()}
        return found.total[0], {key: value for key, value in single.items() if value is not None}


def completion_of(rollout: Rollout, tokenizer: Tokenizer) -> str:
    """The text of its tokens, without the one that ended it."""
    ids = list(rollout.ids)
    return tokenizer.decode(ids[:-1] if ids[-1] in tokenizer.stop_ids else ids)
