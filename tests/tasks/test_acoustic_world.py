"""Clips: one seed, one clip, and a truth that can be measured again in the waveform."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlx_audio_r1.config import SAMPLE_RATE
from mlx_audio_r1.tasks.acoustic import speech
from mlx_audio_r1.tasks.acoustic.world import (
    CONTOURS,
    KINDS,
    PITCHES,
    SOURCES,
    make_clip,
    nearest_pitch,
    tenth,
)

QUIET = [k for k in KINDS if k != "speech"]
needs_espeak = pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")


def part(clip, event, margin=0.02):
    first, last = (int(t * SAMPLE_RATE) for t in (event.start + margin, event.end - margin))
    return clip.waveform[first:last]


def quiet_pairs(count):
    """Pairs of sine tones in clean recordings."""
    clips = (make_clip(seed, "pair") for seed in range(1000))
    fitting = (c for c in clips if c.truth.floor_db == 40 and c.truth.events[0].source == "sine tone")
    return [clip for _, clip in zip(range(count), fitting, strict=False)]


@pytest.mark.parametrize("kind", QUIET)
def test_the_same_seed_gives_the_same_clip(kind):
    one, other = make_clip(5, kind), make_clip(5, kind)
    assert np.array_equal(one.waveform, other.waveform) and one.truth == other.truth


@pytest.mark.parametrize("kind", QUIET)
def test_truths_are_within_bounds(kind):
    for seed in range(20):
        clip = make_clip(seed, kind)
        truth = clip.truth
        assert len(clip.waveform) == round(truth.seconds * SAMPLE_RATE)
        assert clip.waveform.dtype == np.float32 and np.abs(clip.waveform).max() <= 1.0
        starts = [e.start for e in truth.events]
        assert starts == sorted(starts)
        for event in truth.events:
            assert event.source in SOURCES and 0 <= event.start < event.end <= truth.seconds + 0.04
            assert abs(event.start - tenth(event.start)) <= 0.031


def test_the_pitch_is_the_peak_of_the_spectrum():
    for clip in quiet_pairs(8):
        for event in clip.truth.events:
            x = part(clip, event)
            spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 17))
            assert spectrum.argmax() * SAMPLE_RATE / (1 << 17) == pytest.approx(event.hz, rel=0.02)
            assert abs(np.log(nearest_pitch(event.hz) / event.hz)) < 0.05


def test_the_louder_one_of_a_pair_is_louder_by_its_level():
    for clip in quiet_pairs(12):
        first, second = clip.truth.events
        if abs(first.hz / second.hz - 1) > 0.02:
            continue  # a microphone may favour one pitch
        one, other = (20 * np.log10(part(clip, e, 0.06).std()) for e in (first, second))
        assert one - other == pytest.approx(first.level_db - second.level_db, abs=2.5)


def test_it_is_quiet_before_the_first_sound():
    for seed in range(100):
        clip = make_clip(seed, "repeat")
        first = clip.truth.events[0]
        if clip.truth.floor_db == 40 and first.start > 0.3:
            before = clip.waveform[: int((first.start - 0.02) * SAMPLE_RATE)].std()
            assert before < 0.1 * np.abs(clip.waveform).max()


def test_some_clips_have_nothing_between_the_sounds():
    clips = [make_clip(seed, "repeat") for seed in range(60)]
    quiet = [c for c in clips if (c.waveform == 0).mean() > 0.1]
    assert 4 <= len(quiet) <= 24
    assert all(c.truth.floor_db == 40 for c in quiet)


def test_some_tones_fill_the_clip_from_edge_to_edge():
    clips = [make_clip(seed, "single") for seed in range(80)]
    filling = [c for c in clips if (c.truth.events[0].start, c.truth.events[0].end) == (0.0, c.truth.seconds)]
    assert 12 <= len(filling) <= 40
    plain = [c for c in filling if c.truth.events[0].contour == "steady" and c.truth.events[0].ramp_db == 0]
    assert len(plain) >= 5
    for clip in plain:
        edge, middle = clip.waveform[:320].std(), clip.waveform[len(clip.waveform) // 2 :].std()
        assert edge > 0.4 * middle


def test_counts_contours_and_floors_are_spread():
    counts = Counter(len(make_clip(s, "repeat").truth.events) for s in range(90))
    contours = Counter(make_clip(s, "single").truth.events[0].contour for s in range(40))
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert set(contours) == set(CONTOURS)
    assert len(set(PITCHES)) == len(PITCHES) == 36


@needs_espeak
def test_the_voice_has_the_pitch_it_is_labelled_with():
    for seed in range(6):
        said = speech.speak(np.random.default_rng(seed), 2.0)
        low, high = speech.MEASURED_HZ[said.voice]
        assert low <= said.hz <= high
        assert speech.fundamental(said.waveform) == pytest.approx(said.hz, rel=0.02)


def test_the_fundamental_of_a_known_buzz_is_found():
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))
    assert speech.fundamental(buzz.astype(np.float32)) == pytest.approx(120, rel=0.02)


@needs_espeak
def test_held_out_speakers_are_no_training_speakers(monkeypatch):
    said = []
    run = speech.subprocess.run
    monkeypatch.setattr(speech.subprocess, "run", lambda c, **k: said.append(c[2].split("+")[1]) or run(c, **k))
    for seed in range(12):
        make_clip(seed, "speech", held_out=True)
    assert said and set(said) <= speech.HELD_OUT
    said.clear()
    for seed in range(12):
        make_clip(seed, "speech")
    assert said and not set(said) & speech.HELD_OUT


def test_without_espeak_no_clip_has_speech(monkeypatch):
    monkeypatch.setattr(speech, "available", lambda: False)
    for seed in range(60):
        assert all(e.source != "speech" for e in make_clip(seed).truth.events)


def test_the_world_needs_no_mlx():
    sources = Path(speech.__file__).parent.glob("*.py")
    assert all("import mlx." not in p.read_text() for p in sources)
