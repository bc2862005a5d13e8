"""Questions about a clip of known truth, with reasoning that reads the evidence off the sound.

    question = make_question(clip.truth, seed=3)
    question.text         # with the options where it has some, exactly as the model is asked
    question.reasoning    # "1 drum at 0.3, 2 at 0.8 s. That makes 2."
    question.answer       # "B. 2", or "2" for a free question
    score(question, "B")  # 1.0

Every answer of a task is as likely as the others only where the caller balances them; `chance` is what
a blind guess scores then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_audio_r1.tasks.acoustic.world import STEADY_TONES, SUSTAINED, Event, Truth, nearest_pitch, tenth

Rng = np.random.Generator

INSTRUCTION = (
    "\nPlease choose the answer from the following options, do not provide any additional explanations "
    "or content: \n"
)
LETTERS = "ABCDEFGH"
MOST_OPTIONS = 4
CHOICE_SHARE = 0.35  # of the questions that can have options
HEARS = (
    "I can hear simple sounds: tones and how they move, bells, plucked strings, drums, clicks, noise, "
    "music, silence and whether a man or a woman speaks."
)
NOT_A_SOUND_QUESTION = "That is not a question about a sound."


@dataclass(frozen=True)
class Question:
    """`gold` is the answer without its letter; `chance` is the score of a blind guess, 0-1."""

    task: str
    text: str
    reasoning: str
    answer: str
    gold: str
    options: tuple[str, ...] = ()
    chance: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What is true: the answer, the evidence's fields, a conclusion, words to put into the question."""

    answer: str
    fields: frozenset[str] = frozenset()
    conclusion: str = ""
    words: tuple[str, str] = ("", "")
    evidence: str | None = None  # in place of the list of sounds


@dataclass(frozen=True)
class Task:
    """Ways to ask, the last two never in training; the answers; what is true of a clip."""

    ways: tuple[str, ...]
    answers: tuple[str, ...]
    find: Callable[[Truth, Rng], Finding | None]


def make_question(
    truth: Truth,
    seed: int | Rng,
    task: str | None = None,
    held_out: bool = False,
    choice: bool | None = None,
) -> Question:
    """A question this clip can answer. `held_out` asks in words that no training question has;
    `choice` forces options or forbids them. Raises ValueError where `task` does not fit the clip."""
    rng = np.random.default_rng(seed)
    names = [task] if task else _shuffled_tasks(rng, truth)
    for name in names:
        finding = TASKS[name].find(truth, rng)
        if finding:
            return _ask(rng, name, truth, finding, held_out, choice)
    raise ValueError(f"task {task!r} does not fit a clip of kind {truth.kind!r}")


def fitting_tasks(truth: Truth) -> tuple[str, ...]:
    """The tasks that can be asked about a clip."""
    return tuple(n for n, t in TASKS.items() if t.find(truth, np.random.default_rng(0)))


def make_caption(truth: Truth) -> Question:
    """No question at all: describe what sounds."""
    return Question("caption", "", evidence(truth, _CAPTION_FIELDS), describe(truth), describe(truth))


def make_off_topic(seed: int | Rng) -> Question:
    """A question that has nothing to do with sound: say what can be heard."""
    text = str(np.random.default_rng(seed).choice(OFF_TOPIC))
    return Question("off topic", text, NOT_A_SOUND_QUESTION, HEARS, HEARS)


def score(question: Question, reply: str) -> float:
    """1.0 where the answer is right: the letter, the option, or the words of a free answer."""
    given = _plain(reply)
    if not question.options:
        return float(given == _plain(question.gold))
    letter = LETTERS[question.options.index(question.gold)]
    match = re.match(r"^([a-h])(?:[.):\s]|$)", given)
    if match:
        return float(match.group(1).upper() == letter)
    return float(given == _plain(question.gold))


def evidence(truth: Truth, fields: frozenset[str]) -> str:
    """The sounds in order with their times and the asked fields, as one sentence."""
    if not truth.events:
        return "No sound above the floor."
    parts = []
    before = None
    for number, event in enumerate(truth.events, start=1):
        name = "" if event.source == before else f" {event.source}"
        parts.append(f"{number}{name} at {_span(event, fields)}{_details(event, fields)}")
        before = event.source
    joint = "; " if fields & {"pitch", "level", "ramp", "span"} else ", "
    return joint.join(parts) + (" s." if joint == ", " else ".")


