"""What stands in the place of a sound, and what a run makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from mlx_audio_r1.audio import pcm_sha256, read_chunks
from mlx_audio_r1.errors import EvaluationError
from mlx_audio_r1.evaluate.choosing import Choosing
from mlx_audio_r1.evaluate.controls import CONTROLS, NEAREST, Sounding
from mlx_audio_r1.evaluate.results import FULL, REAL
from mlx_audio_r1.prompt import AudioPart, audio_parts
from mlx_audio_r1.tasks.boolean import Boolean
from mlx_audio_r1.tasks.item import Item, Turn
from mlx_audio_r1.tasks.world_rows import write_wav
from tests.evaluate.world_run import rows, run_world


def asked(uid, *sounds, task="a", seconds=1.0, bench="b"):
    parts = tuple(AudioPart(str(sound)) for sound in sounds)
    return Item(uid, (Turn("user", ("Is it?", *parts)),), Boolean(True), bench=bench, groups={"task": task},
                extra={"seconds": seconds})  # fmt: skip


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Eleven files of noise, the first of more than one chunk."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for i in range(11):
        level = 0.02 + 0.01 * i
        write_wav(folder / f"{i}.wav", level * rng.standard_normal(420_000 if i == 0 else 8_000 + 1_000 * i))
    return [folder / f"{i}.wav" for i in range(11)]


def heard(sounding, item, control):
    return [np.asarray(part.source) for part in audio_parts(sounding.hear(item, control).messages)]


def test_the_sound_itself_makes_the_prompt_and_the_features_of_its_file(sounds, nano):
    item = asked("0", sounds[0], sounds[3])
    found = Sounding([item]).hear(item)
    assert nano.prompt_ids(found.messages) == nano.prompt_ids(item.messages())
    chunks = [chunk for sound in (sounds[0], sounds[3]) for chunk in read_chunks(str(sound))]
    assert found.sha256 == pcm_sha256(chunks) and len(chunks) == 3
    assert found.seconds == pytest.approx((420_000 + 11_000) / 16_000)


def test_silence_is_as_long_and_zero(sounds):
    item = asked("0", sounds[0])
    true, silent = (heard(Sounding([item]), item, name) for name in (REAL, "silence"))
    assert [len(chunk) for chunk in silent] == [len(chunk) for chunk in true] == [400_000, 20_000]
    assert not any(chunk.any() for chunk in silent)


def test_noise_is_as_long_and_as_loud_and_drawn_by_uid(sounds):
    item, other = asked("0", sounds[0]), asked("1", sounds[0])
    sounding = Sounding([item, other])
    noise, true = (np.concatenate(heard(sounding, item, name)) for name in ("noise", REAL))
    assert len(noise) == len(true) and not np.allclose(noise, true)
    rms = [np.sqrt(np.mean(x.astype(np.float64) ** 2)) for x in (noise, true)]
    assert rms[0] == pytest.approx(rms[1], rel=0.01)  # 420,000 draws: 0.1 % is one standard deviation
    assert np.array_equal(noise, np.concatenate(heard(Sounding([item]), item, "noise")))
    assert not np.array_equal(noise, np.concatenate(heard(sounding, other, "noise")))


def test_a_shuffle_is_of_the_same_task_about_as_long_and_another_sound(sounds):
    same = asked("same", sounds[1], seconds=1.0)
    near = [asked(f"near{i}", sounds[2 + i], seconds=1.0 + i / 10) for i in range(3)]
    far = [asked(f"far{i}", sounds[5], seconds=50.0 + i) for i in range(NEAREST)]
    elsewhere = [asked("elsewhere", sounds[6], task="c"), asked("other", sounds[7], bench="d")]
    item = asked("item", sounds[1], seconds=1.0)
    others = Sounding([item, same, *near, *far, *elsewhere]).others
    drawn = [others.of(item, number).uid for number in range(len(near) + len(far))]
    assert sorted(drawn) == sorted(i.uid for i in (*near, *far))  # never the same file, task or bench
    assert set(drawn[:NEAREST]) == {i.uid for i in (*near, *far[: NEAREST - len(near)])}
    assert drawn == [Sounding([*far, item, *near[::-1]]).others.of(item, n).uid for n in range(len(drawn))]
    seeds = {Sounding([item, *near], seed=seed).others.of(item).uid for seed in range(8)}
    assert len(seeds) > 1


def test_a_task_by_itself_is_shuffled_with_its_bench_and_one_sound_with_none(sounds):
    item, other = asked("0", sounds[1]), asked("1", sounds[2], task="c")
    assert Sounding([item, other]).others.of(item) is other
    alone = Sounding([item, replace(item, uid="2")]).others
    with pytest.raises(EvaluationError, match="b: shuffle needs a second sound"):
        alone.check()
    with pytest.raises(EvaluationError, match="ask more"):
        alone.of(item)


def test_a_shuffle_has_as_many_sounds_as_the_item(sounds):
    item, other = asked("0", sounds[1], sounds[2]), asked("1", sounds[3])
    found = heard(Sounding([item, other]), item, "shuffle")
    assert [len(chunk) for chunk in found] == [11_000, 11_000]


def test_none_leaves_the_sound_out_of_the_prompt(sounds, nano):
    item = asked("0", sounds[1])
    found = Sounding([item]).hear(item, "none")
    assert [part for m in found.messages for part in m.parts] == ["Is it?"]
    assert (found.sha256, found.seconds) == ("", 0.0)
    assert nano.tokenizer.audio_patch_id not in nano.prompt_ids(found.messages)


def test_a_run_under_every_control(nano, world_folder, tmp_path):
    found = rows(run_world(nano, world_folder, tmp_path / "out", Choosing(limit=3), controls=CONTROLS))
    assert len(found) == 3 * 5
    for uid in {key[0] for key in found}:
        true, *others = (found[uid, 0, FULL, name] for name in (REAL, *CONTROLS))
        silence, noise, shuffle, none = others
        assert all(r.seed == true.seed and r.closed and not r.error for r in others)
        assert len({r.audio_sha256 for r in (true, *others)}) == 5
        assert silence.audio_tokens == noise.audio_tokens == true.audio_tokens
        assert silence.prompt_sha256 == shuffle.prompt_sha256 == true.prompt_sha256
        assert (none.audio_tokens, none.audio_seconds, none.audio_sha256) == (0, 0.0, "")
    thought = [r.thinking for key, r in found.items() if key[3] == "silence"]
    assert len(thought) == 3 and all(text.startswith("No sound above the floor.") for text in thought)


@pytest.mark.parametrize("budget", [0, 6])
def test_a_shorter_control_comes_with_the_sound_under_the_same_budget(nano, world_folder, tmp_path, budget):
    asked = {"controls": ("silence",), "control_budget": budget}
    found = rows(run_world(nano, world_folder, tmp_path / "out", Choosing(limit=2), **asked))
    assert {key[2:] for key in found} == {(FULL, REAL), (budget, REAL), (budget, "silence")}
    assert all(r.thinking_tokens == budget for key, r in found.items() if key[2] == budget)
    assert all(r.finish == "budget" for key, r in found.items() if key[2] == budget)
