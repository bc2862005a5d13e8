#!/usr/bin/env python
"""Golden fixtures for a Step-Audio-R1 port, from an independent PyTorch reference.

Written from a specification of the published model.  It contains no upstream model code: the audio encoder and the
adapter are expressed as functions over a flat weight dictionary whose keys are the
checkpoint's own tensor names, the mel filter bank is computed here, and the decoder
is transformers' Qwen2ForCausalLM.

    python make_golden.py --out DIR [--seed 49]

makes, under DIR:

    tiny-fp32/ tiny-bf16/   tiny random checkpoints in the official naming, 3 shards each
    audio.safetensors       int16 PCM (16 kHz, mono) of every case: float = int16 / 32768
    frontend.safetensors    mel filter bank, Hann window, log-mels
    fp32.safetensors        encoder, adapter, embeddings, logits, greedy tokens (fp32)
    bf16.safetensors        the same from bf16 arithmetic on the bf16 checkpoint
    meta.json               token ids, cases, lengths, margins, the length table

Needs torch, numpy, safetensors, tokenizers, transformers.  CPU only; about a minute.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import Qwen2Config, Qwen2ForCausalLM

SAMPLE_RATE = 16_000
N_FFT = 400
HOP = 160
TAIL_PAD = 479  # 3 * HOP - 1 zero samples, appended to every chunk

# --------------------------------------------------------------------------------------
# Front end
# --------------------------------------------------------------------------------------


def slaney_hz_to_mel(hz: np.ndarray) -> np.ndarray:
    hz = np.asarray(hz, dtype=np.float64)
    linear = hz / (200.0 / 3.0)
    log = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) / (np.log(6.4) / 27.0)
    return np.where(hz >= 1000.0, log, linear)


def slaney_mel_to_hz(mel: np.ndarray) -> np.ndarray:
    mel = np.asarray(mel, dtype=np.float64)
    linear = mel * (200.0 / 3.0)
    log = 1000.0 * np.exp((np.log(6.4) / 27.0) * (mel - 15.0))
    return np.where(mel >= 15.0, log, linear)


def mel_filter_bank(n_mels: int = 128) -> torch.Tensor:
    """Slaney scale, Slaney (area) normalisation, 0..8000 Hz; shape (n_mels, 201)."""
    bins = np.linspace(0.0, SAMPLE_RATE / 2, 1 + N_FFT // 2)
    edges = slaney_mel_to_hz(
        np.linspace(slaney_hz_to_mel(0.0), slaney_hz_to_mel(SAMPLE_RATE / 2), n_mels + 2)
    )
    width = np.diff(edges)
    rising = (bins[None, :] - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins[None, :]) / width[1:, None]
    bank = np.clip(np.minimum(rising, falling), 0.0, None).astype(np.float32)
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(bank)


def log_mel(wave: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """(samples,) float32 -> (n_mels, T) float32, T = ceil(samples / 160) + 2."""
    padded = F.pad(wave, (0, TAIL_PAD))
    stft = torch.stft(
        padded,
        n_fft=N_FFT,
        hop_length=HOP,
        win_length=N_FFT,
        window=torch.hann_window(N_FFT, periodic=True),
        center=True,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=True,
    )
    power = stft[:, :-1].abs().square()
    logs = (bank @ power).clamp(min=1e-10).log10()
    logs = torch.maximum(logs, logs.max() - 8.0)  # the maximum of THIS chunk
    return (logs + 4.0) / 4.0


def log_mel_float64(wave: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """The same in float64 with explicit framing: a check on log_mel, and its noise floor."""
    x = F.pad(wave.double(), (0, TAIL_PAD))
    x = F.pad(x[None, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[0, 0]
    frames = x.unfold(0, N_FFT, HOP)[:-1]
    n = torch.arange(N_FFT, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / N_FFT)
    power = torch.fft.rfft(frames * window, dim=-1).abs().square()
    logs = (bank.double() @ power.T).clamp(min=1e-10).log10()
    logs = torch.maximum(logs, logs.max() - 8.0)
    return ((logs + 4.0) / 4.0).float()


def frames_of(samples: int) -> int:
    """Mel frames T of a chunk."""
    return (samples + TAIL_PAD) // HOP


def tokens_of(frames: int, convention: str) -> int:
    """<audio_patch> count.  'vllm': the length is T.  'hf': the length is T - 2."""
    length = frames if convention == "vllm" else frames - 2
    encoder = (length + 1) // 2 // 2
    return (encoder + 2 - 3) // 2 + 1


# --------------------------------------------------------------------------------------
# Audio encoder and adapter, over a flat weight dictionary
# --------------------------------------------------------------------------------------


def key_mask(batch_frames: int, lengths: torch.Tensor) -> torch.Tensor:
    """(B, L) bool, True where frame j after conv2 may be attended to.

    Frame j is represented by mel position 2 j + 1 when the (padded) number of mel frames
    is even and by 2 j when it is odd; it is valid when that position is below the length.
    """
    out = (batch_frames + 1) // 2
    position = 2 * torch.arange(out) + (1 if batch_frames % 2 == 0 else 0)
    return position[None, :] < lengths[:, None]


def encode(
    w: dict[str, torch.Tensor],
    mels: torch.Tensor,
    lengths: torch.Tensor,
    heads: int,
    layers: int,
    trace: dict[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """mels (B, n_mels, T), lengths (B,) -> (B, ((T + 1) // 2) // 2, C), (B,)."""
    x = F.gelu(F.conv1d(mels, w["encoder.conv1.weight"], w["encoder.conv1.bias"], padding=1))
    x = F.gelu(
        F.conv1d(x, w["encoder.conv2.weight"], w["encoder.conv2.bias"], stride=2, padding=1)
    )
    x = x.transpose(1, 2)
    batch, seq, width = x.shape
    x = x + w["encoder.positional_embedding.weight"][:seq]
    if trace is not None:
        trace["stem"] = x
    bias = torch.zeros(batch, 1, 1, seq, dtype=x.dtype)
    bias = bias.masked_fill(~key_mask(mels.shape[-1], lengths)[:, None, None], -1.0e10)

    def norm(h: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(h, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def split(h: torch.Tensor) -> torch.Tensor:
        return h.view(batch, seq, heads, width // heads).transpose(1, 2)

    for i in range(layers):
        at = f"encoder.blocks.{i}"
        h = norm(x, f"{at}.attn_ln")
        q = split(F.linear(h, w[f"{at}.attn.query.weight"], w[f"{at}.attn.query.bias"]))
        k = split(F.linear(h, w[f"{at}.attn.key.weight"]))  # no bias on the keys
        v = split(F.linear(h, w[f"{at}.attn.value.weight"], w[f"{at}.attn.value.bias"]))
        score = (q @ k.transpose(-1, -2)) / math.sqrt(width // heads) + bias
        h = (score.float().softmax(-1).to(x.dtype) @ v).transpose(1, 2).reshape(x.shape)
        x = x + F.linear(h, w[f"{at}.attn.out.weight"], w[f"{at}.attn.out.bias"])
        h = norm(x, f"{at}.mlp_ln")
        h = F.gelu(F.linear(h, w[f"{at}.mlp.0.weight"], w[f"{at}.mlp.0.bias"]))
        x = x + F.linear(h, w[f"{at}.mlp.2.weight"], w[f"{at}.mlp.2.bias"])
        if trace is not None:
            trace[f"block{i}"] = x

    even = seq - seq % 2  # the average pool drops an odd last frame
    x = x[:, :even].reshape(batch, even // 2, 2, width).mean(2)
    return norm(x, "encoder.after_norm"), (lengths + 1) // 2 // 2


def adapt(
    w: dict[str, torch.Tensor], x: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    h = F.conv1d(
        x.transpose(1, 2), w["adapter.conv.weight"], w["adapter.conv.bias"], stride=2, padding=1
    )
    h = F.gelu(h).transpose(1, 2)
    h = F.relu(F.linear(h, w["adapter.linear1.weight"], w["adapter.linear1.bias"]))
    h = F.linear(h, w["adapter.linear2.weight"], w["adapter.linear2.bias"])
    return h, (lengths - 1) // 2 + 1


def audio_features(
    w: dict[str, torch.Tensor],
    cfg: dict,
    mels: list[torch.Tensor],
    convention: str,
    trace: dict[str, torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One encoder call on a zero-padded batch; returns per-clip encoder and adapter rows."""
    dtype = w["encoder.conv1.weight"].dtype
    longest = max(m.shape[1] for m in mels)
    batch = torch.stack([F.pad(m, (0, longest - m.shape[1])) for m in mels]).to(dtype)
    cut = 0 if convention == "vllm" else 2
    lengths = torch.tensor([m.shape[1] - cut for m in mels])
    audio = cfg["audio_encoder_config"]
    enc, enc_len = encode(
        w, batch, lengths, audio["n_audio_head"], audio["n_audio_layer"], trace
    )
    out, out_len = adapt(w, enc, enc_len)
    if trace is not None:
        trace["encoder_full"] = enc
        trace["adapter_full"] = out
    return (
        [enc[i, : enc_len[i]] for i in range(len(mels))],
        [out[i, : out_len[i]] for i in range(len(mels))],
    )


# --------------------------------------------------------------------------------------
# Tiny checkpoint
# --------------------------------------------------------------------------------------

# The official ids minus 151665 plus 400, so that <|EOT|> = 400 and <audio_0> = 431.
# <|BOT|> is not known officially; 401 is this fixture's choice.
SPECIAL = {
    "<|EOT|>": 400,
    "<|BOT|>": 401,
    "<audio_start>": 423,
    "<audio_end>": 424,
    "<audio_patch>": 425,
    "<tts_start>": 428,
    "<tts_end>": 429,
    "<tts_pad>": 430,
    **{f"<audio_{i}>": 431 + i for i in range(81)},
}
VOCAB = 512
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny_config(dtype: str) -> dict:
    return {
        "architectures": ["StepAudio2ForCausalLM"],
        "model_type": "step_audio_2",
        "torch_dtype": dtype,
        "use_sliding_window": False,
        "sliding_window": 2048,
        "max_window_layers": None,
        # Not an official key: the official id, 151690, cannot fit a tiny vocabulary.
        "audio_token_id": SPECIAL["<audio_patch>"],
        "audio_encoder_config": {
            "n_mels": 128,
            "n_audio_ctx": 1500,
            "n_audio_state": 64,
            "n_audio_head": 4,
            "n_audio_layer": 2,
            "n_codebook_size": 4096,
            "llm_dim": 128,
            "kernel_size": 3,
            "adapter_stride": 2,
        },
        "text_config": {
            "vocab_size": VOCAB,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_attention_groups": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 65536,
            "max_seq_len": 65536,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "rope_scaling": None,
            "eos_token_id": SPECIAL["<|EOT|>"],
            "pad_token_id": 0,
            "torch_dtype": dtype,
        },
    }


def tiny_weights(cfg: dict, seed: int) -> dict[str, torch.Tensor]:
    """Random weights on the bf16 grid, so both checkpoints hold the same numbers.

    Every bias, norm and position row is non-trivial, so a dropped or swapped tensor shows.
    """
    gen = torch.Generator().manual_seed(seed)

    def rand(*shape: int, std: float) -> torch.Tensor:
        return torch.randn(*shape, generator=gen) * std

    def linear(name: str, out: int, inn: int, gain: float = 1.0, bias: bool = True) -> None:
        w[f"{name}.weight"] = rand(out, inn, std=gain / math.sqrt(inn))
        if bias:
            w[f"{name}.bias"] = rand(out, std=0.1)

    def layer_norm(name: str, size: int) -> None:
        w[f"{name}.weight"] = 1 + rand(size, std=0.2)
        w[f"{name}.bias"] = rand(size, std=0.1)

    w: dict[str, torch.Tensor] = {}
    a, t = cfg["audio_encoder_config"], cfg["text_config"]
    c, n_mels, k = a["n_audio_state"], a["n_mels"], a["kernel_size"]
    w["encoder.conv1.weight"] = rand(c, n_mels, 3, std=2 / math.sqrt(3 * n_mels))
    w["encoder.conv1.bias"] = rand(c, std=0.1)
    w["encoder.conv2.weight"] = rand(c, c, 3, std=1.5 / math.sqrt(3 * c))
    w["encoder.conv2.bias"] = rand(c, std=0.1)
    w["encoder.positional_embedding.weight"] = rand(a["n_audio_ctx"], c, std=0.3)
    for i in range(a["n_audio_layer"]):
        at = f"encoder.blocks.{i}"
        linear(f"{at}.attn.query", c, c, 1.5)
        linear(f"{at}.attn.key", c, c, 1.5, bias=False)
        linear(f"{at}.attn.value", c, c)
        linear(f"{at}.attn.out", c, c)
        layer_norm(f"{at}.attn_ln", c)
        linear(f"{at}.mlp.0", 4 * c, c)
        linear(f"{at}.mlp.2", c, 4 * c)
        layer_norm(f"{at}.mlp_ln", c)
    layer_norm("encoder.after_norm", c)
    h = t["hidden_size"]
    w["adapter.conv.weight"] = rand(c, c, k, std=1.5 / math.sqrt(k * c))
    w["adapter.conv.bias"] = rand(c, std=0.1)
    linear("adapter.linear1", 2048, c)
    linear("adapter.linear2", h, 2048)

    heads, kv, inter = t["num_attention_heads"], t["num_key_value_heads"], t["intermediate_size"]
    head = h // heads
    w["model.embed_tokens.weight"] = rand(t["vocab_size"], h, std=0.5)
    for i in range(t["num_hidden_layers"]):
        at = f"model.layers.{i}"
        w[f"{at}.input_layernorm.weight"] = 1 + rand(h, std=0.2)
        linear(f"{at}.self_attn.q_proj", heads * head, h, 1.5)
        linear(f"{at}.self_attn.k_proj", kv * head, h, 1.5)
        linear(f"{at}.self_attn.v_proj", kv * head, h)
        linear(f"{at}.self_attn.o_proj", h, heads * head, bias=False)
        w[f"{at}.post_attention_layernorm.weight"] = 1 + rand(h, std=0.2)
        linear(f"{at}.mlp.gate_proj", inter, h, bias=False)
        linear(f"{at}.mlp.up_proj", inter, h, bias=False)
        linear(f"{at}.mlp.down_proj", h, inter, bias=False)
    w["model.norm.weight"] = 1 + rand(h, std=0.2)
    linear("lm_head", t["vocab_size"], h, 3.0, bias=False)
    # uneven rows: wider gaps between the best two logits, so greedy tokens are robust
    w["lm_head.weight"] *= rand(t["vocab_size"], 1, std=0.5).exp()
    return {name: tensor.bfloat16().float() for name, tensor in w.items()}


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-ins for the 256 byte values."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    spare = (b for b in range(256) if b not in table)
    return {**table, **{b: chr(256 + i) for i, b in enumerate(spare)}}


def tiny_tokenizer() -> Tokenizer:
    """Byte-level tokenizer without merges: one id a byte (the id is the byte's value)."""
    vocab = {char: byte for byte, char in byte_alphabet().items()}
    named = {i: s for s, i in SPECIAL.items()}
    for i in range(256, VOCAB):
        vocab[named.get(i, f"<unused_{i}>")] = i
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[], fuse_unk=False, byte_fallback=False))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens(
        [AddedToken(s, normalized=False, special=True) for s in sorted(SPECIAL, key=SPECIAL.get)]
    )
    for s, i in SPECIAL.items():
        assert tok.token_to_id(s) == i, (s, i, tok.token_to_id(s))
    return tok


def write_checkpoint(
    where: Path, cfg: dict, weights: dict[str, torch.Tensor], tok: Tokenizer
) -> None:
    where.mkdir(parents=True, exist_ok=True)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[cfg["torch_dtype"]]

    def shard_of(name: str) -> int:
        if name.startswith(("encoder.", "adapter.", "model.embed_tokens")):
            return 1
        # layer 1 is split between shards 2 and 3, as large checkpoints do
        if name.startswith("model.layers.0.") or name.startswith("model.layers.1.self_attn"):
            return 2
        return 3

    index = {}
    total = 0
    for s in (1, 2, 3):
        part = {
            n: t.to(dtype).contiguous() for n, t in weights.items() if shard_of(n) == s
        }
        file = f"model-{s:05d}-of-00003.safetensors"
        save_file(part, str(where / file), metadata={"format": "pt"})
        index.update({n: file for n in part})
        total += sum(t.numel() * t.element_size() for t in part.values())

    def dump(name: str, value: object) -> None:
        (where / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    dump(
        "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))},
    )
    dump("config.json", cfg)
    dump("generation_config.json", {"eos_token_id": [SPECIAL["<|EOT|>"]], "pad_token_id": 0})
    dump("added_tokens.json", SPECIAL)
    dump(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|EOT|>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 65536,
        },
    )
    tok.save(str(where / "tokenizer.json"))


def tiny_decoder(cfg: dict, weights: dict[str, torch.Tensor], dtype: torch.dtype):
    t = {
        k: v
        for k, v in cfg["text_config"].items()
        if k not in ("num_attention_groups", "max_seq_len", "torch_dtype", "rope_theta",
                     "rope_scaling")
    }
    conf = Qwen2Config(
        **t,
        hidden_act="silu",
        tie_word_embeddings=False,
        use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": cfg["text_config"]["rope_theta"]},
    )
    conf._attn_implementation = "eager"
    model = Qwen2ForCausalLM(conf).eval()
    state = {
        n: x.clone() for n, x in weights.items() if n.startswith(("model.", "lm_head."))
    }
    model.load_state_dict(state, strict=True)
    return model.to(dtype)


# --------------------------------------------------------------------------------------
# Prompts and decoding
# --------------------------------------------------------------------------------------


def prompt_text(system: str | None, parts: list, generation: bool = True) -> str:
    """The published template over vLLM's string content: parts are text or a patch count.

    Consecutive parts are joined with a newline, except that the newline that would follow
    an audio part is dropped.
    """
    body = "\n".join(p if isinstance(p, str) else "<audio_patch>" for p in parts)
    body = body.replace("<audio_patch>\n", "<audio_patch>")
    counts = iter(p for p in parts if not isinstance(p, str))
    pieces = body.split("<audio_patch>")
    out = pieces[0]
    for piece in pieces[1:]:
        out += "<audio_start>" + "<audio_patch>" * next(counts) + "<audio_end>" + piece
    head = f"<|BOT|>system\n{system}<|EOT|>" if system is not None else ""
    tail = "<|BOT|>assistant\n<think>\n" if generation else ""
    return f"{head}<|BOT|>human\n{out}<|EOT|>{tail}"


def splice(
    embed: torch.Tensor, ids: torch.Tensor, features: list[torch.Tensor]
) -> torch.Tensor:
    """Rows of the features replace, in order, the embeddings of the <audio_patch> ids."""
    x = embed[ids].clone()
    at = (ids == SPECIAL["<audio_patch>"]).nonzero()[:, 0]
    if features:
        rows = torch.cat(features).to(x.dtype)
        assert len(at) == len(rows), (len(at), len(rows))
        x[at] = rows
    else:
        assert len(at) == 0
    return x


@torch.no_grad()
def decode(model, embeds: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    out = model(inputs_embeds=embeds[None], use_cache=True)
    logits = out.logits[0].float()
    tokens, margins, step_logits = [], [], []
    last = logits[-1]
    for _ in range(steps):
        top = last.topk(2).values
        tokens.append(int(last.argmax()))
        margins.append(float(top[0] - top[1]))
        step_logits.append(last)
        out = model(
            input_ids=torch.tensor([[tokens[-1]]]),
            past_key_values=out.past_key_values,
            use_cache=True,
        )
        last = out.logits[0, -1].float()
    return {
        "logits": logits,
        "greedy": torch.tensor(tokens, dtype=torch.int32),
        "greedy_margin": torch.tensor(margins),
        "greedy_logits": torch.stack(step_logits),
    }


# --------------------------------------------------------------------------------------
# Test signals
# --------------------------------------------------------------------------------------


def signal(samples: int, seed: int, gain: float = 1.0) -> torch.Tensor:
    """440 Hz + noise with a slow envelope, 100 ms of digital silence and a quiet part."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / SAMPLE_RATE
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * 0.37 * t)
    x = 0.3 * np.sin(2 * np.pi * 440.0 * t) * envelope
    x = x + 0.02 * envelope * rng.standard_normal(samples)
    x[(t > samples / SAMPLE_RATE / 3) & (t < samples / SAMPLE_RATE / 3 + 0.1)] = 0.0
    x[t > 0.8 * samples / SAMPLE_RATE] *= 0.01
    x = x * gain
    return torch.from_numpy(np.round(np.clip(x, -1, 1) * 32767).astype(np.int16))


def to_float(pcm: torch.Tensor) -> torch.Tensor:
    return pcm.float() / 32768.0


# name -> samples
CLIPS = {
    "s0_50": 8_000,  # T = 52, T % 8 = 4: the two conventions differ
    "s3_21": 51_360,  # T = 323, odd, T % 8 = 3: the two conventions differ
    "s25": 400_000,  # T = 2502
    "s29_9": 478_400,  # T = 2992; the client would cut it at 25 s, the encoder takes it
    "quiet": 21_920,  # 1.37 s at -50 dB: a maximum over more than this chunk shows here
}
GAIN = {"quiet": 0.003}
WITHOUT_PROMPT = {"quiet"}
# groups of clips encoded in one padded batch (the chunks of one recording, in order)
BATCHES = {
    "batch_25_3": ["s25", "s3_21"],  # longest T even, short T odd: its last key is masked
    "batch_3_0": ["s3_21", "s0_50"],  # longest T odd
    "batch_3_q": ["s3_21", "quiet"],  # loud, then quiet: the maximum is per chunk
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=49)
    parser.add_argument("--steps", type=int, default=32)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)

    tok = tiny_tokenizer()
    weights = tiny_weights(tiny_config("float32"), args.seed)
    for name in ("float32", "bfloat16"):
        write_checkpoint(
            out / ("tiny-fp32" if name == "float32" else "tiny-bf16"),
            tiny_config(name), weights, tok,
        )

    pcm = {name: signal(n, 100 + i, GAIN.get(name, 1.0)) for i, (name, n) in enumerate(CLIPS.items())}
    save_file(pcm, str(out / "audio.safetensors"))

    bank = mel_filter_bank(128)
    mels = {name: log_mel(to_float(x), bank) for name, x in pcm.items()}
    noise = {
        name: float((mels[name] - log_mel_float64(to_float(pcm[name]), bank)).abs().max())
        for name in mels
    }
    silent = log_mel(torch.zeros(SAMPLE_RATE), bank)
    front = {
        "mel_filters": bank,
        "hann": torch.hann_window(N_FFT),
        **{f"{name}.log_mel": m.T.contiguous() for name, m in mels.items()},
        "silence_1s.log_mel": silent.T.contiguous(),
    }
    save_file(front, str(out / "frontend.safetensors"))

    meta: dict = {
        "note": "log_mel and all sequences are time-major: (T, n_mels), (frames, width). "
        "Greedy decoding ignores every stop id, and a generated id 425 (<audio_patch>) is "
        "embedded as an ordinary token.",
        "tolerances": {
            "log_mel": 1e-4, "adapter_fp32": 5e-5, "logits_fp32": 5e-4,
            "relative_l2_bf16": 3e-2,
            "greedy_fp32": "exact; bf16 greedy tokens are not comparable across frameworks",
        },
        "special_ids": {k: v for k, v in SPECIAL.items() if not k.startswith("<audio_") or
                        k in ("<audio_start>", "<audio_end>", "<audio_patch>", "<audio_0>")},
        "official_ids": {"<|EOT|>": 151665, "<audio_start>": 151688, "<audio_patch>": 151690,
                         "<tts_start>": 151693, "<tts_end>": 151694, "<audio_0>": 151696},
        "clips": {},
        "batches": {},
        "prompts": {},
        "log_mel_fp32_vs_fp64_max_abs": noise,
        "silence_value": float(silent[0, 0]),
    }
    for name, n in CLIPS.items():
        frames = frames_of(n)
        assert mels[name].shape == (128, frames)
        meta["clips"][name] = {
            "samples": n,
            "mel_frames": frames,
            "conv_frames": (frames + 1) // 2,
            "pooled_frames": (frames + 1) // 2 // 2,
            "encoder_len": {"vllm": (frames + 1) // 2 // 2, "hf": (frames - 1) // 2 // 2},
            "tokens": {c: tokens_of(frames, c) for c in ("vllm", "hf")},
        }
        assert tokens_of(frames, "vllm") == -(-n // 1280)
        assert tokens_of(frames, "hf") == (-(-n // 160) + 5) // 8

    table = []
    for second in [*range(1, 30), 29.98, 30]:
        n = round(second * SAMPLE_RATE)
        t = frames_of(n)
        table.append(
            {"seconds": second, "samples": n, "mel": t, "conv": (t + 1) // 2,
             "pooled": (t + 1) // 4, "vllm": tokens_of(t, "vllm"), "hf": tokens_of(t, "hf"),
             "fits": (t + 1) // 2 <= 1500}
        )
    meta["length_table"] = table

    cfg = tiny_config("float32")
    ask = "What do you hear?\nA. tone\nB. noise\n"
    system = "你是一个语音助手。"

    def run(dtype: torch.dtype, clips: list[str], groups: list[str], full: bool) -> dict:
        w = {n: x.to(dtype) for n, x in weights.items()}
        model = tiny_decoder(cfg, weights, dtype)
        embed = model.model.embed_tokens.weight.data
        tensors: dict[str, torch.Tensor] = {}
        tag = "fp32" if dtype == torch.float32 else "bf16"

        def prompt(name: str, text: str, features: list[torch.Tensor]) -> None:
            ids = torch.tensor(tok.encode(text, add_special_tokens=False).ids)
            embeds = splice(embed, ids, features)
            got = decode(model, embeds, args.steps)
            tensors[f"{name}.ids"] = ids.int()
            tensors[f"{name}.embeds"] = embeds
            for key, value in got.items():
                tensors[f"{name}.{key}"] = value
            entry = meta["prompts"].setdefault(name, {"text_patches_collapsed": ""})
            short = text
            while "<audio_patch><audio_patch>" in short:
                short = short.replace("<audio_patch><audio_patch>", "<audio_patch>")
            entry["text_patches_collapsed"] = short
            entry["tokens"] = len(ids)
            entry[tag] = {
                "greedy": got["greedy"].tolist(),
                "smallest_margin": float(got["greedy_margin"].min()),
            }

        for conv in ("vllm", "hf") if full else ("vllm",):
            for name in clips:
                trace: dict[str, torch.Tensor] = {}
                enc, feats = audio_features(w, cfg, [mels[name]], conv, trace)
                assert len(feats[0]) == meta["clips"][name]["tokens"][conv]
                tensors[f"{name}.{conv}.encoder"] = enc[0]
                tensors[f"{name}.{conv}.adapter"] = feats[0]
                if full and conv == "vllm" and CLIPS[name] < 60_000:
                    for key, value in trace.items():
                        tensors[f"{name}.{conv}.{key}"] = value[0]
                if name in WITHOUT_PROMPT or (conv == "hf" and CLIPS[name] > 60_000):
                    continue
                text = prompt_text(None, [ask, len(feats[0])])
                prompt(f"{name}.{conv}.prompt", text, feats)
            for group in groups:
                enc, feats = audio_features(
                    w, cfg, [mels[n] for n in BATCHES[group]], conv, None
                )
                alone = [audio_features(w, cfg, [mels[n]], conv)[1][0] for n in BATCHES[group]]
                for i, name in enumerate(BATCHES[group]):
                    tensors[f"{group}.{conv}.encoder.{i}"] = enc[i]
                    tensors[f"{group}.{conv}.adapter.{i}"] = feats[i]
                meta["batches"].setdefault(group, {"clips": BATCHES[group]})[f"{conv}.{tag}"] = [
                    {
                        "rows_differing_from_alone": int(
                            ((a - b).abs().amax(-1) > 1e-4).sum()
                        ),
                        "max_abs_difference_from_alone": float((a - b).abs().max()),
                        "adapter_rms": float(a.float().square().mean().sqrt()),
                    }
                    for a, b in zip(feats, alone)
                ]
                if conv == "vllm" and group == "batch_25_3":
                    text = prompt_text(system, [*(len(f) for f in feats), "Transcribe."])
                    prompt(f"{group}.{conv}.prompt", text, feats)
        if full:
            prompt("text_only", prompt_text("You are helpful.", ["1+1=?"]), [])
        return tensors

    fp32 = run(torch.float32, list(CLIPS), list(BATCHES), True)
    save_file({n: x.clone().contiguous() for n, x in fp32.items()}, str(out / "fp32.safetensors"))
    bf16 = run(torch.bfloat16, ["s0_50", "s3_21"], ["batch_25_3"], False)
    keep = ("encoder", "adapter", "embeds")
    bf16 = {
        n: (x.bfloat16() if any(k in n for k in keep) else x).clone().contiguous()
        for n, x in bf16.items()
    }
    save_file(bf16, str(out / "bf16.safetensors"))
    (out / "meta.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    for name, entry in meta["prompts"].items():
        print(name, entry["tokens"], {k: v["smallest_margin"] for k, v in entry.items()
                                      if isinstance(v, dict)})


if __name__ == "__main__":
    main()
