"""What `train rl` is told: the paper's defaults, what the algorithms change, and every refusal in one line."""

import pytest
from click.testing import CliRunner

from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import TrainingError
from mlx_audio_r1.tasks.rewards import RewardConfig
from mlx_audio_r1.train.config import resolve
from mlx_audio_r1.train.policy_losses import ALGORITHMS, PolicyLoss
from mlx_audio_r1.train.rl_config import RLConfig
from mlx_audio_r1.train.rollouts import RolloutConfig
from tests.helpers import run


def told(file=None, **given):
    return resolve("rl", given, file, kind=RLConfig)


def refusal(file=None, **given):
    with pytest.raises(TrainingError) as error:
        told(file, **given)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
    return str(error.value)


PAPER = {  # arXiv 2511.15848, section 4.3, and equation 7
    "algo": "ppo", "group_size": 16, "updates": 1, "gamma": 1.0, "lam": 1.0, "max_seq_length": 10_240,
}  # fmt: skip
OURS = {  # where it is silent: Open-Reasoner-Zero, or what a Mac can do
    "value": "group", "max_completion_length": None, "kv_bits": None, "train_samples": None, "resample": 3,
    "max_rows": 32, "batch_size": 8, "iters": 60, "critic_rollouts": None, "reward": {}, "rate": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [*PAPER.items(), *OURS.items()])
def test_defaults(name, value):
    assert getattr(told(), name) == value


def test_the_default_loss_is_the_papers():
    algorithm = told().algorithm
    assert algorithm.loss == PolicyLoss(clip_low=0.2, clip_high=0.2, dual_clip=None, aggregation="token",
                                        kl=0.0, tis_cap=None, longest=10_240)  # fmt: skip
    assert (algorithm.baseline, algorithm.whiten) == ("leave_one_out", True)
    assert not algorithm.mask_truncated and not algorithm.drop_agreeing


def test_the_default_reward_and_sampling_are_the_papers():
    assert told().rewards == RewardConfig(correct=0.8, reasoning=0.2, text_correct=1.0, truncated="zero",
                                          length="off", surrogate=0.0)  # fmt: skip
    assert told().rollouts == RolloutConfig(samples=16, max_tokens=10_240, max_sequence=10_240, temperature=1.0)


# ---- the algorithms


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_an_algorithm_is_what_its_paper_says_until_it_is_changed(algo):
    loss, config = ALGORITHMS[algo].loss, told(algo=algo, max_completion_length=100)
    mine = config.algorithm
    assert (mine.baseline, mine.whiten, mine.mask_truncated, mine.drop_agreeing) == (
        ALGORITHMS[algo].baseline, ALGORITHMS[algo].whiten, algo == "dapo", algo == "dapo")  # fmt: skip
    assert (mine.loss.clip_low, mine.loss.clip_high, mine.loss.kl, mine.loss.aggregation) == (
        loss.clip_low, loss.clip_high, loss.kl, loss.aggregation)  # fmt: skip
    assert mine.loss.longest == 100


@pytest.mark.parametrize(("given", "low", "high"), [
    ({}, 0.2, 0.2),
    ({"epsilon": 0.1}, 0.1, 0.1),
    ({"epsilon": 0.1, "epsilon_high": 0.3}, 0.1, 0.3),
    ({"epsilon_high": 0.3}, 0.2, 0.3),
    ({"algo": "grpo", "epsilon": 0.05}, 0.05, 0.05),
    ({"algo": "dapo"}, 0.2, 0.28),
    ({"algo": "dapo", "epsilon": 0.1}, 0.1, 0.28),
    ({"algo": "dapo", "epsilon_high": 0.2}, 0.2, 0.2),
])  # fmt: skip
def test_the_clip_range(given, low, high):
    loss = told(**given).algorithm.loss
    assert (loss.clip_low, loss.clip_high) == (low, high)


@pytest.mark.parametrize(("given", "changed"), [
    ({"whiten": False}, {"whiten": False}),
    ({"algo": "grpo", "whiten": True}, {"whiten": True}),
    ({"algo": "dapo", "mask_truncated": False}, {"mask_truncated": False}),
    ({"algo": "dapo", "dynamic_sampling": False}, {"drop_agreeing": False}),
    ({"dynamic_sampling": True}, {"drop_agreeing": True}),
    ({"reward": {"truncated": "mask"}}, {"mask_truncated": True}),
    ({"value": "none", "group_size": 1}, {"baseline": "none"}),
    ({"algo": "grpo", "value": "head"}, {"baseline": "mean_std"}),
])  # fmt: skip
def test_settings_of_an_algorithm_can_be_changed(given, changed):
    algorithm = told(**given).algorithm
    assert {name: getattr(algorithm, name) for name in changed} == changed


