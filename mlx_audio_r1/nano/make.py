"""Make the embedded nano model from nothing: clips, stage A, tokenizer, stage B, checkpoint, table.

    python -m mlx_audio_r1.nano.make [--work FOLDER] [--out FOLDER]

Needs espeak-ng for the clips with speech and about two hours of two CPU cores. Everything is kept in the
work folder; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import tokenizers
from mlx.utils import tree_flatten

from mlx_audio_r1.config import ModelConfig, parse_config
from mlx_audio_r1.models.step_audio_r1 import Model
from mlx_audio_r1.nano import table
from mlx_audio_r1.nano.clips import Clips, load_clips
from mlx_audio_r1.nano.cpu_speed import cpu_speed
from mlx_audio_r1.nano.listen import learn_to_listen
from mlx_audio_r1.nano.reason import learn_to_reason, new_model
from mlx_audio_r1.nano.vocabulary import Prompts, learn_tokenizer, save_tokenizer
from mlx_audio_r1.tasks.acoustic.questions import HEARS
from mlx_audio_r1.tokenizer import Tokenizer
from mlx_audio_r1.train.optim import OptimConfig

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Round:
    """A part of stage A; `tones` leaves out long clips and five in six of speech, music and noise."""

    optim: OptimConfig
    tones: bool = False


TRAIN_CLIPS, REASON_CLIPS, TEST_CLIPS = 20_000, 6_000, 250  # stage A, stage B, checks
LISTEN_ROUNDS = (  # stage A: each round starts from where the one before ended; the last favours tones
    Round(OptimConfig(steps=550)),
    Round(OptimConfig(steps=320, matrix_rate=0.012, other_rate=2e-3, warmup=15, hold=0.25)),
    Round(OptimConfig(steps=260, matrix_rate=0.015, other_rate=2e-3, warmup=10, hold=0.25), tones=True),
)
REASON = OptimConfig(steps=1240)
CHECK_PER_TASK = 5  # items of the small table in the log
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


def make(work: Path, out: Path) -> None:
    """The whole of it; `out` gets the checkpoint, the log and the table."""
    clips, test = load_clips(work / "clips", TRAIN_CLIPS), load_clips(work / "clips", TEST_CLIPS, held_out=True)
    backend = _tokenizer(work / "tokenizer", clips)
    config = parse_config(config_json(backend))
    with cpu_speed():
        model = new_model(config)
        _listen(model, config, clips, test, work)
        prompts = Prompts(Tokenizer(backend))
        items = table.draw_items(CHECK_PER_TASK, seed=1)

        def check(step: int) -> dict[str, Any]:
            save(model, backend, out)
            rows = table.measure(model, prompts, items, columns=("thinking",))
            mean = round(table.mean_row(rows).thinking, 3)
            return {"mean": mean, **{r.task: round(r.thinking, 2) for r in rows}}

        learn_to_reason(model, clips.first(REASON_CLIPS), prompts, work / "reason", REASON, on_save=check)
    save(model, backend, out)
    _merge_logs(work, out.parent / "log.jsonl")


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


def _listen(model: Model, config: ModelConfig, clips: Clips, test: Clips, work: Path) -> None:
    """Stage A, then its encoder and adaptor into the model."""
    listener = None
    for number, part in enumerate(LISTEN_ROUNDS, start=1):
        heard, folder = _tones(clips) if part.tones else clips, work / f"listen-{number}"
        listener = learn_to_listen(config.audio, heard, test, folder, part.optim, listener, seed=number - 1)
    if listener is not None:
        model.audio_encoder.update(listener.audio_encoder.parameters())
        model.audio_adaptor.update(listener.audio_adaptor.parameters())


def _tones(clips: Clips) -> Clips:
    kinds = {"single", "pair", "repeat", "sequence"}
    fitting = [t.kind in kinds and t.seconds <= 6 for t in clips.truths]
    return clips.chosen([i for i, fits in enumerate(fitting) if fits or i % 6 == 0])


def _merge_logs(work: Path, path: Path) -> None:
    """One log of all stages."""
    rows = [
        json.dumps({"stage": stage, **json.loads(line)})
        for stage in (*(f"listen-{n}" for n in range(1, len(LISTEN_ROUNDS) + 1)), "reason")
        for line in (work / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("scratch/nano"), help="clips, states and logs")
    parser.add_argument("--out", type=Path, default=HERE / "checkpoint", help="the checkpoint folder")
    given = parser.parse_args()
    make(given.work, given.out)


if __name__ == "__main__":
    main()
