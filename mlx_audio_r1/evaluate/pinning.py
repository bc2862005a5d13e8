"""Which version of a benchmark a download is: by the sha256 of its file, or of its questions.

The same questions come as JSON from one place and as parquet from another; so where no file is known,
the questions themselves are looked up: their words, options and answers, in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench, Question

SHOWN = 8  # hexadecimal digits in a version's name


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror or error})") from None


def question_key(question: Question) -> str:
    """What the fingerprint takes of a question: words, options and answers, without space around them."""
    target = question.target
    options = [option.strip() for option in getattr(target, "options", ())]
    gold = sorted({options[i] for i in target.gold}) if options else repr(target)
    return json.dumps([question.text.strip(), options, gold], ensure_ascii=False)


def fingerprint(keys: Iterable[str]) -> str:
    """Hex digest of the `question_key`s of all questions, whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def version_name(bench: Bench, *digests: str) -> str:
    """The name of the version that one of these digests belongs to; "" where none is known."""
    return next((bench.versions[digest] for digest in digests if digest in bench.versions), "")


def version_tag(bench: Bench, name: str, sha256: str) -> str:
    """As items carry it: v05.15.25/9f18fda9; the digits alone where no version is known by its digest."""
    return f"{name or 'unknown'}/{sha256[:SHOWN]}" if bench.versions else sha256[:SHOWN]