@pytest.mark.parametrize(("given", "changed"), [
    ({"algo": "grpo", "kl": 0.0}, {"kl": 0.0, "aggregation": "sequence"}),
    ({"kl": 0.1}, {"kl": 0.1}),
    ({"aggregation": "constant", "max_seq_length": 64}, {"aggregation": "constant", "longest": 64}),
    ({"dual_clip": 3.0}, {"dual_clip": 3.0}),
    ({"kv_bits": 8}, {"tis_cap": 2.0}),
    ({"kv_bits": 8, "tis_cap": 0.0}, {"tis_cap": None}),
    ({"kv_bits": 4, "tis_cap": 5.0}, {"tis_cap": 5.0}),
    ({"tis_cap": 1.5}, {"tis_cap": 1.5}),
])  # fmt: skip
def test_settings_of_the_loss_can_be_changed(given, changed):
    loss = told(**given).algorithm.loss
    assert {name: getattr(loss, name) for name in changed} == changed


@pytest.mark.parametrize(("given", "longest"), [
    ({}, 10_240), ({"max_seq_length": 512}, 512), ({"max_completion_length": 64}, 64),
    ({"max_completion_length": 999, "max_seq_length": 512}, 512),
])  # fmt: skip
def test_the_longest_reply(given, longest):
    config = told(**given)
    assert config.longest == config.rollouts.max_tokens == config.algorithm.loss.longest == longest
    assert (config.rewards.length_limit, config.rewards.length_free) == (longest, int(0.8 * longest))


def test_reward_terms_keep_what_is_given_of_lengths():
    rewards = told(reward={"length": "overlong", "length_free": 10, "length_limit": 20}).rewards
    assert (rewards.length, rewards.length_free, rewards.length_limit) == ("overlong", 10, 20)


@pytest.mark.parametrize(("text", "weights"), [
    (None, []), ("[1, 0.5]", [1, 0.5]), ('{"short": 2}', {"short": 2}),
])  # fmt: skip
def test_weights_of_reward_functions(text, weights):
    assert told(reward_weights=text).weights == weights


# ---- refused


NAN = float("nan")
BAD = [
    ({"algo": "reinforce"}, "algo is 'reinforce'; choose from ppo, grpo, rloo, dr_grpo, dapo"),
    ({"value": "gae"}, "value is 'gae'; choose from group, none, head, lora"),
    ({"aggregation": "mean"}, "aggregation is 'mean'; choose from token, sequence, constant"),
    ({"kv_bits": 5}, "kv_bits is 5; choose from 2, 3, 4, 6, 8"),
    ({"kv_bits": "many"}, "kv_bits is 'many', expected a whole number"),
    ({"group_size": 0}, "group_size is 0; 1 is the least"),
    ({"group_size": 1}, "group_size is 1, and samples of a prompt are each other's baseline"),
    ({"group_size": 2.5}, "group_size is 2.5, expected a whole number"),
    ({"max_completion_length": 0}, "max_completion_length is 0; 1 is the least"),
    ({"max_rows": 0}, "max_rows is 0; 1 is the least"),
    ({"updates": 0}, "updates is 0; 1 is the least"),
    ({"critic_updates": -1}, "critic_updates is -1; 0 is the least"),
    ({"critic_warmup": -1}, "critic_warmup is -1; 0 is the least"),
    ({"critic_learning_rate": -1.0}, "critic_learning_rate is -1.0; 0.0 is the least"),
    ({"critic_learning_rate": NAN}, "critic_learning_rate is nan; 0.0 is the least"),
    ({"epsilon": -0.1}, "epsilon is -0.1; 0.0 is the least"),
    ({"epsilon": NAN}, "epsilon is nan"),
    ({"epsilon_high": -1}, "epsilon_high is -1.0; 0.0 is the least"),
    ({"dual_clip": 0.5}, "dual_clip is 0.5; 1.0 is the least"),
    ({"kl": -1}, "kl is -1.0; 0.0 is the least"),
    ({"resample": -1}, "resample is -1; 0 is the least"),
    ({"train_samples": 0}, "train_samples is 0; 1 is the least"),
    ({"tis_cap": -2}, "tis_cap is -2.0; 0.0 is the least"),
    ({"gamma": 1.1}, "gamma is 1.1; give a share from 0 to 1"),
    ({"gamma": NAN}, "gamma is nan; give a share from 0 to 1"),
    ({"lam": -0.1}, "lam is -0.1; give a share from 0 to 1"),
    ({"learning_rate": -1}, "learning_rate is -1.0; give a number from 0 up"),
    ({"batch_size": 0}, "batch_size is 0; 1 is the least"),
    ({"max_seq_length": 4}, "max_seq_length is 4; 8 is the least"),
    ({"whiten": "yes"}, "whiten is 'yes', expected true or false"),
    ({"fine_tune_type": "full", "value": "lora"}, "fine_tune_type full goes with neither"),
    ({"fine_tune_type": "full", "kl": 0.1}, "fine_tune_type full goes with neither"),
    ({"fine_tune_type": "full", "algo": "grpo"}, "fine_tune_type full goes with neither"),
    ({"reward": {"corect": 1}}, "reward: unknown key 'corect'; did you mean correct?"),
    ({"reward": {"correct": "much"}}, "reward: correct is 'much', expected a number"),
    ({"reward": {"correct": -1}}, "reward correct -1.0: not negative, not infinite"),
    ({"reward": {"truncated": "keep"}}, "reward truncated 'keep': one of zero, mask"),
    ({"reward": {"length": "short"}}, "reward length 'short': one of off, overlong, linear"),
    ({"reward": {"length_free": 30}, "max_seq_length": 20}, "reward length_free 30: from 0 to below 20"),
    ({"reward": [1]}, "reward is [1], expected a mapping"),
    ({"reward_weights": "1, 2"}, "reward_weights is '1, 2'; give [1, 0.5] or"),
    ({"reward_weights": "3"}, "reward_weights is '3'; give [1, 0.5] or"),
    ({"grop_size": 4}, "unknown key 'grop_size'; did you mean group_size?"),
    ({"train_mode": "sft"}, "train_mode is 'sft': run audio-r1 train sft"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "says"), BAD, ids=[str(given) for given, _ in BAD])
