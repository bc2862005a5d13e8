"""Where a recording is quiet, and how it is cut there; arithmetic throughout."""

import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_audio_r1.jobs.pauses import PADDING, SHORTEST_SILENCE, levels, quietest, soundscape
from mlx_audio_r1.jobs.windows import Window, cut, cut_out, frames, plan

RATE = 16_000


def tone(seconds: float, amplitude: float = 0.5) -> np.ndarray:
    """200 Hz: four whole periods a frame, so every frame has the same level."""
    n = int(seconds * RATE)
    return (amplitude * np.sin(2 * np.pi * 200 * np.arange(n) / RATE)).astype(np.float32)


def noise(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    n = int(seconds * RATE)
    return (np.random.default_rng(seed).normal(size=n) * 10 ** (db / 20)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def scape_of(*parts: np.ndarray):
    return soundscape(levels([np.concatenate(parts)]))


def test_a_level_is_the_rms_of_its_frame():
    found = levels([tone(1.0, 0.5)])
    assert found.shape == (50,)
    assert found == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=1e-4)
    assert levels([silence(0.1)]).tolist() == [-100.0] * 5


def test_dc_is_silence():
    assert levels([np.full(3200, 0.25, np.float32)]).tolist() == [-100.0] * 10


def test_blocks_of_any_size_give_the_same_levels():
    whole = noise(1.03, -20)
    for size in (1, 319, 320, 321, 4097):
        blocks = [whole[i : i + size] for i in range(0, len(whole), size)]
        assert np.array_equal(levels(blocks), levels([whole]))
    assert levels([]).shape == (0,)


def test_a_sound_between_silences_is_found_to_the_frame():
    scape = scape_of(silence(4), tone(3), silence(5))
    assert scape.sounds == [(200 - PADDING, 350 + PADDING)]
    assert scape.silent_frames == 600 - 150 - 2 * PADDING


@pytest.mark.parametrize(("gap", "count"), [(0.5, 1), (2.5, 1), (2.6, 2), (60.0, 2)])
def test_pauses_shorter_than_two_seconds_and_their_padding_stay_in(gap, count):
    assert len(scape_of(tone(2), silence(gap), tone(2)).sounds) == count
    assert SHORTEST_SILENCE + 2 * PADDING == 130  # frames: 2.6 s


def test_silence_has_no_sound_and_is_not_divided_by_zero():
    assert scape_of(silence(30)).sounds == []
    assert scape_of(noise(30, -90)).sounds == []  # the dither of 16 bits is quieter still
    assert soundscape(levels([])).sounds == []


@pytest.mark.parametrize("sound", [tone(60), noise(60, -30), noise(60, -55), tone(0.02)])
def test_steady_sound_is_sound_throughout(sound):
    assert scape_of(sound).sounds == [(0, -(-len(sound) // 320))]


def test_the_floor_follows_the_noise():
    speech = noise(3, -25, seed=1)
    pause = noise(6, -60, seed=2)
    scape = scape_of(pause, speech, pause, speech, pause)
    assert len(scape.sounds) == 2
    assert scape.silent_frames == pytest.approx(18 * 50 - 4 * PADDING, abs=2)


def test_a_quiet_voice_beside_a_loud_bang_is_kept():
    parts = [silence(5), tone(0.5, 1.0), silence(5), tone(4, 0.003), silence(5)]
    assert [(s + PADDING, e - PADDING) for s, e in scape_of(*parts).sounds] == [(250, 275), (525, 725)]


def test_a_click_is_no_sound():
    click = silence(10)
    click[80_000:80_040] = 0.9
    assert scape_of(click, tone(1)).sounds == [(500 - PADDING, 550)]


def test_a_sound_may_fade_below_where_it_began():
    fading = [tone(0.5, 10 ** (-db / 20)) for db in range(20, 74)]
    [(start, end)] = scape_of(silence(5), *fading, silence(5)).sounds
    assert start == 250 - PADDING and end > 250 + 25 * 50


def test_the_quietest_place_is_inside_a_pause():
    scape = scape_of(tone(5), silence(0.5), tone(5))
    at, pause = quietest(scape, 150, 400)
    assert 255 <= at <= 270 and pause
    assert quietest(scape, 300, 400) == (399, False)  # all alike: the last, so that pieces are long


# Windows


def test_a_recording_with_pauses_is_cut_in_them():
    scape = scape_of(*[part for _ in range(20) for part in (tone(8), silence(1.0))])
    windows = plan(scape, longest=30, piece=25, overlap=5)
    assert all(w.frames <= 30 * 50 and w.overlap == 0 for w in windows)
    for before, after in pairwise(windows):
        assert before.end == after.start
        assert 400 < before.end % 450 < 450  # inside one of the pauses


def test_sound_without_a_pause_is_heard_twice_at_the_cuts():
    windows = plan(scape_of(tone(100)), longest=30, piece=25, overlap=5)
    assert windows[0].start == 0 and windows[-1].end == 5000
    for before, after in pairwise(windows):
        assert before.end - after.start == after.overlap == 250
    assert all(750 <= w.frames <= 1500 for w in windows)


def test_an_overlap_as_long_as_the_window_still_ends():
    windows = plan(scape_of(tone(60)), longest=10, piece=25, overlap=100)
    assert max(w.overlap for w in windows) == 125 and windows[-1].end == 3000


def test_no_crumb_is_left_at_the_end():
    for seconds in np.arange(25.02, 60, 0.7):
        pieces = [*cut(scape_of(tone(seconds)), 0, int(seconds * 50), 1250)]
        assert min(end - start for start, end in pieces) >= 300
        assert max(end - start for start, end in pieces) <= 1250


def test_long_silences_are_in_no_window():
    scape = scape_of(tone(10), silence(60), tone(10), silence(3), tone(10))
    windows = plan(scape, longest=120, piece=25, overlap=5)
    assert [(w.start, w.end, len(w.pieces)) for w in windows] == [(0, 515, 1), (3485, 4650, 2)]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.floats(0.05, 40)), min_size=1, max_size=8),
    longest=st.sampled_from([8.0, 30.0, 120.0]),
    overlap=st.sampled_from([0.0, 2.0]),
    block=st.sampled_from([7_000, 400_000]),
)
def test_windows_hold_all_sound_and_are_cut_out_as_they_stand(parts, longest, overlap, block):
    whole = np.concatenate([tone(s) if loud else silence(s) for loud, s in parts])
    scape = scape_of(whole)
    windows = plan(scape, longest, piece=min(longest, 25.0), overlap=overlap)
    covered = np.zeros(len(scape.levels), int)
    for window in windows:
        assert window.frames <= frames(longest)
        assert all(0 < end - start <= 1250 for start, end in window.pieces)
        for start, end in window.pieces:
            covered[start:end] += 1
        covered[window.start : window.start + window.overlap] -= 1
    sound = np.zeros(len(scape.levels), int)
    for start, end in scape.sounds:
        sound[start:end] = 1
    assert np.array_equal(covered, sound)

    blocks = (whole[i : i + block] for i in range(0, len(whole), block))
    for window, waveforms in zip(windows, cut_out(blocks, windows), strict=True):
        for (start, end), waveform in zip(window.pieces, waveforms, strict=True):
            assert np.array_equal(waveform, whole[start * 320 : end * 320])


def test_a_recording_is_never_held_whole():
    made = []

    def blocks():
        for _ in range(40):
            block = np.ones(400_000, np.float32)
            made.append(weakref.ref(block))
            yield block
            del block

    windows = [Window(((i * 1250, i * 1250 + 1250),)) for i in range(40)]
    alive = [sum(ref() is not None for ref in made) for _ in cut_out(blocks(), windows)]
    assert len(made) == 40 and max(alive) <= 2
