"""self-cognition: does the model know that it hears? Questions that ask to listen, in English and Chinese.

    audio-r1 eval run self-cognition -o out/ --per-task 16     # 16 clips of each kind, in both languages
    audio-r1 eval import self-cognition mmau/ -o hearing/       # the sounds of an import, or of a folder

The rate of replies that deny hearing is an error rate; the paper's section 6.3 has 6.76 % before and 0.02 %
behind its training, over 5,000 questions that it does not give. The surprise: clips of silence are among them,
because somebody who listens says that there is nothing to hear, and that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Embedded, Profile, Question, Sound
from mlx_audio_r1.evaluate.profiles import STEP_SETTINGS
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.balanced import FIRST_SEED
from mlx_audio_r1.tasks.acoustic.world import KINDS, make_clip
from mlx_audio_r1.tasks.item_files import read_items
from mlx_audio_r1.tasks.judged import Judged
from mlx_audio_r1.tasks.self_cognition import HELD_OUT, PERCEPTION_QUESTIONS
from mlx_audio_r1.tasks.world_rows import wav_bytes

SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac")
SILENCE, SECONDS = "silence", 2.0
SEEDS = 50_000_000  # from FIRST_SEED on: clips of no other benchmark


def make(per_task: int, seed: int) -> Iterator[Question]:
    """`per_task` clips of each kind that can be made here, each asked about in both languages."""
    kinds = [kind for kind in KINDS if kind != "speech" or speech.available()]
    sounds = ((kind, _clip(kind, SEEDS + 1_000_003 * seed + len(KINDS) * i + k))
              for i in range(per_task) for k, kind in enumerate(kinds))  # fmt: skip
    yield from _questions(sounds, f"seed-{seed}")


def read(path: Path) -> Iterator[Question]:
    """Questions about the sounds of a file of items, of a folder that has one, or of a folder of sounds."""
    yield from _questions((("clip", sound) for sound in _sounds(path)), "")


def _clip(kind: str, number: int) -> Embedded:
    """Of digital silence where that is the kind, so that nothing at all can be heard."""
    if kind == SILENCE:
        return Embedded(wav_bytes(np.zeros(int(SECONDS * SAMPLE_RATE), np.float32)))
    return Embedded(wav_bytes(make_clip(FIRST_SEED + number, kind, held_out=True).waveform))


def _questions(sounds: Iterator[tuple[str, Sound]], split: str) -> Iterator[Question]:
    ways = {lang: cycle(reversed(list(enumerate(said)))) for lang, said in PERCEPTION_QUESTIONS.items()}
    for number, (kind, sound) in enumerate(sounds):
        for lang, coming in ways.items():
            place, words = next(coming)
            held_out = place >= len(PERCEPTION_QUESTIONS[lang]) - HELD_OUT
            groups = {"lang": lang, "sound": kind, "question": "held out" if held_out else "trained on"}
            yield Question(id=f"{number}-{lang}", text=words, sounds=(sound,), target=Judged(), groups=groups,
                           split=split, lang=lang)  # fmt: skip


def _sounds(path: Path) -> Iterator[Path]:
    """Each once."""
    items = path / "items.jsonl" if path.is_dir() else path
    if items.suffix == ".jsonl" and items.is_file():
        sources = (Path(str(part.source)) for item in read_items(items) for part in item.sounds)
        yield from dict.fromkeys(sources)
        return
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not found:
        raise EvaluationError(f"{path}: no sounds in it; give an import, or a folder of sound files")
    yield from found


BENCH = Bench(
    name="self-cognition",
    title="self-cognition: does it know that it hears?",
    read=read,
    make=make,
    profiles=(Profile("self-cognition", order=(AUDIO, TEXT), settings={**STEP_SETTINGS, "max_tokens": 2_048}),),
    scorers=("self.denial",),
    license="Apache-2.0",
    group_by=("sound", "lang", "question"),
    source="nothing: it is made on the spot; or give sounds of your own",
)
