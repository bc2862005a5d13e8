"""Scorers by name, found when they are asked for: `<name>` -> `module:attribute` below this package."""

from __future__ import annotations

from importlib import import_module

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.scoring import Scorer

SCORERS: dict[str, str] = {
    "mmau.official": "string_match:MMAU",
    "mmau.official_plain": "string_match:MMAU_PLAIN",
    "mmar.official": "string_match:MMAR",
    "mmar.official_plain": "string_match:MMAR_PLAIN",
    "mmsu.official": "letters:MMSU",
    "mmsu.official_all": "letters:MMSU_ALL",
    "airbench.official": "letters:AIR_BENCH",
    "uro.repeat": "uro:REPEAT",
    "voicebench.mcq": "voicebench:MCQ",
    "voicebench.bbh": "voicebench:BBH",
    "voicebench.ifeval": "ifeval:FOLLOWED",
    "voicebench.harm": "voicebench:HARM",
    "bba.rule": "big_bench:RULE",
    "spokenmqa.official": "spoken_mqa:OFFICIAL",
    "du.rule": "dialogue:DU",
    "spqa.exact": "dialogue:SPQA",
    "asr.wer": "asr:WER",
    "asr.cer": "asr:CER",
    "asr.mer": "asr:MER",
    "mcq.resolve": "resolve:CHOICE",
    "num.resolve": "resolve:NUMBER",
    "label.resolve": "resolve:LABEL",
    "world": "resolve:WORLD",
    "self.denial": "hearing:DENIAL",
    "bba.judge": "judged_verdicts:BBA",
    "spqa.judge": "judged_verdicts:SPQA",
    "wildspeech.judge": "judged_wildspeech:MARK",
    "caption.judge": "judged_caption:JUDGE",
    "caption.recomputed": "judged_caption:RECOMPUTED",
    "du.judge": "judged_dialogue:JUDGE",
    "audiomc.judge": "judged_audiomc:APR",
    "audiomc.ars": "judged_audiomc:ARS",
    "mmar.rubrics": "judged_mmar:RUBRICS",
    "mmaupro.instructions": "mmaupro_instructions:FOLLOWED",
    "mmaupro.open": "judged_mmaupro:JUDGE",
    "mmaupro.open_strict": "judged_mmaupro:STRICT",
    "airbench.chat": "judged_airbench:CHAT",
    "voicebench.open": "judged_voicebench:OPEN_JUDGE",
    "voicebench.qa": "judged_voicebench:QA_JUDGE",
    "uro.judge": "judged_uro:JUDGE",
}


def scorer(name: str) -> Scorer:
    """Raises EvaluationError for a name nobody knows."""
    if name not in SCORERS:
        raise EvaluationError(f"no scorer {name!r}; there are {', '.join(sorted(SCORERS))}")
    module, _, attribute = SCORERS[name].partition(":")
    found: Scorer = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found
