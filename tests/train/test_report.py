"""report.html of runs that are over, under way, not begun, and gone wrong."""

import json
import math
import sys

import numpy as np
import pytest
import soundfile

from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.train.config import TrainConfig
from mlx_audio_r1.train.report import duration, memory, write_report

CONFIG = {"model": "<nano>", "train_mode": "sft", "fine_tune_type": "lora", "iters": 40, "data": "sounds/",
          "lora_parameters": {"rank": 4}}


def train_row(step, loss=1.0, **more):
    return {"step": step, "loss": loss, "norm": 1.0, "tokens": 100, "tokens_per_second": 50.0,
            "peak_memory_gb": 1.25, "seconds": 2.0 * step, "learning_rate": 1e-4, **more}


def reply(step, where="valid.jsonl:1", **more):
    return {"step": step, "where": where, "audio": "clip.wav", "prompt": "What?", "think": f"thought {step}",
            "answer": f"answer {step}", "expected": "a bell", **more}


def made(folder, rows=None, config=CONFIG, replies=()):
    """The text of the report of a run with these files."""
    if rows is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if config is not None:
        (folder / "train_config.json").write_text(json.dumps(config))
    if replies:
        (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in replies))
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_a_finished_run_shows_losses_plots_and_settings(tmp_path):
    rows = [{"step": 0, "val_loss": 2.0}, train_row(20, 1.5), {"step": 20, "val_loss": 1.25},
            train_row(40, 0.5), {"step": 40, "val_loss": 0.75}, {"step": 40, "test_loss": 0.875}]  # fmt: skip
    text = made(tmp_path, rows)
    assert "sft, lora, &lt;nano&gt;, step 40 of 40" in text
    assert "<dt>training loss</dt><dd>1.5 → 0.5</dd>" in text
    assert "<dt>validation loss</dt><dd>2 → 0.75</dd>" in text
    assert "<dt>test loss</dt><dd>0.875</dd>" in text
    assert "<dt>tokens read</dt><dd>200</dd>" in text
    assert "<dt>peak memory</dt><dd>1.25 GB</dd>" in text and "<dd>1 min 20 s</dd>" in text
    for caption in ("Loss", "Learning rate", "Tokens a second", "Peak memory, GB", "Norm of the gradient"):
        assert f"<figcaption>{caption}" in text
    assert text.count("<svg") == 5 and 'class="warning"' not in text
    assert "<td>rank: 4</td>" in text and "<td>sounds/</td>" in text


def test_what_a_recipe_adds_gets_a_plot_with_its_validation(tmp_path):
    rows = [train_row(10, accuracy=0.5, margin=0.0), {"step": 10, "val_loss": 0.6, "val_accuracy": 0.75}]
    text = made(tmp_path, rows)
    assert text.count("<svg") == 7
    assert 'aria-label="Accuracy over steps: accuracy from 0.5 to 0.5; validation accuracy from 0.75' in text
    assert "<dt>validation accuracy</dt><dd>0.75</dd>" in text and "<figcaption>Margin</figcaption>" in text


def test_a_run_of_reinforcement_learning_has_plots_of_its_own(tmp_path):
    rows = [train_row(step, 0.0, reward=0.2 * step, accuracy=0.1 * step, reasoning=1.0, length=300.0,
                      thinking_length=250.0, truncated=0.1, unparsed=0.0, clipped=0.0, entropy=0.5,
                      rollout_diff=0.01, rollout_kl=1e-4, max_rollout_ratio=1.2, update_kl=0.0,
                      value_loss=0.1, value_explained=-0.2, sampled_per_second=90.0) for step in (1, 2, 3)]
    rows.append({"step": 3, "val_accuracy": 0.5, "val_reward": 0.6, "val_reasoning": 1.0, "val_length": 280.0,
                 "val_truncated": 0.0})
    text = made(tmp_path, rows)
    assert text.count("<svg") == 11 + 5  # of the fourteen: nothing clipped, no divergence, no reference
    for caption, named in (("Reward", "reward from 0.2 to 0.6; validation reward from 0.6"),
                           ("Tokens of a reply, and of its reasoning",
                            "reply from 300 to 300; reasoning from 250 to 250; validation reply from 280"),
                           ("Tokens a second", "learnt from 50 to 50; sampled from 90")):
        assert f"<figcaption>{caption}</figcaption>" in text and f"{caption} over steps: {named}" in text
    assert "<dt>reward</dt><dd>0.2 → 0.6</dd>" in text and "<dt>validation reward</dt><dd>0.6</dd>" in text
    assert "<dt>training loss</dt>" not in text and "<dt>validation length</dt>" not in text


