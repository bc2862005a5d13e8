"""A run of MGRD as a whole, on nano and a handful of clips: what it leaves, stops, goes on, refuses."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
import yaml

from mlx_audio_r1.errors import DataError, TrainingError
from mlx_audio_r1.mgrd.config import MGRDConfig, read_config
from mlx_audio_r1.mgrd.decisions import DecisionFile
from mlx_audio_r1.mgrd.rounds import phases_of
from mlx_audio_r1.mgrd.run import run
from mlx_audio_r1.mgrd.status import status
from mlx_audio_r1.tasks.world_rows import WorldPlan, write_world
from mlx_audio_r1.train import metrics
from mlx_audio_r1.train.rollouts import read_rollouts
from mlx_audio_r1.train.rows import read_rows
from mlx_audio_r1.train.watch import Silent

START = "from mlx_audio_r1.cli.main import main; main()"
QUICK = {"samples": 0, "grad_checkpoint": False, "learning_rate": 1e-3, "steps_per_eval": 1_000}
TOLD = {
    "model": "nano", "rounds": 1, "samples": 2, "max_seq_length": 200, "max_rows": 32, "train": QUICK,
    "cold_start": {"iters": 1, "batch_size": 4}, "filter": {"least_gain": 0.0},
    "sft": {"iters": 1, "batch_size": 4}, "curate": {"low": 0, "high": 8},
    "rl": {"iters": 2, "batch_size": 2, "group_size": 2, "save_every": 1},
    "self_cognition": {"questions": 2, "samples": 2, "measured": 2, "sft": {"iters": 1}, "dpo": {"iters": 1}},
    "measure": {"questions": 2, "showcase": 1, "budgets": "8"},
}  # fmt: skip
PHASES = ["0/sft", "0/measure", "1/select", "1/sample", "1/filter", "1/sft", "1/curate", "1/rl", "1/measure",
          "self/sample", "self/sft", "self/dpo", "self/measure"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Questions that nano mostly gets right, some sums, and replies to imitate."""
    folder = tmp_path_factory.mktemp("mgrd-data")
    plan = WorldPlan(train=4, valid=2, arithmetic=1, tasks=("register", "source"), choice=False)
    write_world(folder / "questions", plan)
    write_world(folder / "text", WorldPlan(train=0, valid=0, arithmetic=2, form="sft", seed=6))
    write_world(folder / "replies", replace(plan, train=4, valid=0, arithmetic=0, form="sft", seed=5))
    return folder