def describe(truth: Truth) -> str:
    """One sentence for a listener who asked nothing."""
    if not truth.events:
        return "Almost silence."
    first = truth.events[0]
    if truth.kind == "sequence":
        return _sentence(", then ".join(_article(e.source) for e in truth.events))
    if len(truth.events) > 1:
        return _sentence(f"{len(truth.events)} sounds: {first.source}")
    return _sentence(_article(_SPOKEN_BY.get(first.voice or "", first.source)) + _movement(first))


# What a finding looks up -------------------------------------------------------------------------

_CAPTION_FIELDS = frozenset({"span", "pitch"})
_SPOKEN_BY = {"male": "man speaking", "female": "woman speaking"}
_UNCOUNTED = frozenset({"noise", "music", "speech"})
CATEGORY = {**dict.fromkeys(STEADY_TONES, "tone"), **{s: s for s in
            ("bell", "plucked string", "noise", "click", "drum", "speech", "music")}}  # fmt: skip
REGISTERS = (("low", 0, 280), ("middle", 330, 740), ("high", 890, 9_999))  # name, from Hz, to Hz
CLEAN_DB, NOISY_DB = 40, 15  # floors at least and at most this far below the sounds


def hertz(hz: float) -> str:
    return f"{nearest_pitch(hz)} Hz"


def _span(event: Event, fields: frozenset[str]) -> str:
    start = f"{tenth(event.start):.1f}"
    if not fields & {"pitch", "level", "ramp", "span"}:
        return start
    if "span" in fields and event.source in SUSTAINED:
        return f"{start}-{tenth(event.end):.1f} s"
    return f"{start} s"


def _details(event: Event, fields: frozenset[str]) -> str:
    text = ""
    if "pitch" in fields and event.hz and event.end_hz:
        glides = event.contour in ("rising", "falling")
        text += f", {nearest_pitch(event.hz)} to {hertz(event.end_hz)}" if glides else f", {hertz(event.hz)}"
        text += " swinging" if event.contour == "wobbling" else ""
    if "ramp" in fields and event.ramp_db is not None:
        text += f", {_ramp(event.ramp_db)}"
    if "level" in fields:
        text += f", {event.level_db} dB"
    return text


def _ramp(decibels: int) -> str:
    return "level even" if not decibels else f"{'up' if decibels > 0 else 'down'} {abs(decibels)} dB"


def _article(noun: str) -> str:
    if noun in _UNCOUNTED:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _movement(event: Event) -> str:
    if event.source == "speech" or not event.hz or not event.end_hz:
        return ""
    if event.contour in ("rising", "falling"):
        return f" {event.contour} from {nearest_pitch(event.hz)} to {hertz(event.end_hz)}"
    return f" {'wobbling around' if event.contour == 'wobbling' else 'at'} {hertz(event.hz)}"


# The tasks ---------------------------------------------------------------------------------------

_NOTHING: frozenset[str] = frozenset()
_PITCH, _SPAN, _LEVEL, _RAMP = (frozenset({f}) for f in ("pitch", "span", "level", "ramp"))
ORDINALS = ("first", "second")


