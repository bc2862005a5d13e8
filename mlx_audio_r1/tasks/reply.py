"""What a reply thinks and what it answers, read strictly, as scoring needs it.

Reasoning is what stands before the first `</think>`, the answer what stands behind the last. The surprise:
`reasoning.split_reply`, made for reading along, shows everything; here what lies between two closings, or
in a reasoning opened again, is neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_audio_r1.reasoning import THINK_CLOSE, THINK_OPEN
from mlx_audio_r1.tasks.plain import has_words


@dataclass(frozen=True)
class Reply:
    """`closed`: the reasoning ended, so there is an answer (perhaps an empty one)."""

    thinking: str
    answer: str
    closed: bool = True

    @property
    def has_reasoning(self) -> bool:
        """Is there a word before `</think>`? Spaces, invisible characters and tags are none."""
        return self.closed and has_words(self.thinking.replace(THINK_OPEN, ""))


def read_reply(text: str, thinking: bool = True) -> Reply:
    """What a model wrote behind a prompt that ends in `<think>\\n`; `thinking` False: behind an empty
    reasoning, where all of it is the answer."""
    before, closing, _ = text.partition(THINK_CLOSE)
    before = before.lstrip().removeprefix(THINK_OPEN)
    if not closing:
        return Reply("", _answer(text)) if not thinking else Reply(before.strip(), "", closed=False)
    return Reply(before.strip(), _answer(text.rpartition(THINK_CLOSE)[2]))


def _answer(text: str) -> str:
    """Up to a reasoning that is opened again."""
    return text.partition(THINK_OPEN)[0].strip()