def test_a_value_that_cannot_be_is_said_in_one_line(given, says):
    assert says in refusal(**given)


@pytest.mark.parametrize(("key", "value"), [
    ("beta", 0.1), ("label_smoothing", 0.1), ("pack", True), ("mask_prompt", False),
    ("grad_accumulation_steps", 2), ("compile", True), ("over_long", "drop"), ("train_encoder", True),
    ("test", True),
])  # fmt: skip
def test_keys_of_other_recipes_are_refused(key, value):
    assert refusal(**{key: value}) == f"{key} is not used by rl: leave it out"


@pytest.mark.parametrize("key", ["algo", "group_size", "updates", "value", "reward"])
@pytest.mark.parametrize("mode", ["sft", "dpo"])
def test_keys_of_reinforcement_learning_are_for_it_alone(mode, key):
    with pytest.raises(TrainingError, match=f"unknown key '{key}'"):
        resolve(mode, {key: getattr(RLConfig(), key)})


def test_a_yaml_file_says_the_same_and_the_command_line_beats_it(tmp_path):
    file = tmp_path / "rl.yaml"
    file.write_text("algo: grpo\nkl: 1e-3\ngroup_size: 4\nwhiten: true\nlearning_rate: 2e-5\n"
                    "reward:\n  correct: 1\n  reasoning: 0\n")  # fmt: skip
    config = told(file, group_size=8)
    assert (config.algo, config.algorithm.loss.kl, config.group_size) == ("grpo", 1e-3, 8)
    assert config.algorithm.whiten and config.rate == 2e-5
    assert (config.rewards.correct, config.rewards.reasoning) == (1.0, 0.0)
    file.write_text("algo: grpo\nclip: 0.2\n")
    assert refusal(file).startswith(f"{file}: unknown key 'clip'")


# ---- the program


@pytest.mark.parametrize(("args", "code", "says"), [
    (["--algo", "reinforce"], 2, "Invalid value for '--algo'"),
    (["--group-size", "0"], 2, "Invalid value for '--group-size'"),
    (["--gamma", "2"], 2, "Invalid value for '--gamma'"),
    (["--kv-bits", "5"], 2, "Invalid value for '--kv-bits'"),
    (["--reward", "correct"], 2, "expected KEY=VALUE"),
    (["--reward", "correct=much"], 1, "expected a number"),
    (["--reward", "corect=1"], 1, "did you mean correct?"),
    (["--group-size", "1"], 1, "each other's baseline"),
    (["--beta", "0.1"], 2, "No such option"),
    (["--compile"], 1, "compile is not used by rl"),
    (["-c", "nowhere.yaml"], 1, "nowhere.yaml: not readable as YAML"),
    (["--data", "nowhere"], 1, "nowhere: no such folder"),
    (["--reward-weights", "x"], 1, "reward_weights is 'x'"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)  # fmt: skip
def test_the_program_refuses_in_one_line(args, code, says):
    found = CliRunner().invoke(cli, ["train", "rl", *args])
    assert found.exit_code == code and says in found.output
    assert "Traceback" not in found.output


def test_the_program_in_a_process_of_its_own_ends_without_a_traceback():
    done = run("train", "rl", "--value", "lora", "--fine-tune-type", "full", "--data", "nowhere")
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"Error: fine_tune_type full goes with neither")
    assert done.stderr.count(b"\n") == 1
