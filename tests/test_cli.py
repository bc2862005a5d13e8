"""The program as a person or a script uses it: stdout is the result, stderr the rest, exit codes."""

import json
import re
import subprocess
import sys
import wave
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from mlx_audio_r1 import __version__
from mlx_audio_r1.cli.main import COMMANDS, cli
from tests.helpers import run

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "tests" / "golden" / "tiny-fp32")
GREEDY = ["--model", TINY, "--temp", "0", "-m", "24", "--thinking-budget", "6"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cli") / "tone.wav"
    samples = (np.sin(np.arange(16_000) * 0.17) * 12_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return str(path)


def test_the_answer_is_on_stdout_and_the_thinking_on_stderr(clip):
    shown = run("ask", clip, "-p", "What?", *GREEDY)
    hidden = run("ask", clip, "-p", "What?", *GREEDY, "-R")
    reply = json.loads(run("ask", clip, "-p", "What?", *GREEDY, "--json").stdout)
    assert shown.returncode == hidden.returncode == 0
    assert shown.stdout == hidden.stdout == (reply["answer"] + "\n").encode()
    assert reply["think"].encode() in shown.stderr and reply["think"].encode() not in hidden.stderr
    assert b"\x1b" not in shown.stderr  # no colours into a pipe


def test_json_has_the_keys_of_the_batch_record(clip):
    reply = json.loads(run("ask", clip, clip, "-p", "What?", *GREEDY, "--json").stdout)
    assert reply["files"] == [clip, clip] and reply["duration"] == 2.0
    assert reply["usage"]["audio_tokens"] == 26 and reply["finish_reason"] == "length"
    assert {"think", "answer", "timings", "model"} <= reply.keys()


def test_sound_and_prompt_from_stdin(clip):
    sound = run("ask", "-", "-p", "What?", *GREEDY, stdin=Path(clip).read_bytes())
    prompt = run("ask", clip, "-p", "-", *GREEDY, stdin=b"What?\n")
    plain = run("ask", clip, "-p", "What?", *GREEDY)
    assert sound.stdout == prompt.stdout == plain.stdout != b""


def test_choices_and_order_of_files_change_the_prompt(clip, tmp_path):
    other = tmp_path / "other.wav"
    other.write_bytes(Path(clip).read_bytes()[:-8000])
    outputs = {
        run("ask", *files, "-p", "Which?", *GREEDY, *extra).stdout
        for files in ([clip, str(other)], [str(other), clip])
        for extra in ([], ["--choices", "first|second"])
    }
    assert len(outputs) == 4


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["ask"], 2, "Nothing to answer"),
    (["ask", "-", "-p", "-"], 2, "Only one"),
    (["ask", "x.wav", "--nonsense"], 2, "No such option"),
    (["ask", "x.wav", "-m", "0"], 2, "max-tokens"),
    (["nonsense"], 2, "No such command"),
    (["ask", "no-such.wav", "--model", TINY], 1, "no-such.wav"),
    (["ask", ".", "--model", TINY], 1, "."),
    (["ask", __file__, "--model", TINY], 1, "test_cli.py"),
    (["ask", "x.wav", "--model", "./nowhere"], 1, "nowhere"),
    (["ask", "x.wav", "--model", TINY, "--temp", "-3"], 1, "temperature"),
    (["ask", "x.wav", "--model", TINY, "--chunk-seconds", "30"], 1, "29.98"),
    (["ask", "x.wav", "--model", TINY, "--choices", "only"], 1, "choices"),
    (["info", "./nowhere"], 1, "nowhere"),
])
def test_bad_input_is_one_line_without_a_traceback(arguments, code, words):
    done = run(*arguments)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert done.returncode == code and done.stdout == b""
    assert words in last and last.startswith("Error: ")
    assert b"Traceback" not in done.stderr
    if code == 1:
        assert len([line for line in done.stderr.splitlines() if line.startswith(b"Error")]) == 1


def test_info_says_what_the_files_hold():
    facts = json.loads(run("info", TINY, "--json", "--context", "100").stdout)
    assert facts["model"]["stored_values"] == 1_330_752  # as the fixture's own notes count them
    # 2 * 4 layers * 2 heads * 16 values, 4 bytes each as the weights are float32, 100 tokens
    assert facts["memory"]["kv_100_tokens_bytes"] == 2 * 4 * 2 * 16 * 4 * 100
    assert facts["machine"]["memory_bytes"] > 1e9
    text = run("info", TINY).stdout.decode()
    assert "1,330,752" in text and "blas" in text


def test_version():
    assert run("--version").stdout.decode().split()[-1] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_program(shell):
    assert "_AUDIO_R1_COMPLETE" in run("completion", shell).stdout.decode()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_in_its_help_and_stands_in_the_readme(name):
    done = CliRunner().invoke(cli, [name, "-h"])
    assert done.exit_code == 0 and "Examples:" in done.output
    assert f"audio-r1 {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def helps_of(name: str) -> list[str]:
    """The help of a command and of its subcommands."""
    command = cli.get_command(None, name)
    below = command.list_commands(None) if isinstance(command, click.Group) else []
    return [CliRunner().invoke(cli, [name, *sub, "-h"]).output for sub in [[], *([b] for b in below)]]


def options_of(name: str) -> set[str]:
    listed = "".join(text.split("Options:")[1] for text in helps_of(name))
    return set(re.findall(r"--?[A-Za-z][\w-]*", listed))


def test_every_option_the_readme_shows_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = {name: options_of(name) for name in COMMANDS}
    shown = re.findall(r"^\s*\$?\s*(.*audio-r1 .*)$", readme, re.M)
    lines = [part for line in shown for part in line.split("|")]
    checked = 0
    for line in lines:
        found = re.search(r"audio-r1 (\w+)(.*)", line)
        if not found or found[1] not in known:
            continue
        for option in re.findall(r"(?<=\s)--?[A-Za-z][\w-]*", found[2].split("#")[0]):
            assert option in known[found[1]], f"README shows {option} for {found[1]}"
            checked += 1
    assert checked >= 10


def test_examples_in_the_help_use_options_that_exist():
    for name in COMMANDS:
        known = options_of(name)
        for text in helps_of(name):
            examples = text.split("Examples:")[1].split("Options:")[0]
            for line in examples.splitlines():
                part = line.split(f"audio-r1 {name}")[-1].split("|")[0] if f"audio-r1 {name}" in line else ""
                assert set(re.findall(r"(?<=\s)--?[A-Za-z][\w-]*", part)) <= known, line


def test_the_model_is_chosen_by_option_then_environment_then_pulled(tmp_path, clip):
    by_env = run("ask", clip, *GREEDY[2:], env={"AUDIO_R1_MODEL": TINY})
    assert by_env.returncode == 0 and b"nano" not in by_env.stderr
    wrong = run("ask", clip, env={"AUDIO_R1_MODEL": "./nowhere"})
    assert b"nowhere" in wrong.stderr and wrong.returncode == 1
    option_wins = run("ask", clip, *GREEDY, env={"AUDIO_R1_MODEL": "./nowhere"})
    assert option_wins.returncode == 0


def test_the_library_does_not_touch_transformers_of_others():
    code = (
        "from mlx_audio_r1.cli import startup; startup.own_process = True; startup.import_engine()\n"
        "import sys; assert 'transformers' not in sys.modules\n"
        "import transformers; assert transformers.__version__[0].isdigit()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
