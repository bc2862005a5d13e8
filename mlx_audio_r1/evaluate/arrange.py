"""A Question under a Profile -> an Item, and an Item under another Profile.

    item = arranged(question, bench.profile(), uid="mmau:0a1b")
    rearranged(item, bench.profile("official/mmsu"), style="none")

The item keeps the question's own words in ref["question"], and what the profile says about generation in
extra["profile"], extra["settings"] and extra["thinking"]. The surprise: where the authors ask without words,
or with words of their own, the question itself is in no turn, and is kept there alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlx_audio_r1.evaluate.bench import AUDIO, OPTIONS_HERE, TEXT, Profile, Question
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, OptionsMark, Turn

OWN_TURNS = "own_turns"  # of extra: the question came with turns, and keeps them under every profile
Part = str | AudioPart | OptionsMark


def arranged(question: Question, profile: Profile, uid: str) -> Item:
    """The item; its sounds are what the question has, a Path or an Embedded."""
    extra = {**question.extra, **({OWN_TURNS: True} if question.turns else {})}
    item = Item(
        uid=uid,
        turns=question.turns or (Turn("user", tuple(map(AudioPart, question.sounds))),),
        target=question.target,
        split=question.split,
        lang=question.lang,
        chance=question.chance,
        groups=dict(question.groups),
        ref={**question.ref, "question": question.text},
        extra=extra,
    )
    return rearranged(item, profile)


def rearranged(item: Item, profile: Profile, style: str | None = None) -> Item:
    """The same question, asked otherwise. style: of the options, in place of the profile's."""
    own = item.extra.get(OWN_TURNS)
    turns = item.turns[bool(item.extra.get("system")) :] if own else (_turn(item, profile),)
    system = (Turn("system", (profile.system,)),) if profile.system else ()
    return replace(
        item,
        turns=(*system, *turns),
        option_style=style or (own and item.extra.get("option_style")) or profile.option_style,
        extra={**item.extra, **_said(profile)},
    )


def _said(profile: Profile) -> dict[str, Any]:
    return {"profile": profile.name, "settings": dict(profile.settings), "thinking": profile.thinking,
            "system": bool(profile.system)}  # fmt: skip


def profile_of(item: Item) -> str:
    """The name of the profile an item was arranged by."""
    return str(item.extra.get("profile", ""))


def with_sounds(item: Item, sounds: Sequence[Any]) -> Item:
    """The item with other sources in the places of its sounds, in order."""
    rest = iter(sounds)
    turns = tuple(
        Turn(t.role, tuple(AudioPart(next(rest)) if isinstance(p, AudioPart) else p for p in t.parts))
        for t in item.turns
    )
    return replace(item, turns=turns)


def _turn(item: Item, profile: Profile) -> Turn:
    """One turn of the person, its parts in the profile's order; options follow the words."""
    has_options = isinstance(item.target, Choice)
    parts: list[Part] = []
    for kind in profile.order:
        if kind == AUDIO:
            parts += item.sounds
        elif kind == TEXT:
            words = profile.words or str(item.ref["question"])
            parts += [words] if words else []
        if has_options and kind == (OPTIONS_HERE if OPTIONS_HERE in profile.order else TEXT):
            parts.append(OPTIONS)
    return Turn("user", tuple(parts))
