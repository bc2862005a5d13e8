"""Text <-> ids, and the special ids by name.

Special tokens are looked up by their string: ids from secondary documents are wrong. The surprise:
`<think>` and `</think>` are plain text, not tokens, so reasoning is found in text and never by id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers.decoders import DecodeStream

from mlx_audio_r1.errors import CheckpointError, PromptError

BEGIN_TURN, END_TURN = "<|BOT|>", "<|EOT|>"
AUDIO_START, AUDIO_PATCH, AUDIO_END = "<audio_start>", "<audio_patch>", "<audio_end>"
REQUIRED = (BEGIN_TURN, END_TURN, AUDIO_START, AUDIO_PATCH, AUDIO_END)
STOP_TOKENS = (END_TURN, "<|im_end|>", "<|endoftext|>")  # official ids 151665, 151645, 151643
FALLBACK_IDS = {AUDIO_PATCH: 151690, END_TURN: 151665, AUDIO_START: 151688}  # first-party constants


class Tokenizer:
    """A checkpoint's tokenizer. Text given by people never becomes a special token."""

    def __init__(self, backend: tokenizers.Tokenizer, extra_stop_ids: Iterable[int] = ()):
        self._backend = backend
        self._backend.encode_special_tokens = True  # "<|EOT|>" in a question is seven characters
        self.special = {name: self._special_id(name) for name in REQUIRED}
        found = (backend.token_to_id(name) for name in STOP_TOKENS)
        self.stop_ids = frozenset(i for i in (*found, *extra_stop_ids) if i is not None)

    @classmethod
    def from_folder(cls, folder: str | Path, extra_stop_ids: Iterable[int] = ()) -> Tokenizer:
        """Read `folder`/tokenizer.json (or vocab.json + merges.txt + added_tokens.json)."""
        folder = Path(folder)
        stops = {*extra_stop_ids, *_generation_stop_ids(folder / "generation_config.json")}
        try:
            if (folder / "tokenizer.json").is_file():
                return cls(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), stops)
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                return cls(_from_vocab(folder), stops)
        except CheckpointError:
            raise
        except Exception as error:  # the library raises bare Exception for a broken file
            raise CheckpointError(f"{folder}: the tokenizer files are broken ({error})") from None
        raise CheckpointError(f"{folder}: no tokenizer.json; copy the tokenizer files beside the weights")

    def _special_id(self, name: str) -> int:
        token = self._backend.token_to_id(name)
        if token is None:
            token = FALLBACK_IDS.get(name)
            if token is None or token >= self._backend.get_vocab_size():
                raise CheckpointError(f"the tokenizer has no {name}; is this a Step-Audio checkpoint?")
        return token

    @property
    def audio_patch_id(self) -> int:
        return self.special[AUDIO_PATCH]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; names of special tokens in it are read as ordinary characters."""
        try:
            return self._backend.encode(text, add_special_tokens=False).ids if text else []
        except TypeError:  # lone surrogates: bytes of a terminal or a file that are not UTF-8
            raise PromptError("the text is not valid UTF-8: check the encoding of the prompt") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included by name."""
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def stream(self) -> TextStream:
        """A decoder that takes one id at a time."""
        return TextStream(self)


class TextStream:
    """Ids one by one -> text as soon as it is whole characters."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """The text this id completes; empty while a character is unfinished."""
        text = self._stream.step(self._tokenizer._backend, token)
        self._pending = [*self._pending, token] if text is None else []
        return text or ""

    def finish(self) -> str:
        """What is left when the stream ends inside a character (shown as U+FFFD)."""
        rest, self._pending = self._pending, []
        return self._tokenizer.decode(rest)


def _generation_stop_ids(path: Path) -> list[int]:
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []  # optional file; the stop strings are looked up anyway
    ids = value if isinstance(value, list) else [value]
    return [i for i in ids if isinstance(i, int)]


def _from_vocab(folder: Path) -> tokenizers.Tokenizer:
    """Qwen2's byte-level BPE from its separate files."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

    backend = tokenizers.Tokenizer(
        models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    )
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    added: Mapping[str, int] = json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
    ordered = sorted(added, key=lambda name: added[name])
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in ordered])
    moved = [name for name in ordered if backend.token_to_id(name) != added[name]]
    if moved:
        raise CheckpointError(f"{folder}: added_tokens.json puts {moved[0]} at {added[moved[0]]}, "
                              f"but vocab.json leads to {backend.token_to_id(moved[0])}")
    return backend


QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
