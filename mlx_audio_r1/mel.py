"""Waveform -> log-mel frames, as the official server computes them.

The surprise: nothing is padded to 30 seconds. A chunk gets 479 zeros, its last STFT frame is dropped,
and the floor is 8 decades below the maximum of *this* chunk.
"""

from __future__ import annotations

from functools import cache

import mlx.core as mx
import numpy as np

from mlx_audio_r1.config import HOP_LENGTH, N_FFT, SAMPLE_RATE, TAIL_PAD
from mlx_audio_r1.kernels.log_mel import Filters, log_mel_frames

_MEL_BREAK_HZ = 1000.0  # Slaney's scale: linear below, logarithmic above
_MEL_BREAK = 15.0
_HZ_PER_MEL = 200.0 / 3.0
_LOG_STEP = np.log(6.4) / 27.0


def log_mel(waveform: mx.array | np.ndarray, n_mels: int = 128) -> mx.array:
    """(samples,) float at 16 kHz in [-1, 1] -> (T, n_mels) float32, T = ceil(samples / 160) + 2.

    Source: Whisper's log-mel with the padding of the Step-Audio server (librosa filters, Slaney scale
    and area norm, 0-8000 Hz; periodic Hann of 400; reflect padding of 200; hop 160).
    """
    return log_mel_frames(_spectrum(mx.array(waveform).astype(mx.float32)), _filters(n_mels))


def _spectrum(waveform: mx.array) -> mx.array:
    """(samples,) -> (T, 201) complex64: the STFT without its last frame."""
    half = N_FFT // 2
    x = mx.concatenate([waveform, mx.zeros(TAIL_PAD)])
    x = mx.concatenate([x[1 : half + 1][::-1], x, x[-half - 1 : -1][::-1]])
    frames = 1 + (x.size - N_FFT) // HOP_LENGTH
    x = mx.as_strided(x, (frames - 1, N_FFT), (HOP_LENGTH, 1))
    return mx.fft.rfft(x * _hann())


@cache
def _hann() -> mx.array:
    """Periodic Hann window of N_FFT samples."""
    n = np.arange(N_FFT)
    return mx.array((0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)).astype(np.float32))


@cache
def _filters(n_mels: int) -> Filters:
    return Filters.of(mel_filters(n_mels))


@cache
def mel_filters(n_mels: int = 128) -> mx.array:
    """(n_mels, 201) float32 triangles: Slaney mel scale and area norm, 0 to 8000 Hz."""
    top = _hz_to_mel(SAMPLE_RATE / 2)
    edges = _mel_to_hz(np.linspace(0.0, top, n_mels + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, 1 + N_FFT // 2)
    width = np.diff(edges)
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    bank = np.clip(np.minimum(rising, falling), 0.0, None)
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return mx.array(bank.astype(np.float32))


def _hz_to_mel(hz: float) -> float:
    if hz < _MEL_BREAK_HZ:
        return hz / _HZ_PER_MEL
    return _MEL_BREAK + np.log(hz / _MEL_BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    linear = mel * _HZ_PER_MEL
    log = _MEL_BREAK_HZ * np.exp(_LOG_STEP * (mel - _MEL_BREAK))
    return np.where(mel >= _MEL_BREAK, log, linear)
