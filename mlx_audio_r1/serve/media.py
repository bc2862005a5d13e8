"""The sounds of a request -> decoded chunks, within limits.

Safe by default: a sound comes inside the request as base64. Files of this machine are read only below
one folder that was allowed, and nothing is ever fetched from the network. The format is told from the
bytes, whatever the request says; the name it gives must only be one there is.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlx_audio_r1.audio import Chunk, read_chunks
from mlx_audio_r1.config import CHUNK_SECONDS
from mlx_audio_r1.errors import AudioError
from mlx_audio_r1.serve.fields import mapping, text, wrong
from mlx_audio_r1.serve.problems import Problem, unsupported

MEGABYTE = 1_000_000
FORMATS = ("wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "mp4", "mpeg", "mpga", "aac", "aiff", "aif",
           "webm", "caf", "au", "w64")


@dataclass(frozen=True)
class MediaLimits:
    """What a request may bring."""

    upload_bytes: int = 25 * MEGABYTE  # of sound, all parts of a request together
    seconds: float = 1_800.0  # of sound, all parts of a request together
    folder: Path | None = None  # files below it may be named


@dataclass(frozen=True)
class Sound:
    """A sound of a request as it came; `param` is where it stood."""

    data: bytes = field(repr=False)
    param: str

    def decode(self, seconds: float, chunk_seconds: float = CHUNK_SECONDS) -> list[Chunk]:
        """Its chunks. Raises Problem when it is no sound or longer than `seconds`."""
        chunks = []
        try:
            for chunk in read_chunks(self.data, chunk_seconds=chunk_seconds):
                if chunk.end > seconds:
                    raise Problem(
                        f"{self.param}: more than the {seconds:g} seconds of sound that are left to this "
                        "request; send less, or start the server with a higher --max-audio-seconds",
                        param=self.param, code="audio_too_long",
                    )
                chunks.append(chunk)
        except AudioError as error:
            reason = str(error).removeprefix("<bytes>: ")
            raise Problem(f"{self.param}: {reason}", param=self.param, code="invalid_audio") from None
        return chunks


def read_input_audio(value: Any, name: str, limits: MediaLimits) -> Sound:
    """OpenAI's {"data": base64, "format": "wav"}."""
    fields = mapping(value, name)
    for key in fields:
        if key not in ("data", "format"):
            raise unsupported(f"{name}.{key if key.isprintable() and len(key) <= 80 else ascii(key)[:60]}")
    declared = fields.get("format")
    if declared is not None and text(declared, f"{name}.format").lower() not in FORMATS:
        raise wrong(f"{name}.format", declared, "one of " + ", ".join(FORMATS))
    if "data" not in fields:
        raise Problem(f"{name}.data is missing: expected base64", param=f"{name}.data",
                      code="missing_parameter")
    return _from_base64(text(fields["data"], f"{name}.data"), f"{name}.data")


def read_audio_url(value: Any, name: str, limits: MediaLimits) -> Sound:
    """vLLM's {"url": "data:audio/wav;base64,..."}; file URLs where a folder is allowed."""
    fields: Mapping[str, Any] = {"url": value} if isinstance(value, str) else mapping(value, name)
    return read_reference(fields.get("url"), f"{name}.url", limits)


def read_reference(value: Any, name: str, limits: MediaLimits) -> Sound:
    """A data URL, a file URL or a path."""
    given = text(value, name)
    if given[:5].lower() == "data:":
        return _from_base64(given, name)
    scheme = given.partition("://")[0].lower() if "://" in given[:32] else ""
    if scheme not in ("", "file"):
        raise Problem(
            f"{name}: URLs are not fetched; send the sound itself as base64 in input_audio",
            param=name, code="url_not_allowed",
        )
    return _from_folder(unquote(urlsplit(given).path) if scheme else given, name, limits)


def _from_base64(given: str, name: str) -> Sound:
    if given[:5].lower() == "data:":
        head, comma, given = given.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise wrong(name, head, "a data URL in base64, data:audio/wav;base64,...")
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(f"{name}: not base64 ({error})", param=name, code="invalid_base64") from None
    if not data:
        raise Problem(f"{name}: the sound is empty", param=name, code="invalid_audio")
    return Sound(data, name)


def _from_folder(path: str, name: str, limits: MediaLimits) -> Sound:
    if limits.folder is None:
        raise Problem(
            f"{name}: files of this machine are not read; send base64 in input_audio, or start the server "
            "with --allow-local-media DIR",
            param=name, code="local_media_not_allowed",
        )
    inside = _relative_to(limits.folder, path)
    if inside is None:
        raise Problem(f"{name}: no such file in the allowed folder", param=name, code="local_media_not_allowed")
    try:
        data = _read_below(limits.folder, inside, limits.upload_bytes)
    except (OSError, ValueError):  # the reason would tell what lies outside
        raise Problem(
            f"{name}: no such file in the allowed folder", param=name, code="local_media_not_allowed"
        ) from None
    if len(data) > limits.upload_bytes:
        raise too_large(limits, name)
    return Sound(data, name)


def _relative_to(folder: Path, path: str) -> tuple[str, ...] | None:
    """The names below `folder` that lead to `path`; None for what leaves it."""
    given = Path(path)
    if given.is_absolute():
        if not given.is_relative_to(folder):
            return None
        given = given.relative_to(folder)
    return None if not given.parts or ".." in given.parts or "\0" in path else given.parts


def _read_below(folder: Path, names: tuple[str, ...], most: int) -> bytes:
    """A regular file reached from `folder` without following any link, opened name by name so that
    nothing can be swapped in between. At most `most` + 1 bytes."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = deeper
        opened = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError("not a regular file")
        return file.read(most + 1)


def too_large(limits: MediaLimits, name: str | None = None) -> Problem:
    """413: more bytes than --max-audio-upload-mb."""
    megabytes = limits.upload_bytes / MEGABYTE
    return Problem(
        f"more than {megabytes:g} MB of sound; send less, or start the server with a higher "
        "--max-audio-upload-mb",
        param=name, code="request_too_large", status=413,
    )
