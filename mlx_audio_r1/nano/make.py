"""Make the embedded nano model from nothing: clips, stage A, tokenizer, stage B, checkpoint, table.

    python -m mlx_audio_r1.nano.make [--start CHECKPOINT] [--work FOLDER] [--out FOLDER]

Needs espeak-ng for the clips with speech and about three hours of two CPU cores. Everything is kept in the
work folder; a run that was stopped goes on where it was. With `--start` the encoder and the adaptor of an
older checkpoint go on: only the last rounds of stage A, then stage B with a new decoder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import tokenizers
from mlx.utils import tree_flatten

from mlx_audio_r1.config import parse_config
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.nano import table
from mlx_audio_r1.nano.clips import Clips, load_clips
from mlx_audio_r1.nano.cpu_speed import cpu_speed
from mlx_audio_r1.nano.listen import Listener, learn_to_listen
from mlx_audio_r1.nano.reason import learn_to_reason, new_model
from mlx_audio_r1.nano.vocabulary import Prompts, learn_tokenizer, save_tokenizer
from mlx_audio_r1.nano.wiring import wire
from mlx_audio_r1.tasks.acoustic.questions import HEARS
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.optim import OptimConfig
from mlx_audio_r1.weights import load_model

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Round:
    """A part of stage A; `tones` leaves out long clips and five in six of speech, music and noise."""

    optim: OptimConfig
    tones: bool = False


TRAIN_CLIPS, TEST_CLIPS = 10_000, 250  # both stages, checks of stage A
LISTEN_ROUNDS = (  # stage A: each round starts from where the one before ended; the last three favour tones
    Round(OptimConfig(steps=550)),
    Round(OptimConfig(steps=320, matrix_rate=0.012, other_rate=2e-3, warmup=15, hold=0.25)),
    Round(OptimConfig(steps=260, matrix_rate=0.015, other_rate=2e-3, warmup=10, hold=0.25), tones=True),
    Round(OptimConfig(steps=360, matrix_rate=0.012, other_rate=2e-3, warmup=15, hold=0.25), tones=True),
    Round(OptimConfig(steps=260, matrix_rate=0.012, other_rate=2e-3, warmup=10, hold=0.25), tones=True),
)
LISTEN_AGAIN = 2  # of the rounds, the last, where an older checkpoint goes on
REASON = OptimConfig(steps=3600, matrix_rate=0.016, warmup=60)
CHECK_PER_TASK = 8  # items of the small table in the log
AUDIO = {
    "n_mels": 128,
    "n_audio_ctx": 1500,
    "n_audio_state": 128,
    "n_audio_head": 4,
    "n_audio_layer": 4,
    "llm_dim": 192,
    "kernel_size": 3,
    "adapter_stride": 2,
    "adaptor_width": 256,
}
TEXT = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_attention_groups": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "max_seq_len": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}


def config_json(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """config.json in the layout of the published checkpoints, with the sentence on what it hears."""
    text = {
        "vocab_size": backend.get_vocab_size(),
        **TEXT,
        "eos_token_id": backend.token_to_id("<|EOT|>"),
        "pad_token_id": backend.token_to_id("<|endoftext|>"),
    }
    return {
        "architectures": ["StepAudio2ForCausalLM"],
        "model_type": "step_audio_2",
        "torch_dtype": "float16",
        "audio_token_id": backend.token_to_id("<audio_patch>"),
        "audio_encoder_config": AUDIO,
        "text_config": text,
        "nano": {"hears": HEARS},
    }


def make(work: Path, out: Path, start: Path | None = None) -> None:
    """The whole of it; `out` gets the checkpoint, the log and the table."""
    clips, test = load_clips(work / "clips", TRAIN_CLIPS), load_clips(work / "clips", TEST_CLIPS, held_out=True)
    backend = _tokenizer(work / "tokenizer", clips)
    config = parse_config(config_json(backend))
    rounds = LISTEN_ROUNDS[-LISTEN_AGAIN:] if start else LISTEN_ROUNDS
    with cpu_speed():
        model = new_model(config)
        wire(model)
        _listen(model, clips, test, work, rounds, start)
        prompts = Prompts(Tokenizer(backend))
        items = table.draw_items(CHECK_PER_TASK, seed=1)

        def check(step: int) -> dict[str, Any]:
            save(model, backend, out)
            return _check(model, prompts, items)

        learn_to_reason(model, clips, prompts, work / "reason", REASON, on_save=check)
    save(model, backend, out)
    _merge_logs(work, out.parent / "log.jsonl")


def _check(model: Model, prompts: Prompts, items: Sequence[table.Item]) -> dict[str, Any]:
    """The small table of the log: the mean, free questions, options, every task."""
    scores = table.scores(items, table.answer(model, prompts, items))
    options = np.array([bool(item.question.options) for item in items])
    tasks = np.array([item.question.task for item in items])
    parts = {"free": ~options, "options": options, **{t: tasks == t for t in dict.fromkeys(tasks.tolist())}}
    means = {name: round(float(scores[part].mean()), 2) for name, part in parts.items()}
    return {"mean": round(float(scores.mean()), 3), **means}


def save(model: Model, backend: tokenizers.Tokenizer, folder: Path) -> None:
    """Write the checkpoint folder, weights as float16."""
    save_tokenizer(backend, folder)
    text = json.dumps(config_json(backend), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    weights = {name: value.astype(mx.float16) for name, value in tree_flatten(model.parameters())}
    aside = folder / "aside.safetensors"
    mx.save_safetensors(str(aside), weights, metadata={"format": "mlx"})
    aside.replace(folder / "model.safetensors")


def _tokenizer(folder: Path, clips: Clips) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        save_tokenizer(learn_tokenizer(clips.truths), folder)
    return tokenizers.Tokenizer.from_file(str(path))


def _listen(
    model: Model, clips: Clips, test: Clips, work: Path, rounds: Sequence[Round], start: Path | None
) -> None:
    """Stage A, then its encoder and adaptor into the model."""
    listener = _ears(start) if start else None
    audio = model.config.audio
    for part in rounds:
        seed = LISTEN_ROUNDS.index(part)
        heard, folder = _tones(clips) if part.tones else clips, work / f"listen-{seed + 1}"
        listener = learn_to_listen(audio, heard, test, folder, part.optim, listener, seed)
    if listener is not None:
        model.audio_encoder.update(listener.audio_encoder.parameters())
        model.audio_adaptor.update(listener.audio_adaptor.parameters())


def _ears(folder: Path) -> Listener:
    """Encoder and adaptor of a checkpoint, with fresh heads."""
    model = load_model(folder)
    model.set_dtype(mx.float32)
    listener = Listener(model.config.audio)
    listener.audio_encoder.update(model.audio_encoder.parameters())
    listener.audio_adaptor.update(model.audio_adaptor.parameters())
    return listener


def _tones(clips: Clips) -> Clips:
    kinds = {"single", "pair", "repeat", "sequence"}
    fitting = [t.kind in kinds and t.seconds <= 6 for t in clips.truths]
    return clips.chosen([i for i, fits in enumerate(fitting) if fits or i % 6 == 0])


def _merge_logs(work: Path, path: Path) -> None:
    """One log of all stages; those that were not run again keep their rows."""
    kept = _rows(path)
    rows = []
    for stage in (*(f"listen-{n}" for n in range(1, len(LISTEN_ROUNDS) + 1)), "reason"):
        new = [{"stage": stage, **row} for row in _rows(work / stage / "metrics.jsonl")]
        rows += new or [row for row in kept if row["stage"] == stage]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=Path, help="go on from this checkpoint folder")
    parser.add_argument("--work", type=Path, default=Path("scratch/nano"), help="clips, states and logs")
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint", help="the checkpoint folder")
    given = parser.parse_args()
    make(given.work, given.out, given.start)


if __name__ == "__main__":
    main()
