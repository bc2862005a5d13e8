"""The sounds of an import: files stay where they are, what lies inside another file gets one of its own.

A sound is opened before it is believed in. Its suffix is that of its content, whatever it was called.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from mlx_audio_r1.audio import open_stream
from mlx_audio_r1.audio_format import ByteReader, sniff
from mlx_audio_r1.errors import AudioError
from mlx_audio_r1.evaluate.bench import Embedded, Sound
from mlx_audio_r1.evaluate.rows import is_file
from mlx_audio_r1.files import disk_errors
from mlx_audio_r1.jobs.hearing import damage_noted

AUDIO = "audio"  # the folder of sounds that are no files elsewhere
LONGEST_NAME, LONGEST_PATH = 80, 200  # of a file that is written; of one that is told about
_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)


class NoSound(Exception):
    """Why there is nothing to hear."""


@dataclass(frozen=True)
class Stored:
    """place: the path as a line of items.jsonl has it. note: what did not decode, where it was tried."""

    place: str
    seconds: float
    note: str = ""


class SoundStore:
    """The sounds of one folder `out`. whole: decode each to its end, in place of reading its header."""

    def __init__(self, out: Path, whole: bool = False):
        self.out, self.whole = out, whole
        self._known: dict[Path, Stored] = {}
        self._names: set[str] = set()

    def store(self, sound: Sound, uid: str, number: int = 0) -> Stored:
        """The sound of an item, the number-th of several. Raises NoSound; DiskError."""
        if isinstance(sound, Embedded):
            return self._unpack(sound.content, uid, number)
        if sound not in self._known:
            name = str(sound)[-LONGEST_PATH:]
            if not is_file(sound):
                raise NoSound(f"{name} is not there")
            self._known[sound] = Stored(_relative(sound, self.out), *self._heard(sound, name))
        return self._known[sound]

    def _unpack(self, content: bytes, uid: str, number: int) -> Stored:
        if not content:
            raise NoSound("its row has no sound")
        seconds, note = self._heard(content, "the sound in its row")
        kind, _ = sniff(ByteReader(BytesIO(content), uid))
        target = self.out / AUDIO / (self._name(uid, number) + kind.suffix)
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(target.name + ".new")
            aside.write_bytes(content)
            os.replace(aside, target)
        return Stored(f"{AUDIO}/{target.name}", seconds, note)

    def _name(self, uid: str, number: int) -> str:
        """A file name that nothing else has, also where case does not count."""
        name = _UNSAFE.sub("_", uid.partition(":")[2])[:LONGEST_NAME] + (f"-{number}" if number else "")
        if name.lower() in self._names:
            name += "-" + hashlib.sha256(f"{uid}/{number}".encode()).hexdigest()[:8]
        self._names.add(name.lower())
        return name

    def _heard(self, source: Path | bytes, name: str) -> tuple[float, str]:
        """(seconds, what was damaged)"""
        try:
            with damage_noted() as notes, open_stream(source) as stream:
                frames = stream.frames
                if self.whole or frames is None:
                    frames = sum(len(block) for block in stream.blocks)
                seconds = frames / stream.sample_rate
        except AudioError as error:
            raise NoSound(f"{name} cannot be opened ({str(error).partition(': ')[2] or error})") from None
        if not seconds:
            raise NoSound(f"{name} has no samples")
        return seconds, "; ".join(notes) if self.whole else ""


def _relative(sound: Path, out: Path) -> str:
    """Counted from the folder of the items, where both lie below more than the root."""
    place, base = Path(os.path.realpath(sound.parent)) / sound.name, os.path.realpath(out)
    try:
        common = os.path.commonpath([place, base])
    except ValueError:  # another drive
        return str(place)
    return os.path.relpath(place, base) if common != os.path.sep else str(place)
