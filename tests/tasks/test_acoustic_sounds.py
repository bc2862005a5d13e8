"""Sound primitives measured from outside."""

import numpy as np
import pytest

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.tasks.acoustic import sounds


def rng():
    return np.random.default_rng(0)


def spectrum_peak(x):
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 18))
    return spectrum.argmax() * SAMPLE_RATE / (1 << 18)


@pytest.mark.parametrize("source", ["sine tone", "square tone", "sawtooth tone", "bell", "plucked string"])
def test_the_strongest_partial_is_the_pitch(source):
    tone = sounds.TONES[source](rng(), sounds.glide(440, 440, 0.5))
    peak = spectrum_peak(tone)
    assert min(abs(peak / k - 440) for k in (1, 2, 3)) < 3
    if source in ("sine tone", "square tone", "sawtooth tone", "bell"):
        assert peak == pytest.approx(440, abs=3)


def test_a_glide_starts_and_ends_where_it_says():
    tone = sounds.sine(rng(), sounds.glide(300, 900, 1.0))
    assert spectrum_peak(tone[:1600]) == pytest.approx(300 * 3**0.05, rel=0.03)
    assert spectrum_peak(tone[-1600:]) == pytest.approx(300 * 3**0.95, rel=0.03)


def test_nothing_folds_back():
    tone = sounds.sawtooth(rng(), sounds.glide(1700, 1700, 0.5))
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)))) ** 2
    frequency = np.fft.rfftfreq(len(tone), 1 / SAMPLE_RATE)
    off = np.abs(frequency / 1700 - np.round(frequency / 1700)) * 1700 > 60
    assert power[off].sum() < 1e-4 * power.sum()


@pytest.mark.parametrize(("colour", "expected"), [("white", 0.0), ("pink", -3.0), ("brown", -6.0)])
def test_noise_falls_by_its_colour_in_decibels_an_octave(colour, expected):
    x = sounds.noise(rng(), colour, 20.0)
    power = np.abs(np.fft.rfft(x)) ** 2
    frequency = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    low, high = (power[(frequency > f) & (frequency < 1.5 * f)].mean() for f in (500, 2000))
    assert 10 * np.log10(high / low) / 2 == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("decibels", [-20, -10, 0, 15])
def test_a_ramp_changes_the_level_by_its_decibels(decibels):
    gain = sounds.level_ramp(1000, decibels)
    assert gain.max() == pytest.approx(1.0)
    assert 20 * np.log10(gain[-1] / gain[0]) == pytest.approx(decibels, abs=1e-4)


def test_music_and_drums_are_finite_and_not_silent():
    for x in (sounds.music(rng(), 3.0), sounds.drum(rng()), sounds.click(rng())):
        assert np.isfinite(x).all() and x.std() > 0.01 and x.dtype == np.float32
