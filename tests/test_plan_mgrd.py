"""Hours and memory of MGRD's phases, against the table that was worked out by hand, and by arithmetic."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mlx_audio_r1 import footprint, rates
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.cli.plan_mgrd import CHIP_NAMES
from mlx_audio_r1.footprint import Workload, published, quantised
from mlx_audio_r1.footprint_training import TrainingJob, trained_bytes
from mlx_audio_r1.plan import inference_parts, mac, total
from mlx_audio_r1.plan_mgrd import DAY, plan_mgrd
from mlx_audio_r1.plan_mgrd_phases import CRITIC_UPDATES, MgrdJob
from mlx_audio_r1.plan_training import training_parts
from mlx_audio_r1.rates import CHIPS

R1, MINI = (published(f"stepfun-ai/{name}") for name in ("Step-Audio-R1.1", "Step-Audio-2-mini"))
BF16 = footprint.sizes_from_shapes(R1)
FOUR = quantised(R1, BF16, 4)
MINI_FOUR = quantised(MINI, footprint.sizes_from_shapes(MINI), 4)
ULTRA, MAX = CHIPS["m3-ultra"], CHIPS["m4-max"]


def planned(job=None, memory=512, chip=ULTRA, config=R1, sizes=FOUR):
    return plan_mgrd(config, sizes, mac(memory), chip, job or MgrdJob())


def hours(plan) -> dict[str, float]:
    return {phase.name: phase.hours for phase in plan.phases}


# ---- rates


@pytest.mark.parametrize(("chip", "one", "eight", "sixteen", "full", "reading"), [
    ("m2-ultra", 30, 90, 105, 195, 265), ("m3-ultra", 32, 95, 100, 185, 250), ("m4-max", 24, 70, 85, 155, 210),
])
def test_rates_of_the_table(chip, one, eight, sixteen, full, reading):
    """33B at 4 bits, 1,900 tokens of context, tokens a second by rows."""
    found = [rows / rates.decode_seconds(CHIPS[chip], R1, FOUR, rows, 1_900) for rows in (1, 8, 16, 32)]
    assert found == pytest.approx([one, eight, sixteen, full], rel=0.12)
    assert 1_000 / rates.reading_seconds(CHIPS[chip], R1, 1_000) == pytest.approx(reading, rel=0.05)


def test_training_rates_of_the_table():
    """M3 Ultra: 45 to 67 tokens a second through all layers, 90 to 133 through 16."""
    assert 45 < 3_100 / rates.training_seconds(ULTRA, R1, 3_100, 64) < 67
    assert 90 < 3_100 / rates.training_seconds(ULTRA, R1, 3_100, 16) < 133


def test_arithmetic_of_a_token():
    assert rates.token_values(R1) == 31_205_621_760 + 158_720 * 5_120  # 487.6 M a layer, and the head
    assert rates.attention_flops(R1, 1_000) == 4 * 500 * 40 * 128 * 64  # q k, p v
    trunk, head = 2 * 31_205_621_760 + rates.attention_flops(R1, 100), 2 * 158_720 * 5_120
    for passed, flops in ((64, 3 * (trunk + head)), (0, trunk + 3 * head)):
        found = rates.training_seconds(ULTRA, R1, 100, passed)
        assert found == pytest.approx(100 * flops / (0.65 * 17.4e12))


def test_rows_between_a_few_and_a_tile_are_avoided():
    assert [rates.best_rows(MAX, R1, FOUR, most, 1_900) for most in (1, 4, 12, 32)] == [1, 4, 8, 32]
    times = [rates.decode_seconds(MAX, R1, FOUR, rows, 0) for rows in (11, 12, 32, 33)]
    assert times[0] == times[1] == times[2] < times[3]


def test_chips_have_names_and_macs_have_chips():
    assert (*CHIPS,) == CHIP_NAMES
    assert rates.chip_called("Apple M3 Ultra") == "m3-ultra" and rates.chip_called("Intel Xeon") is None
    assert [rates.usual_chip(gib) for gib in (512, 128, 36, 16)] == ["m3-ultra", "m4-max", "m4-max", "m4"]


# ---- phases


def test_phases_of_33b_on_an_m3_ultra_come_near_the_table():
    found = hours(planned(MgrdJob(judge="self")))
    table = {"distillation rollouts": 15.5, "filter, judge (self)": 7.3, "SFT": 13.0, "RL rollouts": 12.3,
             "RL update": 41.0}
    assert {name: found[name] for name in table} == pytest.approx(table, rel=0.25)
    assert found["curation"] == 0.0


def test_phases_with_the_top_layers_and_few_samples_come_near_the_table():
    found = hours(planned(MgrdJob(judge="7b", num_layers=16, train_samples=4)))
    table = {"filter, judge (7b)": 1.8, "SFT": 6.5, "RL update": 5.2}
    assert {name: found[name] for name in table} == pytest.approx(table, rel=0.25)


def test_phases_of_8b_come_near_the_table():
    found = hours(planned(config=MINI, sizes=MINI_FOUR))
    table = {"distillation rollouts": 4.0, "SFT": 3.0, "RL rollouts": 3.2}
    assert {name: found[name] for name in table} == pytest.approx(table, rel=0.25)
    assert found["RL update"] == pytest.approx(9.0, rel=0.3)


def test_hours_follow_the_numbers_of_samples():
    base, twice = hours(planned()), hours(planned(MgrdJob(prompts=1_000, rl_prompts=400)))
    assert twice == pytest.approx({name: 2 * value for name, value in base.items()})
    few = hours(planned(MgrdJob(train_samples=4)))
    assert few == pytest.approx({**base, "RL update": base["RL update"] / 4})
    assert hours(planned(MgrdJob(train_samples=99))) == base  # there are 16
    again = hours(planned(MgrdJob(reuse=False)))
    assert again["curation"] == again["distillation rollouts"]


def test_memory_of_a_phase_is_that_of_the_other_plans():
    found = {phase.name: phase.bytes for phase in planned(MgrdJob(value="lora")).phases}
    step = TrainingJob(3_100, accumulated=True)
    assert found["SFT"] == found["RL update"] == total(training_parts(R1, FOUR, step))
    assert found["RL critic"] == found["RL update"] + trained_bytes(R1, FOUR, step)
    working = footprint.activation_bytes(R1, FOUR, Workload(15_500, prompt=15_500, prefill_step=15_500), True)
    assert found["filter, evidence"] == FOUR.decoder + FOUR.audio + working + footprint.slack_bytes(FOUR)
    assert found["RL rollouts"] == total(inference_parts(R1, FOUR, mac(512), Workload(3_100, 32)))


def test_rows_are_those_that_fit():
    rollouts = planned(memory=36, chip=MAX).phases[0]
    assert "of 8 rows" in rollouts.formula and rollouts.bytes <= mac(36).usable
    assert "of 32 rows" in planned(memory=64, chip=MAX).phases[0].formula


def test_the_critic_learns_as_often_as_the_run_has_it():
    from mlx_audio_r1.train.rl_config import RLConfig

    assert RLConfig.critic_updates == CRITIC_UPDATES


# ---- what makes it practical


def test_choices_are_shorter_or_smaller_and_true():
    job = MgrdJob(judge="self", reuse=False, value="lora")
    plan = planned(job)
    assert plan.fits and plan.hours > DAY
    alone = {choice.words: choice for choice in plan.choices}
    assert alone["--train-samples 4"].hours == planned(replace(job, train_samples=4)).hours
    together = "--reuse --value group --judge 7b --train-samples 4 --num-layers 16"
    best = planned(MgrdJob(judge="7b", train_samples=4, num_layers=16))
    assert alone[together].hours == best.hours and alone[together].bytes == best.needed
    assert all(choice.hours < plan.hours for choice in plan.choices)
    smaller = "stepfun-ai/Step-Audio-2-mini --q-bits 4"
    assert [c.words for c in plan.choices[-2:]] == [smaller, f"{smaller} {together.replace('16', '14')}"]
    assert plan.choices[-1].hours < DAY < alone[together].hours


def test_a_round_within_a_day_that_fits_has_no_advice():
    plan = planned(MgrdJob(prompts=50, rl_prompts=20))
    assert plan.fits and plan.hours < DAY and plan.choices == ()


def test_where_nothing_is_long_but_it_does_not_fit_the_way_out_is_named():
    plan = planned(MgrdJob(prompts=2, rl_prompts=2), memory=48, chip=MAX, sizes=BF16)
    assert not plan.fits and any(c.fits and c.words == "--q-bits 4" for c in plan.choices)
    small = planned(MgrdJob(prompts=2, rl_prompts=2), memory=24, chip=CHIPS["m4-pro"])
    assert next(c.words for c in small.choices if c.fits).startswith("stepfun-ai/Step-Audio-2-mini")


# ---- the command


def asked(*arguments):
    return CliRunner().invoke(cli, ["plan", "stepfun-ai/Step-Audio-R1.1", "--q-bits", "4", "--mgrd",
                                    *arguments])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """The published shapes, without asking the hub."""
    from mlx_audio_r1 import memory

    monkeypatch.setattr(memory, "find_checkpoint", lambda name: memory.published_checkpoint(name))


def test_the_command_shows_phases_and_choices_as_estimates():
    done = asked("--memory", "512", "--judge", "7b")
    assert done.exit_code == 0, done.output
    assert "Every number is an estimate" in done.output and "M3 Ultra, 80 cores" in done.output
    assert "A round takes more than 24 h" in done.output and "--train-samples 4 --num-layers 16" in done.output
    assert asked("--memory", "24").exit_code == 1


def test_json_has_formulas_and_sources():
    facts = json.loads(asked("--memory", "512", "--rounds", "2", "--json").output)
    assert facts["estimate"] is True and facts["hours"] == 2 * facts["round_hours"]
    assert facts["phases"][0]["formula"].startswith("500 x (8 x 2,500 tokens / 1")
    assert facts["chip"]["source"] == "measured in MLX, Rapid-MLX#258" and "2P" in facts["formulas"]["rates"]


def test_what_cannot_be_planned_is_said(monkeypatch):
    import mlx.core as mx

    monkeypatch.setattr(mx, "device_info", lambda: {"device_name": "Some CPU"})
    assert "Some CPU: its rates are not known; say whose to plan with: --chip" in asked().output
    assert "at most 65,536 tokens" in asked("--memory", "512", "--tokens", "70000").output
