"""Benchmarks by name, imported when they are asked for: each module has a BENCH, or several by other names."""

from __future__ import annotations

from importlib import import_module

from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.bench import Bench

BENCHES: dict[str, str] = {  # name -> module below this package, with :attribute where it has several
    "mmau": "mmau", "mmsu": "mmsu", "mmar": "mmar", "big-bench-audio": "bba", "spoken-mqa": "spoken_mqa",
    "wildspeech": "wildspeech", "step-caption": "step_caption", "step-spqa": "step_spqa",
    "step-dialogue": "step_dialogue", "audio-mc": "audio_mc",
    "mmau-pro": "mmau_pro:CHOICES", "mmau-pro-open": "mmau_pro:OPEN",
    "mmau-pro-instructions": "mmau_pro:INSTRUCTIONS",
   
    "air-bench-foundation": "air_bench:FOUNDATION", "air-bench-chat": "air_bench:CHAT",
    "voicebench-open": "voicebench:OPEN", "voicebench-qa": "voicebench:QA", "voicebench-mcq": "voicebench:MCQ",
    "voicebench-bbh": "voicebench:BBH", "voicebench-ifeval": "voicebench:IFEVAL",
    "voicebench-harm": "voicebench:HARM", "uro-bench": "uro_bench:ANSWERS", "uro-repeat": "uro_bench:REPEAT",
    "asr": "asr:ENGLISH", "asr-zh": "asr:CHINESE", "asr-mixed": "asr:MIXED",
    "acoustic-world": "acoustic_world", "self-cognition": "self_cognition", "generic": "generic",
}  # fmt: skip


def bench(name: str) -> Bench:
    """Raises EvaluationError for a name nobody knows."""
    if name not in BENCHES:
        raise EvaluationError(f"no benchmark {name!r}; there are {', '.join(BENCHES)}")
    module, _, attribute = BENCHES[name].partition(":")
    found: Bench = getattr(import_module(f"{__name__}.{module}"), attribute or "BENCH")
    return found
