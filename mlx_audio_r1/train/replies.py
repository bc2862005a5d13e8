"""What the model writes behind a prompt that ends in `<think>\\n`.

The opening tag stands in the prompt, so it is never learnt. A reply without reasoning gets the paper's
form: `<think>\\n\\n</think>\\n{response}`, of which the model writes all but the first line.
"""

from __future__ import annotations

import re

from mlx_audio_r1.reasoning import THINK_CLOSE, THINK_OPEN, split_reply

_OPENING = re.compile(rf"\s*{THINK_OPEN}\r?\n?")


def completion_text(reply: str) -> str:
    """A reply as people write it down -> what follows the prompt, without <|EOT|>.

    Source: the paper, section 3.1, for replies without reasoning. A reply that closes a reasoning it
    never opened is taken as the model's own output, whose opening tag stood in the prompt.
    """
    opening = _OPENING.match(reply)
    if opening:
        return reply[opening.end() :]
    return reply if THINK_CLOSE in reply else f"\n{THINK_CLOSE}\n{reply}"


def with_reasoning(reasoning: str, answer: str) -> str:
    """A reply of two texts."""
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n{answer}"


def thinking_and_answer(reply: str) -> tuple[str, str]:
    """The two parts of a reply, each without whitespace at its ends."""
    return split_reply(completion_text(reply))


def is_laid_out(reply: str) -> bool:
    """Do its tags stand on lines of their own, as in the paper?"""
    text = completion_text(reply)
    opened = not _OPENING.match(reply) or reply.lstrip().startswith(f"{THINK_OPEN}\n")
    return opened and f"\n{THINK_CLOSE}\n" in text
