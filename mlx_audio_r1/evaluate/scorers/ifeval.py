"""Instructions whose keeping can be checked (IFEval, as VoiceBench asks it): no commas, in French.

The number is the mean of four: replies that keep all their instructions, and instructions kept, each strictly
and loosely (without asterisks, the first line or the last). The surprise: a reply is wrong or right by its form
alone. Two counts differ a little from the authors', whose library needs a download: sentences, and words in
capitals; languages are told by langdetect, with a fixed seed.
Needs of an item: extra["instruction_id_list"] and extra["kwargs"], a list and one object for each; for repeated
prompts extra["prompt"].
Source: MatthewCYM/VoiceBench src/evaluator/ifeval.py, from google-research instruction_following_eval.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scoring import RuleScorer, Score
from mlx_audio_r1.tasks.item import Item

Wanted = Mapping[str, Any]  # the arguments of one instruction
FEWER = "less than"  # the other relation is "at least"
_SENTENCE = re.compile(r"[.!?]+[\"')\]]*(?=\s|\Z)|[。！？]+|\n\s*\n")  # noqa: RUF001
_TITLES = re.compile(r"\b(?:[A-HJ-Z]|Mr|Mrs|Ms|Dr|St|Prof|vs|etc|e\.g|i\.e)\.(?=\s)")  # "Dr. Who" ends nothing
_FENCE = re.compile(r"\A```(?:json|Json|JSON)?|```\Z")
_WORD = re.compile(r"\w+(?:[-'.]\w+)*")


def rule(reply: str, item: Item) -> Score:
    """value: are all instructions kept strictly? The number of a benchmark comes from the counts."""
    text = _bare(reply)
    names, wanted = item.extra["instruction_id_list"], item.extra["kwargs"]
    strict = [
        bool(text.strip()) and kept(name, text, _given(w, item)) for name, w in zip(names, wanted, strict=True)
    ]
    loose = [any(kept(name, form, _given(w, item)) for form in loosened(text))
             for name, w in zip(names, wanted, strict=True)]  # fmt: skip
    counts = {
        "prompts": 1, "strict_prompts": int(all(strict)), "loose_prompts": int(all(loose)),
        "instructions": len(names), "strict_instructions": sum(strict), "loose_instructions": sum(loose),
    }  # fmt: skip
    return Score(float(all(strict)), text.strip() or None, f"{sum(strict)} of {len(names)} kept", counts)


def total(counts: Mapping[str, int]) -> float:
    """The mean of the four rates."""
    each = [counts.get(f"{how}_{what}", 0) / max(1, counts.get(what, 0))
            for how in ("strict", "loose") for what in ("prompts", "instructions")]  # fmt: skip
    return sum(each) / len(each)


def kept(name: str, reply: str, wanted: Wanted) -> bool:
    """Does a reply keep one instruction? Raises EvaluationError for one that nobody knows."""
    if name not in CHECKS:
        raise EvaluationError(f"instruction {name!r}: known are {', '.join(CHECKS)}")
    try:
        return bool(CHECKS[name](reply, wanted))
    except KeyError as error:
        raise EvaluationError(f"instruction {name!r} has no {error.args[0]} in kwargs") from None
    except re.error as error:
        raise EvaluationError(f"instruction {name!r}: {error.pattern!r} is no pattern ({error.msg})") from None


def loosened(reply: str) -> Iterator[str]:
    """The reply, and without its first line, its last, both; each with and without asterisks."""
    lines = reply.split("\n")
    for text in (reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))):
        for form in (text, text.replace("*", "")):
            if form.strip():
                yield form


def _given(wanted: Wanted, item: Item) -> Wanted:
    """Without the arguments that are empty, with the prompt."""
    return {"prompt_to_repeat": item.extra.get("prompt", ""), **{k: v for k, v in wanted.items() if v}}


def _bare(reply: str) -> str:
    text = reply[3:].strip() if reply.startswith(("<1>", "<2>", "<3>")) else reply
    return text.removesuffix("<|user|>").strip() if text.endswith("<|user|>") else text


def _enough(count: int, wanted: Wanted, number: str, relation: str = "relation") -> bool:
    """Fewer than so many, or at least so many."""
    return count < wanted[number] if wanted[relation] == FEWER else count >= wanted[number]


def _sentences(reply: str) -> int:
    pieces = _SENTENCE.split(_TITLES.sub(lambda m: m.group()[:-1], reply))
    return sum(any(c.isalnum() for c in piece) for piece in pieces)


def _bullets(reply: str) -> int:
    return sum(len(re.findall(mark, reply, re.MULTILINE)) for mark in (r"^\s*\*[^\*].*$", r"^\s*-.*$"))


def _highlights(reply: str) -> int:
    """Parts between asterisks; between two of them it counts twice, as there."""
    single, double = (re.findall(mark, reply) for mark in (r"\*[^\n\*]*\*", r"\*\*[^\n\*]*\*\*"))
    return sum(bool(part.strip("*").strip()) for part in single) + sum(bool(p[2:-2].strip()) for p in double)


def _sections(reply: str, wanted: Wanted) -> int:
    return len(re.split(rf"\s?{wanted['section_spliter']}\s?\d+\s?", reply)) - 1


def _paragraphs(reply: str, wanted: Wanted) -> bool:
    """Between three asterisks; an empty one is none at the ends and a fault inside."""
    parts = re.split(r"\s?\*\*\*\s?", reply)
    inside = [part for part in parts[1:-1] if not part.strip()]
    return not inside and sum(bool(part.strip()) for part in parts) == wanted["num_paragraphs"]


def _first_word(reply: str, wanted: Wanted) -> bool:
    """So many paragraphs between empty lines, and the word one of them begins with."""
    parts = re.split(r"\n\n", reply)
    count = sum(bool(part.strip()) for part in parts)
    nth = wanted["nth_paragraph"]
    if nth > count or not parts[nth - 1].strip():
        return False
    word = re.split(r"[.,?!'\"]", parts[nth - 1].split()[0].lstrip("'").lstrip('"'))[0].lower()
    return count == wanted["num_paragraphs"] and word == wanted["first_word"].lower()


def _postscript(reply: str, wanted: Wanted) -> bool:
    marker = wanted["postscript_marker"]
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return bool(re.search(known.get(marker, rf"\s*{marker.lower()}.*$"), reply.lower(), re.MULTILINE))


def _is_json(reply: str) -> bool:
    try:
        json.loads(_FENCE.sub("", reply.strip()).strip())
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(reply: str) -> bool:
    parts = reply.split("******")
    said = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def _in_language(reply: str, language: str) -> bool:
    """A text without letters is in every language."""
    try:
        import langdetect
    except ImportError:
        raise EvaluationError('languages are told by langdetect: pip install "mlx-audio-r1[eval]"') from None
    langdetect.DetectorFactory.seed = 0  # or the same text is now one, now the other
    try:
        return bool(langdetect.detect(reply) == language)
    except langdetect.LangDetectException:
        return True


CHECKS: dict[str, Callable[[str, Wanted], bool]] = {
    "keywords:existence": lambda r, w: all(re.search(k, r, re.IGNORECASE) for k in w["keywords"]),
    "keywords:frequency": lambda r, w: _enough(len(re.findall(w["keyword"], r, re.IGNORECASE)), w, "frequency"),
    "keywords:forbidden_words": lambda r, w: (
        not any(re.search(rf"\b{word}\b", r, re.IGNORECASE) for word in w["forbidden_words"])
    ),
    "keywords:letter_frequency": lambda r, w: _enough(
        r.lower().count(w["letter"].lower()), w, "let_frequency", "let_relation"
    ),
    "language:response_language": lambda r, w: _in_language(r, w["language"]),
    "length_constraints:number_sentences": lambda r, w: _enough(_sentences(r), w, "num_sentences"),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda r, w: _enough(len(re.findall(r"\w+", r)), w, "num_words"),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda r, w: (
        len(re.findall(r"\[.*?\]", r)) >= w["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda r, w: _bullets(r) == w["num_bullets"],
    "detectable_format:constrained_response": lambda r, w: bool(
        re.search(r"My answer is (?:yes|no|maybe)\.", r)
    ),
    "detectable_format:number_highlighted_sections": lambda r, w: _highlights(r) >= w["num_highlights"],
    "detectable_format:multiple_sections": lambda r, w: _sections(r, w) >= w["num_sections"],
    "detectable_format:json_format": lambda r, w: _is_json(r),
    "detectable_format:title": lambda r, w: any(
        t.lstrip("<").rstrip(">").strip() for t in re.findall(r"<<[^\n]+>>", r)
    ),
    "combination:two_responses": lambda r, w: _two_responses(r),
    "combination:repeat_prompt": lambda r, w: (
        r.strip().lower().startswith(w["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": lambda r, w: r.strip().strip('"').lower().endswith(w["end_phrase"].strip().lower()),
    "startend:quotation": lambda r, w: len(r.strip()) > 1 and r.strip()[0] == r.strip()[-1] == '"',
    "change_case:capital_word_frequency": lambda r, w: _enough(
        sum(word.isupper() for word in _WORD.findall(r)), w, "capital_frequency", "capital_relation"
    ),
    "change_case:english_capital": lambda r, w: r.isupper() and _in_language(r, "en"),
    "change_case:english_lowercase": lambda r, w: r.islower() and _in_language(r, "en"),
    "punctuation:no_comma": lambda r, w: "," not in r,
}
FOLLOWED = RuleScorer("voicebench.ifeval", "official rule, near", rule, total)
