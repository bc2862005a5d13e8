"""Speech recognition: recordings with what is said in them, in the layouts these corpora come in.

    {"audio": "a.wav", "text": "..."}     a line each, with `lang` where a file mixes languages
    LibriSpeech                           *.trans.txt beside the .flac files
    AISHELL-1                             transcript/*.txt, wav/test/*/*.wav (or wav/dev, as it is called below)
    Kaldi                                 wav.scp and text

Three benchmarks: `asr` counts words (English), `asr-zh` characters, `asr-mixed` both. The surprise: a wav.scp
may hold commands in the place of files; none is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import AUDIO, TEXT, Bench, Profile, Question
from mlx_audio_r1.evaluate.rows import Row, found, read_json
from mlx_audio_r1.tasks.wording import Wording

WORDS = "Transcribe the speech word for word. Write only the words that are spoken."
AS_JSON = 'listen the audio, output the audio content with format {"content": ""}'  # UltraEval-Audio's words
SETTINGS = {"temperature": 0.0, "max_tokens": 4_096}
METRICS = {"en": "wer", "zh": "cer", "mixed": "mer"}
NAMES = {"english": "en", "chinese": "zh", "mandarin": "zh", "cmn": "zh", "cs": "mixed", "zh-en": "mixed",
         "en-zh": "mixed"}  # fmt: skip
PARTS = ("test", "dev", "train")  # of AISHELL: the first that is there
Utterance = tuple[str, Path, str, str, str]  # id, sound, words, part, language ("" where nobody says)


def read(path: Path, lang: str) -> Iterator[Question]:
    """The recordings of a corpus, which must be of this language. Raises EvaluationError."""
    for name, sound, words, part, said in _reader(path)(path):
        if said and said != lang:
            raise EvaluationError(f"{path}: {name} is {said}; import it as {BY_LANGUAGE[said]}")
        if not said and lang == "en" and any("\u4e00" <= c <= "\u9fff" for c in words):
            raise EvaluationError(f"{path}: {name} is Chinese; import it as asr-zh or asr-mixed")
        yield Question(
            id=name, text=WORDS, sounds=(sound,), target=Wording((words,), METRICS[lang]),
            groups={"part": part} if part else {}, lang=lang,
        )  # fmt: skip


def _reader(path: Path) -> Callable[[Path], Iterator[Utterance]]:
    layouts: tuple[tuple[bool, Callable[[Path], Iterator[Utterance]]], ...] = (
        (path.is_file() and path.suffix in (".jsonl", ".json"), _manifest),
        (path.is_dir() and (path / "wav.scp").is_file(), _kaldi),
        (path.is_dir() and (path / "transcript").is_dir(), _aishell),
        (path.is_dir() and next(path.rglob("*.trans.txt"), None) is not None, _librispeech),
        (path.is_dir() and found(path, ("*.jsonl",)) is not None, _manifest),
    )
    for fits, reader in layouts:
        if fits:
            return reader
    raise EvaluationError(f"{path}: no recordings with words in it; give a JSONL file of audio and text, or "
                          "the folder of LibriSpeech, AISHELL or Kaldi")  # fmt: skip


def _manifest(path: Path) -> Iterator[Utterance]:
    file = found(path, ("*.jsonl",)) or path
    for number, row in enumerate(read_json(file), start=1):
        if row.has("question") or row.has("schema"):
            raise row.wrong("has a question; this is no list of recordings and their words")
        name = row.text("id") if row.has("id") else str(number)
        audio = row.text("audio", "audio_path", "audio_filepath", "wav")
        yield name, file.parent / audio, row.text("text"), row.text_or("subset"), _language(row)


def _language(row: Row) -> str:
    """en, zh or mixed; "" where the row does not say."""
    told = row.text_or("lang").lower().replace("_", "-")
    short = NAMES.get(told, told.partition("-")[0])
    if short not in ("", *METRICS):
        raise row.wrong(f"lang {told!r}: counted are en, zh and mixed")
    return short


def _librispeech(path: Path) -> Iterator[Utterance]:
    for file in sorted(path.rglob("*.trans.txt")):
        for name, words in _lines(file):
            yield name, file.parent / f"{name}.flac", words, _part_of(file, path), "en"


def _part_of(file: Path, root: Path) -> str:
    """test-clean, of .../test-clean/1089/134686/1089-134686.trans.txt"""
    parts = file.parent.parent.parent
    return parts.name if parts.is_relative_to(root) or parts == root else ""


def _aishell(path: Path) -> Iterator[Utterance]:
    transcripts = sorted((path / "transcript").glob("*.txt"))
    words = {name: text for file in transcripts for name, text in _lines(file)}
    part = next((part for part in PARTS if (path / "wav" / part).is_dir()), "")
    sounds = sorted((path / "wav" / part).rglob("*.wav"))
    if not words or not sounds:
        missing = "wav/test/*/*.wav" if words else "transcript/*.txt"
        raise EvaluationError(f"{path}: no {missing} in it; unpack the corpus, its speakers' archives too")
    for sound in sounds:
        if sound.stem in words:  # a few recordings of AISHELL-1 have no words
            yield sound.stem, sound, words[sound.stem].replace(" ", ""), part, "zh"


def _kaldi(path: Path) -> Iterator[Utterance]:
    text = path / "text"
    if not text.is_file():
        raise EvaluationError(f"{text}: is not there; a Kaldi folder has wav.scp and text")
    sounds = dict(_lines(path / "wav.scp"))
    for name, words in _lines(text):
        place = sounds.get(name, "")
        if not place:
            raise EvaluationError(f"{path / 'wav.scp'}: no sound for {name}; is it of the same corpus as text?")
        if place.endswith("|"):
            raise EvaluationError(f"{path / 'wav.scp'}: {name} is a command ({place[:40]}), not a file; write "
                                  "the sounds to files first")  # fmt: skip
        yield name, path / place, words, "", ""


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """(name, the rest) of each line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise EvaluationError(f"{file}: cannot be read ({why})") from None
    for line in lines:
        name, _, rest = line.strip().partition(" ")
        if name:
            yield name, rest.strip()


def _bench(name: str, title: str, lang: str) -> Bench:
    return Bench(
        name=name,
        title=title,
        read=partial(read, lang=lang),
        profiles=(
            Profile("transcribe", order=(AUDIO, TEXT), settings=SETTINGS, thinking=False),
            Profile("transcribe-thinking", order=(AUDIO, TEXT), settings={**SETTINGS, "temperature": 0.7}),
            Profile("ultraeval", order=(AUDIO, TEXT), words=AS_JSON, settings=SETTINGS, thinking=False),
        ),
        scorers=(f"asr.{METRICS[lang]}",),
        license="that of the corpus",
        group_by=("part",),
        source="LibriSpeech or AISHELL unpacked, a Kaldi folder, or a JSONL file of audio and text",
    )


ENGLISH = _bench("asr", "speech recognition, English", "en")
CHINESE = _bench("asr-zh", "speech recognition, Chinese", "zh")
MIXED = _bench("asr-mixed", "speech recognition, languages mixed", "mixed")
BY_LANGUAGE = {"en": ENGLISH.name, "zh": CHINESE.name, "mixed": MIXED.name}
