"""What a judge is asked about a chain, and how its reply is read: strictly, or not at all."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.tasks.gold import gold_text
from mlx_audio_r1.tasks.item import Item

EXPECTS = {"grounded": "true or false", "coherent": "true or false", "correct": "true or false"}
JUDGE_PROMPT = """\
You judge how a model reasoned about a sound. You cannot hear the sound; judge the text alone.

Question:
{question}

Right answer:
{gold}

Reasoning of the model:
{thinking}

Answer of the model:
{answer}

Say of the reasoning:
- grounded: does it rest on what is heard (pitch, timbre, rhythm, loudness, noise, voice, prosody, events, their
  times), and not on a transcript, lyrics, a caption or a description of the sound?
- coherent: does each step follow from the one before, with no contradiction and no going round in circles, and
  does the answer follow from the last step?
- correct: does the answer mean the same as the right answer?

Reply with one JSON object and nothing else:
{{"grounded": true or false, "coherent": true or false, "correct": true or false}}
"""
_FENCE = re.compile(r"\A```(?:json)?\s*|\s*```\Z")


@dataclass(frozen=True)
class JudgeVerdict:
    """What a judge said of a chain."""

    grounded: bool
    coherent: bool
    correct: bool

    @property
    def failed(self) -> list[str]:
        """What it denied."""
        return [name for name in EXPECTS if not getattr(self, name)]


def judge_prompt(item: Item, thinking: str, answer: str) -> str:
    """The question about one chain."""
    words = [part for message in item.messages() for part in message.parts if isinstance(part, str)]
    question = "\n".join(words).strip()
    return JUDGE_PROMPT.format(question=question, gold=gold_text(item), thinking=thinking, answer=answer)


def read_verdict(reply: str) -> JudgeVerdict | None:
    """The verdict of a reply that is one JSON object of three truths, fenced or behind a reasoning or not;
    None for any other, which is never guessed at."""
    text = _FENCE.sub("", reply.rpartition(THINK_CLOSE)[2].strip())
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), bool) for name in EXPECTS):
        return None
    return JudgeVerdict(**{name: found[name] for name in EXPECTS})
