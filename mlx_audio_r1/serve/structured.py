"""`response_format`: an answer that is JSON, or fits a JSON schema, for certain.

llguidance (the extra `structured`) says which tokens may come next. The surprise: `</think>` is text
that may share a token with what follows it, so the grammar covers the whole reply, with the reasoning
as "anything up to </think>", and no token falls between the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_audio_r1.generate import ReasoningGate
from mlx_audio_r1.reasoning import THINK_CLOSE
from mlx_audio_r1.serve.fields import Reader, boolean, mapping, read_fields, text, wrong
from mlx_audio_r1.serve.problems import Problem
from mlx_audio_r1.tokenizer import Tokenizer

ANY_OBJECT: dict[str, Any] = {"type": "object"}
MAX_SCHEMA_CHARACTERS = 100_000
WHITESPACE = {"whitespace_pattern": "\\n {0,8}| ?"}  # without an end it is all a small model writes
SCHEMA_FIELDS: dict[str, Reader] = {
    "name": text, "description": text, "strict": boolean, "schema": mapping,
}


def read_schema(response_format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The JSON schema a `response_format` asks for; None for plain text. Raises Problem."""
    if response_format is None:
        return None
    name = "response_format"
    values = read_fields(response_format, {"type": text, "json_schema": mapping}, f"{name}.")
    kind = values.get("type")
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise wrong(f"{name}.type", kind, "text, json_object or json_schema")
    if find_spec("llguidance") is None:
        raise Problem(
            f'{name}: {kind} needs llguidance; pip install "mlx-audio-r1[structured]" and start again',
            param=name, code="unsupported_parameter",
        )
    if kind == "json_object":
        return ANY_OBJECT
    wanted = read_fields(values.get("json_schema", {}), SCHEMA_FIELDS, f"{name}.json_schema.")
    if "schema" not in wanted:
        raise Problem(f"{name}.json_schema.schema is missing", param=f"{name}.json_schema.schema",
                      code="missing_parameter")
    return dict(wanted["schema"])


class Grammars:
    """Grammars for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._tokens: Any = None  # llguidance's view of the vocabulary, built when it is first needed

    def compile(self, schema: Mapping[str, Any], thinking_open: bool) -> Constraint:
        """A constraint for one reply. Raises Problem for a schema that cannot be held."""
        from llguidance import LLMatcher, LLTokenizer

        stop_ids = sorted(self._tokenizer.stop_ids)
        if self._tokens is None:
            written = self._tokenizer._backend.to_str()
            self._tokens = LLTokenizer(written, n_vocab=self._vocab_size, eos_token=stop_ids)
        grammar = _grammar(schema, thinking_open)
        failed, notes = LLMatcher.validate_grammar_with_warnings(grammar, self._tokens)
        if failed:
            reason = notes[0].split("\n")[0].partition("JSON schema: ")[2] or "not usable"
            raise Problem(f"response_format: the schema cannot be held: {reason[:300]}",
                          param="response_format", code="invalid_schema")
        return Constraint(LLMatcher(self._tokens, grammar), stop_ids, self._vocab_size)


def _grammar(schema: Mapping[str, Any], thinking_open: bool) -> str:
    written = json.dumps({**schema, "x-guidance": WHITESPACE})
    if len(written) > MAX_SCHEMA_CHARACTERS:
        raise Problem(
            f"the schema has {len(written)} characters, at most {MAX_SCHEMA_CHARACTERS} are compiled",
            param="response_format", code="invalid_schema",
        )
    document = f"document: %json {written}\n"
    if not thinking_open:
        return f"start: BLANK document\nBLANK: /[ \\n]{{0,4}}/\n{document}"
    reasoning = f'reasoning[suffix="{THINK_CLOSE}"]: /(?s:.*)/\n'
    return f"start: reasoning BLANK document\nBLANK: /[ \\n]{{0,4}}/\n{reasoning}{document}"


@dataclass(frozen=True)
class Constraint:
    """What one reply may be; the matcher moves on with it, so every reply has its own."""

    matcher: Any
    stop_ids: list[int]
    vocab_size: int

    def copy(self) -> Constraint:
        """The same, for another reply."""
        return Constraint(self.matcher.deep_copy(), self.stop_ids, self.vocab_size)

    def behind(self, gate: ReasoningGate, prompt_length: int) -> GrammarGate:
        """The logits processor that takes the place of `gate`."""
        return GrammarGate(gate, self, prompt_length)


class GrammarGate:
    """A ReasoningGate behind a grammar: what the gate forces, the grammar follows.

    It is the last logits processor of a stream. The tokens so far are read at every step, so a
    constrained reply waits for each token before the next is begun.
    """

    def __init__(self, gate: ReasoningGate, constraint: Constraint, prompt_length: int):
        self._gate, self._matcher = gate, constraint.matcher
        self._seen = prompt_length
        self._stop_ids, self._vocab_size = constraint.stop_ids, constraint.vocab_size
        self.broken = False

    @property
    def reason(self) -> str | None:
        """Why the reasoning was closed, if it was."""
        return self._gate.reason

    def note_closed(self) -> None:
        """The model closed the reasoning itself."""
        self._gate.note_closed()

    def close(self, reason: str) -> None:
        """Force the closing tag from the next token on."""
        self._gate.close(reason)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        new = tokens[self._seen :].tolist()
        self._seen += len(new)
        if new and not self.broken and not self._matcher.is_stopped():
            self.broken = self._matcher.try_consume_tokens(new) != len(new)
        return self._gate(tokens, mx.where(self._allowed(logits.shape[-1]), logits, -float("inf")))

    def _allowed(self, width: int) -> mx.array:
        """(width,) bool; only the end of the reply once the document is whole."""
        allowed = np.zeros(width, dtype=bool)
        if self.broken or self._matcher.is_stopped():
            allowed[self._stop_ids] = True
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            held = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
            allowed[: len(held)] = held.astype(bool)[:width]
        return mx.array(allowed)