@pytest.mark.parametrize("rows", [None, [], [{"step": 0, "val_loss": 2.0}], [train_row(1)]])
def test_a_report_can_be_made_at_any_moment(tmp_path, rows):
    text = made(tmp_path, rows)
    assert ("No step has been reported yet." in text) == (not rows)
    assert ("<svg" in text) == bool(rows)


def test_a_torn_last_line_and_a_missing_config_do_no_harm(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train_row(10)) + '\n{"step": 20, "lo')
    (tmp_path / "samples.jsonl").write_text(json.dumps(reply(0)) + '\n{"step": 40, "whe')
    text = made(tmp_path, config=None)
    assert "the default model, step 10<" in text and "answer 0" in text


def test_values_that_are_no_numbers_are_said(tmp_path):
    text = made(tmp_path, [train_row(10), train_row(20, math.nan), train_row(30, norm=math.inf)])
    assert "Not a number at step 20, 30: lower the learning rate" in text and "var(--warn)" in text


def test_a_run_that_went_past_its_best_is_told(tmp_path):
    rows = [{"step": s, "val_loss": v} for s, v in ((0, 2.0), (10, 1.0), (20, 1.5))]
    assert "was least, 1, at step 10 and is 1.5 at the end" in made(tmp_path, rows)


def test_the_same_clip_before_and_after_side_by_side(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(1_600), 16_000)
    second = [reply(0, "valid.jsonl:2"), reply(40, "valid.jsonl:2")]
    replies = [reply(0), second[0], reply(10), reply(20), reply(30), reply(40, answer="A bell."), second[1]]
    text = made(tmp_path, [train_row(40)], replies=replies)
    assert text.count("<article") == 2 and text.count('src="data:audio/wav') == 2  # found beside the run
    first = text[text.index("<article") : text.index("</article>")]
    assert first.index("before training") < first.index("thought 0") < first.index("after 40 steps")
    assert first.index("thought 0") < first.index("after 20 steps") < first.index("after 40 steps")
    assert "answer 10" not in first and "answer 30" not in first  # one of the middle is enough
    assert first.count("as expected") == 1 and "thought 40" in first


def test_replies_of_text_alone_and_of_several_sounds(tmp_path):
    text_alone = reply(0, "valid.jsonl:1", audio=None, think=None)
    replies = [text_alone, reply(0, "valid.jsonl:2", audio=["a.wav", "b.wav"])]
    text = made(tmp_path, replies=replies)
    assert "a.wav" in text and "b.wav" in text and "<audio" not in text
    inline = reply(0, "valid.jsonl:3", audio="data:audio/wav;base64," + "A" * 5_000)  # no file name is as long
    assert made(tmp_path, replies=[inline]).count("<audio") == 1


def test_facts_of_the_data_stand_side_by_side(tmp_path):
    config = {**CONFIG, "data": {"train": {"rows": 1200}, "valid": {"rows": 10, "longest_row": 7}},
              "depends_on": {"train.jsonl": "abc"}}  # fmt: skip
    text = made(tmp_path, config=config)
    assert "<h2>Data</h2>" in text and "<td>1,200</td>" in text and ">longest row</th>" in text
    assert "<h2>Depends on</h2>" in text and "<td>abc</td>" in text


def test_without_matplotlib_the_report_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = made(tmp_path, [train_row(10)])
    assert "pip install &#x27;mlx-audio-r1[report]&#x27;" in text and "<svg" not in text


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"no metrics.jsonl and no train_config.json; give the folder"):
        write_report(tmp_path)
    (tmp_path / "train_config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"train_config.json: not JSON"):
        write_report(tmp_path)


def test_every_setting_of_a_run_is_shown(tmp_path):
    from dataclasses import asdict, fields

    text = made(tmp_path, config=asdict(TrainConfig(data="sounds")))
    assert all(f">{f.name}</th>" in text for f in fields(TrainConfig))


@pytest.mark.parametrize(("seconds", "words"), [
    (None, None), (4.25, "4.2 s"), (61, "1 min 1 s"), (3_725, "1 h 2 min"),
])
def test_durations_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(("gigabytes", "words"), [(None, None), (22.44, "22.4 GB"), (0.0307, "30.7 MB")])
def test_memory_in_the_unit_that_fits(gigabytes, words):
    assert memory(gigabytes) == words
