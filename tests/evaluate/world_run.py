"""A few questions about clips of the acoustic world, as `eval import` leaves them, and runs over them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_audio_r1.evaluate.choosing import Choosing, open_sources
from mlx_audio_r1.evaluate.results import ITEMS, ResultFile
from mlx_audio_r1.evaluate.run import run_items
from mlx_audio_r1.evaluate.running import Running
from mlx_audio_r1.prompt import AudioPart
from mlx_audio_r1.tasks.acoustic_world import world_item
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.item_files import item_to_json
from mlx_audio_r1.tasks.world_rows import write_wav

GREEDY = {"temperature": 0.0, "max_tokens": 200}
ASKED = ((3, "count"), (8, "compare"), (5, "source"), (11, "order"), (4, "contour"), (9, "loudness"))


def write_items(folder: Path, asked=ASKED, *, difficulty="easy") -> list[Item]:
    """items.jsonl with a clip for each (seed, task), half of them with options."""
    folder.mkdir(parents=True)
    items = []
    for number, (seed, task) in enumerate(asked):
        made = world_item(seed, task, difficulty, choice=number % 2 == 0 and task != "order")
        write_wav(folder / f"{number}.wav", np.asarray(made.sounds[0].source))
        sound = AudioPart(f"{number}.wav")
        parts = tuple(sound if isinstance(p, AudioPart) else p for p in made.turns[0].parts)
        items.append(replace(made, uid=f"acoustic-world:{number}", turns=(Turn("user", parts),),
                             extra={**made.extra, "profile": "acoustic-world"}))  # fmt: skip
    store(folder, items)
    return items


def store(folder: Path, items) -> None:
    lines = (json.dumps(item_to_json(item)) + "\n" for item in items)
    (folder / ITEMS).write_text("".join(lines))


def run_world(r1, folder: Path, out: Path, choosing=Choosing(), **running):  # noqa: B008
    """A run over a folder of items; greedy and without grounding unless told otherwise."""
    running = {"settings": GREEDY, "grounding": "off", **running}
    return run_items(r1, open_sources([str(folder)], out, choosing), out, Running(**running))


def rows(out: Path) -> dict:
    """The results by key, without what differs between two runs that are the same: times."""
    head = json.loads((out / "results.jsonl").read_text().partition("\n")[0])
    found = ResultFile(out, head).found
    return {key: replace(result, seconds=0.0) for key, result in found.items()}
