"""Questions of your own: a JSONL file of `audio-r1.task/1`, of training rows, or of plain columns.

    {"audio": "a.wav", "question": "Which?", "choices": ["drum", "bell"], "answer": "bell"}
    {"messages": [{"role": "user", "content": "<audio>How many?"}], "audios": ["a.wav"], "solution": 3}

Paths count from the file. The surprise: only plain columns can be asked in another order or other words;
what comes as messages is asked as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_audio_r1.errors import DataError, EvaluationError, PromptError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Embedded, Profile, Question, Sound
from mlx_audio_r1.evaluate.profiles import OTHER_CHOICES, STEP_SETTINGS
from mlx_audio_r1.evaluate.rows import Row, find, found, read_json
from mlx_audio_r1.prompt import AudioPart, Message, parse_messages
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.from_rows import item_from_row
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn
from mlx_audio_r1.tasks.item_files import SCHEMA, item_from_json
from mlx_audio_r1.tasks.options import read_options

FILES, WANTED = ("items.jsonl", "*.jsonl", "*.json"), "a JSONL file of questions"
MARK = "<audio>"  # where a sound stands in the text of a message
SOUNDS = ("audios", "audio", "audio_path", "audio_paths")
WORDS = ("question", "prompt", "query")
NAMES = ("uid", "id", "index")
FORMS = {"uid": str, "split": str, "lang": str, "option_style": str, "groups": dict, "ref": dict,
         "extra": dict}  # fmt: skip  # of an item
ROLES = {"human": "user", "gpt": "assistant"}


def read(path: Path) -> Iterator[Question]:
    """The questions of a file. Raises EvaluationError."""
    file = find(path, FILES, WANTED)
    for number, row in enumerate(read_json(file), start=1):
        if row.values.get("schema") == SCHEMA:
            yield _of_item(_item(row, file.parent), row)
            continue
        name = next((row.text(key) for key in NAMES if row.has(key)), str(number))
        yield (_of_messages if row.has("messages") else _of_columns)(row, name, file.parent)


def pinned(path: Path) -> Path | None:
    return found(path, FILES)


def _item(row: Row, folder: Path) -> Item:
    for name, kind in FORMS.items():
        if name in row.values and not isinstance(row.values[name], kind):
            raise row.wrong(f"{name} {str(row.values[name])[:60]!r}: expected {kind.__name__}")
    try:
        return item_from_json(row.values, str(folder))
    except KeyError as error:
        raise row.wrong(f"no {error.args[0]}; a line looks like {SCHEMA}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise row.wrong(str(error)[:200]) from None


def _of_item(item: Item, row: Row) -> Question:
    """An item keeps its turns, and the way its options are written."""
    turns = tuple(Turn(t.role, tuple(map(_as_sound, t.parts))) for t in item.turns)
    words = (part for turn in item.turns for part in turn.parts if isinstance(part, str))
    text = str(item.ref.get("question") or "\n".join(words))
    return Question(
        id=item.uid, text=text, sounds=(), target=item.target, groups=dict(item.groups), turns=turns,
        split=item.split, lang=item.lang, chance=item.chance, ref=item.ref,
        extra={**item.extra, "option_style": item.option_style},
    )  # fmt: skip


def _of_columns(row: Row, name: str, folder: Path) -> Question:
    text = row.text(*WORDS)
    sounds = tuple(folder / one for one in _paths(row))
    item = _target(row, [Message("user", (text,))])
    return Question(
        id=name, text=text, sounds=sounds, target=item.target, groups=_groups(item), chance=item.chance,
        lang=row.text_or("lang", "en"), split=row.text_or("split"),
    )  # fmt: skip


def _of_messages(row: Row, name: str, folder: Path) -> Question:
    messages = _messages(row, folder)
    if messages[-1].role == "assistant":
        raise row.wrong("ends in a reply; end it in the question, and give the right answer as solution")
    item = _target(row, messages)
    words = "\n".join(part for part in messages[-1].parts if isinstance(part, str))
    turns = [Turn(m.role, tuple(map(_as_sound, m.parts))) for m in messages]
    if isinstance(item.target, Choice) and not read_options(words):
        turns[-1] = Turn(turns[-1].role, (*turns[-1].parts, OPTIONS))
    return Question(
        id=name, text=words, sounds=(), target=item.target, groups=_groups(item), turns=tuple(turns),
        chance=item.chance, split=row.text_or("split"),
    )  # fmt: skip


def _target(row: Row, messages: list[Message]) -> Item:
    try:
        return item_from_row(row.values, messages, row.where)
    except DataError as error:
        raise EvaluationError(str(error)) from None


def _groups(item: Item) -> dict[str, str]:
    more = {"subset": item.extra["subset"]} if isinstance(item.extra.get("subset"), str) else {}
    return {name: str(value) for name, value in {**item.groups, **more}.items()}


def _messages(row: Row, folder: Path) -> list[Message]:
    """The messages with their sounds in the places of the marks, or in front of the last one."""
    given = row.value("messages")
    if not isinstance(given, list) or not given or not all(isinstance(m, Mapping) for m in given):
        raise row.wrong("messages: expected a list of objects")
    paths = _paths(row) if any(row.has(name) for name in SOUNDS) else []
    sounds = iter([AudioPart(str(folder / path)) for path in paths])
    messages = [_message(message, sounds, row, folder) for message in given]
    if rest := list(sounds):
        if len(rest) < len(paths):
            raise row.wrong(f"{len(paths)} sounds, fewer {MARK} marks")
        last = messages[-1]
        messages[-1] = Message(last.role, (*rest, *last.parts))
    return messages


def _message(message: Mapping[str, Any], sounds: Iterator[AudioPart], row: Row, folder: Path) -> Message:
    role, content = ROLES.get(str(message.get("role")), message.get("role")), message.get("content")
    if not isinstance(content, str):
        try:
            parsed = parse_messages([{"role": role, "content": content}])[0]
        except PromptError as error:
            raise row.wrong(str(error)) from None
        return Message(parsed.role, tuple(_placed(part, folder) for part in parsed.parts))
    pieces: list[str | AudioPart] = []
    for k, text in enumerate(content.split(MARK)):
        if k:
            sound = next(sounds, None)
            if sound is None:
                raise row.wrong(f"more {MARK} marks than sounds")
            pieces.append(sound)
        pieces += [text] if text.strip() else []
    return Message(str(role), tuple(pieces))


def _placed(part: str | AudioPart, folder: Path) -> str | AudioPart:
    """A path of a part counts from the folder too."""
    is_path = isinstance(part, AudioPart) and isinstance(part.source, str)
    return AudioPart(str(folder / part.source)) if is_path else part  # type: ignore[union-attr]


def _paths(row: Row) -> list[str]:
    value = row.value(*SOUNDS)
    return list(row.texts(*SOUNDS)) if isinstance(value, list) else [row.text(*SOUNDS)]


def _as_sound(part: Any) -> Any:
    """A sound as the import takes it."""
    if not isinstance(part, AudioPart):
        return part
    source: Sound = Embedded(part.source) if isinstance(part.source, bytes) else Path(part.source)
    return AudioPart(source)


BENCH = Bench(
    name="generic",
    title="your own questions",
    read=read,
    profiles=(
        Profile("generic", order=(AUDIO, TEXT), settings=STEP_SETTINGS),
        Profile("text-first", settings=STEP_SETTINGS),
        *OTHER_CHOICES,
    ),
    scorers=("world",),
    pinned=pinned,
    group_by=("task", "category", "difficulty"),
    source="a JSONL file: audio, question, answer and perhaps choices",
)