@pytest.fixture(scope="module")
def config(data):
    cold = {**TOLD["cold_start"], "data": str(data / "replies")}
    told = {"data": str(data / "questions"), "text": str(data / "text"), "cold_start": cold}
    return MGRDConfig(**{**TOLD, **told})


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The run that others are held against."""
    folder = tmp_path_factory.mktemp("mgrd-run") / "whole"
    outcome = run(config, folder)
    assert outcome.finished and outcome.phases == len(PHASES)
    return folder


def adapters(folder):
    """Every adapter of a run."""
    paths = [path for path in sorted(folder.rglob("adapters.safetensors")) if "checkpoints" not in path.parts]
    return {str(path.relative_to(folder)): mx.load(str(path)) for path in paths}


def same(one, two):
    a, b = adapters(one), adapters(two)
    assert a.keys() == b.keys()
    return all(mx.array_equal(x, b[name][key]).item() for name in a for key, x in a[name].items())


def chosen(folder, name):
    return [(r.key, r.ids, r.reward) for r in sorted(read_rollouts(folder / name), key=lambda r: r.key)]


def decided(folder):
    return [(d.key, d.kept, d.reason) for d in DecisionFile.read(folder / "rounds/1")]


def test_the_phases_are_those_of_figure_3(config):
    assert [phase.name for phase in phases_of(config)] == PHASES
    plain = replace(config, cold_start=None, self_cognition=None, rl=None, rounds=2)
    assert [p.name for p in phases_of(plain)] == ["0/measure"] + [
        f"{t}/{name}" for t in (1, 2) for name in ("select", "sample", "filter", "sft", "measure")
    ]
    assert phases_of(replace(config, text_rl={}))[1].name == "0/rl"


def test_every_sample_is_decided_and_the_kept_ones_are_learnt(whole):
    folder = whole / "rounds/1"
    rows = {row.name: row for row in read_rows(folder / "selected/train.jsonl")}
    sounding = {name for name, row in rows.items() if row.sounds}
    rollouts = {r.key: r for r in read_rollouts(folder / "rollouts.jsonl")}
    assert len(rows) == 5 and len(sounding) == 4 and len(rollouts) == 5 * 2
    found = DecisionFile.read(folder)
    assert {d.key for d in found} == {key for key in rollouts if key[0] in sounding}
    assert all((d.reason == "kept") == d.kept and (d.kept or d.why) for d in found)
    assert all(rollouts[d.key].scores["correct"] == 1 for d in found if d.kept)
    learnt = list(read_rows(folder / "sft_data/train.jsonl"))
    kept = [rollouts[d.key] for d in found if d.kept]
    assert [row.reply for row in learnt if row.sounds] == [
        f"<think>\n{r.thinking.strip()}\n</think>\n{r.answer.strip()}" for r in kept
    ]
    text = [row for row in learnt if not row.sounds]  # equation 5: the original text reasoning beside them
    assert len(text) == 2 and all("<think>" in row.reply for row in text)


def test_curation_counts_the_samples_there_are(whole):
    folder = whole / "rounds/1"
    counts = [json.loads(line) for line in (folder / "curated/pass_counts.jsonl").read_text().splitlines()]
    rollouts = read_rollouts(folder / "rollouts.jsonl")
    for count in counts:
        own = [r for r in rollouts if r.prompt == count["prompt"]]
        assert count["samples"] == len(own) == 2
        assert count["passed"] == sum(r.scores["correct"] == 1 for r in own)
    assert not (folder / "curated/rollouts.jsonl").exists()  # nothing was sampled again
    asked = [row.columns["asked_in"] for row in read_rows(folder / "curated/train.jsonl")]
    names = {row.name: row.columns["asked_in"] for row in read_rows(folder / "selected/train.jsonl")}
    renamed = read_rollouts(folder / "curated/critic_rollouts.jsonl")
    of = {r.prompt: names[r.prompt] for r in rollouts}
    assert len(renamed) == 2 * len(asked)
    for r in renamed:
        question = asked[int(r.prompt.partition(":")[2]) - 1]
        assert any(of[o.prompt] == question and o.sample == r.sample and o.ids == r.ids for o in rollouts)


def test_what_is_measured(whole):
    for t in (0, 1):
        found = json.loads((whole / f"rounds/{t}/measures.json").read_text())
        assert found["n"] == 2 and set(found["accuracy"]) == {"thinking", "direct", "silence"}
        replies = read_rollouts(whole / f"rounds/{t}/measure/thinking.jsonl")
        assert found["accuracy"]["thinking"] == pytest.approx(sum(r.scores["correct"] for r in replies) / 2)
        assert set(found["budgets"]) == {"8"} and set(found["gain"]) == {"thinking", "answer", "grounded"}
        lines = (whole / f"rounds/{t}/showcase.jsonl").read_text().splitlines()
        assert len(lines) == 1 and all(os.path.exists(json.loads(line)["audio"][0]) for line in lines)
    stages = json.loads((whole / "self_cognition/measures.json").read_text())["stages"]
    assert [s["name"] for s in stages] == ["base", "after distillation", "after DPO"]
    assert all(s["n"] == 2 and s["low"] <= s["rate"] <= s["high"] for s in stages)


def test_each_phase_goes_on_from_the_one_before(whole):
    def started_from(name):
        return json.loads((whole / name / "train_config.json").read_text())["resume_adapter_file"]

    assert started_from("rounds/0/sft") is None
    assert Path(started_from("rounds/1/sft")).parent == whole / "rounds/0/sft"
    assert Path(started_from("rounds/1/rl")).parent == whole / "rounds/1/sft"
    assert Path(started_from("self_cognition/sft")).parent == whole / "rounds/1/rl"
    assert Path(started_from("self_cognition/dpo")).parent == whole / "self_cognition/sft"


def test_a_finished_run_is_left_alone(config, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    assert run(config, whole).finished
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before
    assert all(phase.state == "done" for phase in status(whole).phases)
    assert (whole / "report.html").stat().st_size > 10_000


class StopNowAndThen(Silent):
    """Asks to stop at random, so that phases are left in their middle."""

    def __init__(self, seed, most):
        self.draw, self.most, self.left = random.Random(seed), most, 5

    def stop(self):
        self.left -= 1
        if self.left < 0:
            self.left = self.draw.randint(5, self.most)
            return True
        return False


def test_stopped_again_and_again_it_ends_in_the_same_bits(config, whole, tmp_path):
    watch, left = StopNowAndThen(seed=3, most=60), set()
    for _ in range(40):
        outcome = run(config, tmp_path / "run", watch)
        if outcome.finished:
            break
        left |= {phase.name for phase in status(tmp_path / "run").phases if phase.note == "stopped"}
    assert outcome.finished and len(left) >= 4  # of the phases that take more than a moment
    assert decided(tmp_path / "run") == decided(whole)
    for name in ("rounds/1/rollouts.jsonl", "rounds/1/rl/rollouts/0000001.jsonl"):
        assert chosen(tmp_path / "run", name) == chosen(whole, name)
    assert same(tmp_path / "run", whole)


def killed_at_work(command, folder, seconds):
    """Start the command and kill it so long after its first word; False where it was done before."""
    began = time.time()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = folder / "state.json"
    while process.poll() is None and not (journal.exists() and journal.stat().st_mtime > began):
        time.sleep(0.01)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


@pytest.mark.long
def test_killed_twenty_times_it_ends_in_the_same_bits(config, whole, tmp_path):
    (tmp_path / "mgrd.yaml").write_text(yaml.safe_dump(config.as_dict()))
    command = [sys.executable, "-c", START, "mgrd", "run", str(tmp_path / "mgrd.yaml"), "-o",
               str(tmp_path / "run")]  # fmt: skip
    draw, kills, phases = random.Random(0), 0, set()
    while kills < 20 and killed_at_work(command, tmp_path / "run", draw.uniform(0.0, 1.5)):
        kills += 1
        phases |= {p.name for p in status(tmp_path / "run").phases if p.state == "running"}
    subprocess.run(command, check=True, capture_output=True)
    assert kills >= 8 and len(phases) >= 4
    assert decided(tmp_path / "run") == decided(whole)
    assert same(tmp_path / "run", whole)


@pytest.mark.parametrize("cold", [True, False])
def test_rl_on_text_goes_on_from_where_it_was_killed(config, tmp_path, cold):
    """When it is killed its adapter is there already, and must not be what it begins with."""
    text = {"iters": 2, "batch_size": 1, "group_size": 2, "save_every": 1, "max_completion_length": 8}
    told = replace(config, text_rl=text, cold_start=config.cold_start if cold else None)
    run(told, tmp_path / "run", until="0/rl")
    state = json.loads((tmp_path / "run/state.json").read_text())
    for phase in state["phases"]:
        phase["state"] = "running" if phase["name"] == "0/rl" else phase["state"]
    (tmp_path / "run/state.json").write_text(json.dumps(state))
    run(told, tmp_path / "run", until="0/rl")
    begun = json.loads((tmp_path / "run/rounds/0/rl/train_config.json").read_text())["resume_adapter_file"]
    assert begun == (str(tmp_path / "run/rounds/0/sft/adapters.safetensors") if cold else None)


def test_more_rounds_may_be_added_and_nothing_else_changed(config, tmp_path):
    run(config, tmp_path / "run", until="1/select")
    for changed, words in (({"samples": 4}, "another samples"), ({"rounds": 0}, "has 1 rounds"),
                           ({"filter": {"least_gain": 0.5}}, "another filter")):  # fmt: skip
        with pytest.raises(TrainingError, match=words):
            run(replace(config, **changed), tmp_path / "run", until="0/sft")
    outcome = run(replace(config, rounds=2), tmp_path / "run", until="1/select")
    assert outcome.phases == 3 and status(tmp_path / "run").phases[-5].name == "2/measure"


def test_nothing_kept_is_said_in_one_line(config, tmp_path):
    cheap = {**TOLD["measure"], "gain": False}
    strict = replace(config, cold_start=None, filter={"least_gain": 50.0}, measure=cheap)
    with pytest.raises(DataError, match=r"round 1 kept none of the samples: see decisions\.jsonl"):
        run(strict, tmp_path / "run", until="1/sft")
    failed = next(p for p in status(tmp_path / "run").phases if p.state == "failed")
    assert failed.name == "1/sft" and "kept none" in failed.note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: 2", "data is missing"),
        ("data: q\nround: 2", "unknown key 'round'; did you mean rounds"),
        ("data: q\nsamples: 1", "samples is 1; 2 is the least"),
        ("data: q\nfilter: {least_gian: 1}", "filter: unknown key 'least_gian'"),
        ("data: q\nfilter: {control: noise}", "control 'noise'"),
        ("data: q\nselect: {perception: deep}", "perception 'deep'"),
        ("data: q\ncurate: {strategy: hard}", "strategy is 'hard'"),
        ("data: q\nrl: {algo: trpo}", "algo is 'trpo'"),
        ("data: q\nrl: {model: other}", "model is set by the run itself"),
        ("data: q\nsft: {beta: 1}", "beta is not used by sft"),
        ("data: q\ncold_start: {iters: 3}", "cold_start: data is missing"),
        ("data: q\nmeasure: {budgets: 'a,b'}", "budgets is 'a,b'"),
        ("data: q\nself_cognition: {samples: 0}", "from 1 up"),
        ("data: q\nself_cognition: {dpo: {algo: ppo}}", "unknown key 'algo'"),
        ("- a", "expected `key: value` lines"),
    ],
)
def test_a_bad_file_is_said_in_one_line(tmp_path, text, words):
    path = tmp_path / "mgrd.yaml"
    path.write_text(text)
    with pytest.raises(TrainingError) as error:
        read_config(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_paths_count_from_the_file(tmp_path):
    (tmp_path / "mgrd.yaml").write_text("data: q\ntext: t\ncold_start: {data: ../c}\nmodel: nano\n")
    config = read_config(tmp_path / "mgrd.yaml")
    assert config.data == str(tmp_path / "q") and config.text == str(tmp_path / "t")
    assert Path(config.cold_start["data"]).resolve() == tmp_path.parent / "c" and config.model == "nano"


def test_an_unknown_phase(config, tmp_path):
    with pytest.raises(TrainingError, match="no phase '1/filters'; there are 0/sft"):
        run(config, tmp_path / "run", until="1/filters")


def test_the_rewards_of_sound_and_text_are_mixed(whole):
    """Sums are rewarded by equation 6, clips by equation 7."""
    rows = {row.name: row for row in read_rows(whole / "rounds/1/selected/train.jsonl")}
    for r in read_rollouts(whole / "rounds/1/rollouts.jsonl"):
        right, reasoned = r.scores["correct"], r.scores["reasoning"]
        expected = 0.8 * right + 0.2 * reasoned if rows[r.prompt].sounds else right
        assert r.reward == pytest.approx(0.0 if r.truncated else expected)
    assert metrics.read(whole / "rounds/1/rl")[-1]["step"] == 2


def test_the_file_of_the_documentation_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "mgrd.md").read_text()
    (tmp_path / "mgrd.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    config = read_config(tmp_path / "mgrd.yaml")
    assert config.rounds == 2 and config.training("rl", config.rl).value == "lora"
    assert [phase.name for phase in phases_of(config)][:3] == ["0/sft", "0/rl", "0/measure"]


def test_questions_that_are_guessed_without_the_sound_are_left_out(config, tmp_path):
    """Of two answers one is guessed half of the time, of many hardly ever; a sum has no sound to leave out."""
    wanted = {"perception": "silence", "silent_samples": 3, "most_silent": 0.0}
    cheap = {**TOLD["measure"], "gain": False, "direct": False, "silence": False}
    told = replace(config, cold_start=None, select=wanted, measure=cheap)
    run(told, tmp_path / "run", until="1/select")
    folder = tmp_path / "run/rounds/1"
    replies = read_rollouts(folder / "silent/rollouts.jsonl")
    fates = [json.loads(line) for line in (folder / "selected.jsonl").read_text().splitlines()]
    assert len(replies) == 4 * 3 and len(fates) == 4 and not any(r.thinking for r in replies)
    for number, fate in enumerate(fates, start=1):
        right = sum(r.scores["correct"] for r in replies if r.prompt == f"train.jsonl:{number}")
        assert fate["chosen"] == (right == 0) and fate["why"] == f"{right / 3:.0%} right without the sound"
    chosen = {fate["where"] for fate in fates if fate["chosen"]}
    rows = list(read_rows(folder / "selected/train.jsonl"))
    assert {row.columns["asked_in"] for row in rows if row.sounds} == chosen
    assert sum(not row.sounds for row in rows) == 1


MISSING = [{"data": "nowhere"}, {"text": "nowhere"}, {"cold_start": {"data": "nowhere"}}]


@pytest.mark.parametrize("changed", MISSING, ids=str)
def test_what_is_missing_is_said_before_anything_is_done(config, tmp_path, changed):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        run(replace(config, **changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()
