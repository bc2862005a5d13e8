"""What a judge is asked in: our own neutral words, or the authors' as the user has them.

    words_of(Path("WildSpeech-Bench/tools/api_judge.py"), scorer)     # the texts that their script assigns
    words_of(Path("prompt.txt"), scorer)                              # the whole file
    words_of(Path("step_caption/prompts"), scorer)                    # its judge_*.txt

Nobody's prompts are part of this package, so what is asked without a file is ours, and called so: numbers from
it cannot stand beside published ones. The surprise: a script is read, never run; its f-strings become texts
with {marks} where the values go.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.tasks.item import Item

if TYPE_CHECKING:
    from mlx_audio_r1.evaluate.scoring import JudgeScorer

OURS = "our prompt"
SYSTEM_TURN = "<system>"  # the name, for `words_of`, of what a script says as the system
IN_REF = "judge"  # of an item's ref: {"user": ..., "system": ...} from the download it came with
SYSTEM_FILE, USER_FILE = "judge_system_prompt.txt", "judge_user_prompt_template.txt"


@dataclass(frozen=True)
class Words:
    """user: the prompt, with marks. system: what goes before it. parts: other texts that a prompt is made of.
    source: where they are from."""

    user: str = ""
    system: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    source: str = OURS

    @property
    def sha256(self) -> str:
        """Of all the texts, whatever file they came in."""
        texts = json.dumps([self.user, self.system, dict(self.parts)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(texts.encode()).hexdigest()


def filled(text: str, fields: Mapping[str, str]) -> str:
    """The text with its marks replaced, in one pass: a mark inside a reply stays a part of the reply."""
    marks = "|".join(re.escape(mark) for mark in sorted(fields, key=len, reverse=True))
    return re.sub(marks, lambda found: fields[found.group()], text)


def item_words(item: Item) -> Words | None:
    """The words that the item's download had, None where it had none."""
    found = item.ref.get(IN_REF)
    if not isinstance(found, Mapping):
        return None
    return Words(str(found["user"]), str(found.get("system", "")), source=str(found.get("source", "download")))


def words_in(folder: Path) -> dict[str, str] | None:
    """What `item_words` reads, of the prompts folder of a download; None where its files are not there."""
    if not (folder / USER_FILE).is_file():
        return None
    system = prompt_text(folder / SYSTEM_FILE) if (folder / SYSTEM_FILE).is_file() else ""
    return {"user": prompt_text(folder / USER_FILE), "system": system, "source": "its download"}


def words_of(path: Path, scorer: JudgeScorer) -> Words:
    """The authors' words for a scorer, from a file of theirs. Raises EvaluationError where it has none."""
    if path.is_dir():
        found = words_in(path)
        if found is None:
            raise EvaluationError(f"{path}: no {USER_FILE} in it; give the judge's prompt as a file")
        words = Words(found["user"], found["system"], source=str(path))
    elif path.suffix == ".py":
        words = _of_script(path, scorer)
    else:
        words = Words(prompt_text(path), scorer.words.system, scorer.words.parts, str(path))
    return checked(words, scorer)


def checked(words: Words, scorer: JudgeScorer) -> Words:
    """The words, where a judge would see the reply in them. Raises EvaluationError."""
    texts = [words.user, *words.parts.values()]
    if scorer.must and not any(mark in text for text in texts for mark in scorer.must):
        raise EvaluationError(f"{words.source}: a prompt for {scorer.name} needs {' or '.join(scorer.must)}, "
                              "where the reply goes")  # fmt: skip
    return words


def _of_script(path: Path, scorer: JudgeScorer) -> Words:
    if not scorer.names:
        raise EvaluationError(f"{path}: no script has the prompt of {scorer.name}; give it as a text file")
    try:
        assigned = assigned_texts(prompt_text(path))
    except (SyntaxError, ValueError) as error:
        raise EvaluationError(f"{path}: is no Python that can be read ({error})") from None
    texts = {}
    for role, name in scorer.names.items():
        variable, _, number = name.partition(":")
        found = assigned.get(variable, [])
        if len(found) <= int(number or 0):
            raise EvaluationError(f"{path}: no text {variable} in it, which has the prompt of {scorer.name}")
        texts[role] = found[int(number or 0)]
    return Words(texts.pop("user", ""), texts.pop("system", ""), texts, str(path))


def assigned_texts(source: str) -> dict[str, list[str]]:
    """name -> the texts that a script assigns to it, in order; SYSTEM_TURN -> what it says as the system."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and (text := _text_of(node.value)) is not None:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id].append((node.lineno, text))
        elif isinstance(node, ast.Dict) and (text := _system_turn(node)):
            found[SYSTEM_TURN].append((node.lineno, text))
    return {name: [text for _, text in sorted(texts)] for name, texts in found.items()}


def _system_turn(node: ast.Dict) -> str | None:
    """The words of {"role": "system", "content": ...}, where they stand there."""
    fields = {_text_of(key): _text_of(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    return fields.get("content") if fields.get("role") == "system" else None


def _text_of(node: ast.expr) -> str | None:
    """Of a literal, of an f-string with {marks}, or of one of them with .strip()."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_piece, node.values))
    stripped = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "strip"
    inner = _text_of(node.func.value) if stripped else None  # type: ignore[attr-defined]
    return None if inner is None else inner.strip()


def _piece(node: Any) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else "{" + ast.unparse(node.value) + "}"


def prompt_text(path: Path) -> str:
    """A file of words, without space around them. Raises EvaluationError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise EvaluationError(f"{path}: cannot be read ({why})") from None
    if not text.strip():
        raise EvaluationError(f"{path}: is empty; it should be a prompt")
    return text.strip()