def _source(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind not in ("single", "pair", "repeat"):
        return None
    name = truth.events[0].source
    return Finding(name, _NOTHING, f"It sounds like {_article(name)}.")


def _main(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind == "sequence":
        return None
    if not truth.events:
        return Finding("silence", _NOTHING)
    name = CATEGORY[truth.events[0].source]
    return Finding(name, _NOTHING, f"So it is {_article(name)}.")


def _contour(truth: Truth, _: Rng) -> Finding | None:
    event = truth.events[0] if truth.kind == "single" else None
    if event is None or event.source not in STEADY_TONES:
        return None
    ends = (hertz(event.end_hz or 0.0), hertz(event.hz or 0.0)) if event.hz else ("", "")
    conclusion = {
        "steady": "The pitch stays.",
        "wobbling": "The pitch swings.",
        "rising": f"{ends[0]} is above {ends[1]}.",
        "falling": f"{ends[0]} is below {ends[1]}.",
    }
    return Finding(str(event.contour), _PITCH, conclusion[str(event.contour)])


def _loudness(truth: Truth, _: Rng) -> Finding | None:
    ramp = truth.events[0].ramp_db if truth.kind in ("single", "noise") else None
    if ramp is None:
        return None
    answer = "growing" if ramp > 0 else "fading" if ramp else "steady"
    ends = {"growing": "The end is louder.", "fading": "The end is softer.", "steady": "No change."}
    return Finding(answer, _RAMP, ends[answer])


def _register(truth: Truth, _: Rng) -> Finding | None:
    event = truth.events[0] if truth.kind in ("single", "repeat") else None
    if event is None or not event.hz or event.contour not in (None, "steady"):
        return None
    for name, low, high in REGISTERS:
        if low <= event.hz <= high:
            return Finding(name, _PITCH, f"{hertz(event.hz)} is {name}.")
    return None


def _compare(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind != "pair":
        return None
    first, second = (nearest_pitch(e.hz or 1.0) for e in truth.events)
    answer = "same" if first == second else "higher" if second > first else "lower"
    words = {"same": "equal to", "higher": "above", "lower": "below"}
    return Finding(answer, _PITCH, f"{second} is {words[answer]} {first}.")


def _longer(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind != "pair" or truth.events[0].source not in SUSTAINED:
        return None
    lengths = [tenth(tenth(e.end) - tenth(e.start)) for e in truth.events]
    if max(lengths) < 1.25 * min(lengths):
        return None
    conclusion = f"{lengths[0]:.1f} s and {lengths[1]:.1f} s."
    return Finding(ORDINALS[int(lengths[1] > lengths[0])], _SPAN, conclusion)


def _louder(truth: Truth, _: Rng) -> Finding | None:
    levels = [e.level_db for e in truth.events]
    if truth.kind != "pair" or levels[0] == levels[1]:
        return None
    answer = ORDINALS[int(levels[1] > levels[0])]
    return Finding(answer, _LEVEL, f"The {answer} is stronger.")


def _count(truth: Truth, _: Rng) -> Finding | None:
    if truth.kind not in ("repeat", "pair", "sequence"):
        return None
    number = str(len(truth.events))
    return Finding(number, _NOTHING, f"That makes {number}.")


def _first(truth: Truth, _: Rng) -> Finding | None:
    return Finding(truth.events[0].source, _NOTHING) if truth.kind == "sequence" else None


def _last(truth: Truth, _: Rng) -> Finding | None:
    return Finding(truth.events[-1].source, _NOTHING) if truth.kind == "sequence" else None


def _order(truth: Truth, _: Rng) -> Finding | None:
    names = ", ".join(e.source for e in truth.events)
    return Finding(names, _NOTHING) if truth.kind == "sequence" else None


def _before(truth: Truth, rng: Rng) -> Finding | None:
    if truth.kind != "sequence":
        return None
    early, late = sorted(rng.choice(len(truth.events), 2, replace=False))
    one, other = truth.events[early], truth.events[late]
    times = f"{one.source} {tenth(one.start):.1f}, {other.source} {tenth(other.start):.1f}."
    conclusion = times[0].upper() + times[1:]
    if rng.random() < 0.5:
        return Finding("yes", _NOTHING, conclusion, (one.source, other.source))
    return Finding("no", _NOTHING, conclusion, (other.source, one.source))


def _noisy(truth: Truth, _: Rng) -> Finding | None:
    floor = truth.floor_db
    if floor is None or NOISY_DB < floor < CLEAN_DB or any(e.source in ("noise",
    "music") for e in truth.events):
        return None
    answer = "noisy" if floor <= NOISY_DB else "clean"
    return Finding(answer, evidence=f"The background is {floor} dB below the sound.")


def _speech(truth: Truth, _: Rng) -> Finding | None:
    spoken = any(e.source == "speech" for e in truth.events)
    return Finding("yes", _NOTHING, "There is a voice.") if spoken else Finding("no", _NOTHING, "No voice.")


def _voice(truth: Truth, _: Rng) -> Finding | None:
    said = [e for e in truth.events if e.source == "speech"]
    if not said:
        return None
    event = said[0]
    height = "low" if event.voice == "male" else "high"
    heard = f"Speech at {tenth(event.start):.1f} s, {hertz(event.hz or 1.0)}. The voice is {height}."
    return Finding(str(event.voice), evidence=heard)


_SOUNDS = ("sine tone", "square tone", "sawtooth tone", "bell", "plucked string", "noise", "click", "drum")
_ALL_SOUNDS = (*_SOUNDS, "speech", "music")
_YES_NO = ("yes", "no")

TASKS: dict[str, Task] = {
    "source": Task(
        ("What kind of sound is it?", "What sound do you hear?", "What type of sound is this?",
         "Name the sound.", "Which sound is played?", "What makes this sound?",
         "How would you classify this sound?", "Identify the kind of sound."),
        _SOUNDS, _source),
    "main": Task(
        ("What is the main sound?", "What do you mostly hear?", "Which category fits the clip?",
         "Which kind of sound dominates?", "What is this a recording of?", "What is the clip mainly?",
         "What sort of clip is this?", "What would you call this recording?"),
        ("tone", "bell", "plucked string", "noise", "click", "drum", "speech", "music", "silence"), _main),
    "contour": Task(
        ("How does the pitch move?", "Does the pitch rise, fall, wobble or stay steady?",
         "What does the pitch do over time?", "Is the pitch rising, falling, wobbling or steady?",
         "What is the pitch contour?", "How does the tone change in pitch?",
         "In which direction does the pitch go?", "Describe the pitch contour."),
        ("steady", "rising", "falling", "wobbling"), _contour),
    "loudness": Task(
        ("How does the loudness change?", "Does it get louder or softer?", "What happens to the volume?",
         "Is the volume growing, fading or steady?", "How does the volume change over time?",
         "Does the sound grow, fade or stay steady?",
         "What does the loudness do?", "Describe how the volume evolves."),
        ("growing", "fading", "steady"), _loudness),
    "register": Task(
        ("Is the pitch low, middle or high?", "Which register is the sound in?", "How high is the pitch?",
         "Is it a low, middle or high sound?", "What is the register?", "In which range is the pitch?",
         "What register does the tone have?", "Would you call the pitch low, middle or high?"),
        ("low", "middle", "high"), _register),
    "compare": Task(
        ("Is the second tone higher or lower than the first?",
         "How does the second pitch compare with the first?",
         "Is the second sound higher, lower or the same?",
         "Compare the pitch of the second sound with the first.",
         "Is the second pitch higher, lower or the same?", "How does the pitch of the two sounds compare?",
         "Does the second tone have a higher or a lower pitch?",
         "Second sound against the first: higher, lower or same?"),
        ("higher", "lower", "same"), _compare),
    "longer": Task(
        ("Which tone is longer?", "Which of the two tones lasts longer?",
         "Is the first or the second tone longer?",
         "Which sound is longer, the first or the second?", "Which sound lasts longer?",
         "Which tone goes on longer?",
         "Which tone has the longer duration?", "Of the two sounds, which is the longer one?"),
        ORDINALS, _longer),
    "louder": Task(
        ("Which tone is louder?", "Which of the two sounds is louder?",
         "Is the first or the second sound louder?",
         "Which sound is the loudest?", "Which sound is stronger?",
         "Which one is louder, the first or the second?",
         "Which of the two has the higher volume?", "Of the two sounds, which is the louder one?"),
        ORDINALS, _louder),
    "count": Task(
        ("How many sounds are there?", "How many sounds do you hear?", "Count the sounds.",
         "How many events are in the clip?", "How many times does it sound?",
         "Tell me the number of sounds.",
         "What is the number of events?", "How often does a sound start?"),
        ("1", "2", "3", "4", "5", "6"), _count),
    "first": Task(
        ("Which sound comes first?", "What is the first sound?", "What do you hear first?",
         "What does the clip start with?", "Which sound is at the start?", "What sounds first?",
         "What do you hear at the beginning?", "What opens the clip?"),
        _ALL_SOUNDS, _first),
    "last": Task(
        ("Which sound comes last?", "What is the last sound?", "What do you hear last?",
         "What does the clip end with?", "Which sound is at the end?", "What sounds last?",
         "What do you hear at the very end?", "What closes the clip?"),
        _ALL_SOUNDS, _last),
    "order": Task(
        ("List the sounds in order.", "In which order do the sounds appear?",
         "What sounds do you hear, in order?",
         "Name all sounds in order.", "Which sounds are there, from first to last?",
         "What is the order of the sounds?",
         "Give the sequence of sounds.", "Write down the sounds one after the other."),
        (), _order),
    "before": Task(
        ("Does the {0} come before the {1}?", "Is the {0} before the {1}?",
         "Is the {0} earlier than the {1}?",
         "Do you hear the {0} first and the {1} later?", "Does the {1} come after the {0}?",
         "Is the {1} later than the {0}?",
         "Does the {1} follow the {0}?", "Does the {0} precede the {1}?"),
        _YES_NO, _before),
    "noisy": Task(
        ("Is the recording clean or noisy?", "Is the background clean or noisy?",
         "How clean is the recording?",
         "Is it a clean or a noisy recording?", "Clean or noisy?",
         "What is the quality of the recording, clean or noisy?",
         "Would you call the recording clean or noisy?", "Does the recording sound clean or noisy?"),
        ("clean", "noisy"), _noisy),
    "speech": Task(
        ("Is there speech in the clip?", "Does anyone speak?", "Do you hear a voice?",
         "Does somebody talk?",
         "Is somebody speaking?", "Is there a voice?",
         "Can you hear someone talking?", "Is any speech present?"),
        _YES_NO, _speech),
    "voice": Task(
        ("Is the speaker male or female?", "Is it a male or a female voice?",
         "What is the gender of the speaker?",
         "Is the voice male or female?", "Who is speaking, male or female?",
         "Is this a male or a female speaker?",
         "Male or female speaker?", "Does the voice belong to a male or a female speaker?"),
        ("male", "female"), _voice),
}  # fmt: skip
HELD_OUT_WAYS = 2  # the last of `ways`
OFF_TOPIC = (
    "What is the capital of France?", "Who wrote Hamlet?", "Tell me a joke.", "How is the weather today?",
    "Translate hello to German.", "What is your name?", "Write a poem.", "Who are you?",
    "What is 15 times 23?", "How old are you?", "Recommend a movie.", "What is the meaning of life?",
    "Write some code.", "How do I cook rice?", "Where can I buy shoes?", "Explain gravity.",
    "What year is it?", "Do you like cats?", "Who won the game?", "What can you do?", "Hello!", "Hi",
    "What can you hear?", "Help me with my homework.",
)  # fmt: skip
_RARE = {"speech": 0.35, "main": 0.7, "noisy": 0.6, "count": 1.3, "compare": 1.3}  # weight beside 1


def _shuffled_tasks(rng: Rng, truth: Truth) -> list[str]:
    """All tasks in random order, the frequent ones later."""
    weights = np.array([_RARE.get(n, 1.0) for n in TASKS])
    if any(e.source == "speech" for e in truth.events):
        weights[list(TASKS).index("speech")] = 1.0
        weights[list(TASKS).index("voice")] = 2.0
    return [str(n) for n in rng.choice(list(TASKS), len(TASKS), replace=False, p=weights / weights.sum())]


def _ask(
    rng: Rng, name: str, truth: Truth, finding: Finding, held_out: bool, choice: bool | None
) -> Question:
    task = TASKS[name]
    ways = task.ways[-HELD_OUT_WAYS:] if held_out else task.ways[:-HELD_OUT_WAYS]
    text = str(rng.choice(ways)).format(*finding.words)
    told = evidence(truth, finding.fields) if finding.evidence is None else finding.evidence
    reasoning = f"{told} {finding.conclusion}".strip()
    if choice is None:
        choice = bool(rng.random() < CHOICE_SHARE)
    if not (choice and task.answers):
        chance = 1 / len(task.answers) if task.answers else 0.0
        return Question(name, text, reasoning, finding.answer, finding.answer, (), chance)
    options = _options(rng, task.answers, finding.answer)
    listed = "".join(f"{letter}. {option}\n" for letter, option in zip(LETTERS, options, strict=False))
    letter = LETTERS[options.index(finding.answer)]
    answer = f"{letter}. {finding.answer}"
    # A letter is easier found once the word is said.
    reasoning = f"{reasoning} So {finding.answer}, option {letter}."
    return Question(
        name, text + INSTRUCTION + listed, reasoning, answer, finding.answer, options, 1 / len(options)
    )


def _options(rng: Rng, answers: tuple[str, ...], gold: str) -> tuple[str, ...]:
    """The right answer among up to three others, shuffled."""
    others = [a for a in answers if a != gold]
    drawn = [str(a) for a in rng.permutation(others)[: MOST_OPTIONS - 1]]
    return tuple(str(a) for a in rng.permutation([*drawn, gold]))


def _plain(reply: str) -> str:
    return reply.strip().rstrip(".").strip().lower()
