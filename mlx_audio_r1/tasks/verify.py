"""An answer against what is true: one verifier for each kind of target.

    verify("B. bell", item)                  # Verdict(1.0, "bell", "letter and text")
    judge(read_reply(completion), item)      # the same of a whole reply, thinking and all

Verifiers are pure: the same answer and item give the same verdict, and no text makes them fail.
"""

from __future__ import annotations

from collections.abc import Callable

from mlx_audio_r1.tasks.boolean import Boolean, verify_boolean
from mlx_audio_r1.tasks.choice import Choice, verify_choice
from mlx_audio_r1.tasks.item import Item, Verdict
from mlx_audio_r1.tasks.judged import Judged, verify_judged
from mlx_audio_r1.tasks.label import Label, verify_label
from mlx_audio_r1.tasks.number import Quantity, verify_number
from mlx_audio_r1.tasks.reply import Reply
from mlx_audio_r1.tasks.wording import Wording, verify_wording

MOST_CHARACTERS = {Wording: 20_000, Judged: 100_000}  # more is no answer but a loop
USUAL_MOST = 8_000
Target = Choice | Quantity | Label | Boolean | Wording | Judged
VERIFIERS: dict[type, Callable[[str, Item], Verdict]] = {
    Choice: verify_choice,
    Quantity: verify_number,
    Label: verify_label,
    Boolean: verify_boolean,
    Wording: verify_wording,
    Judged: verify_judged,
}


def verify(answer: str, item: Item) -> Verdict:
    """The verdict on an answer, which is what stands behind the reasoning."""
    if len(answer) > MOST_CHARACTERS.get(type(item.target), USUAL_MOST):
        return Verdict(0.0, None, "too long")
    return VERIFIERS[type(item.target)](answer, item)


def judge(reply: Reply, item: Item) -> Verdict:
    """The verdict on a reply; one that never ends its reasoning has no answer."""
    return verify(reply.answer, item) if reply.closed else Verdict(0.0, None, "unfinished")
