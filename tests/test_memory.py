"""What is known before anything is loaded: headers of folders and of a hub on loopback, and refusals."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlx_audio_r1 import memory
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.errors import CheckpointError
from tests.convert.loopback_hub import Fault, LoopbackHub
from tests.helpers import run

GOLDEN = Path(__file__).parent / "golden"
TINY = GOLDEN / "tiny-bf16"  # three shards
R11 = "stepfun-ai/Step-Audio-R1.1"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    import soundfile

    path = tmp_path_factory.mktemp("memory") / "tone.wav"
    soundfile.write(path, np.sin(np.arange(16_000) * 0.17) * 0.4, 16_000)
    return str(path)


@pytest.fixture
def huge(tmp_path) -> Path:
    """A checkpoint whose header speaks of 67 TB: it can be planned, and nothing else."""
    folder = tmp_path / "huge"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    header, end = {}, 0
    for line in (GOLDEN / "tensors_r1_32b.tsv").read_text().splitlines():
        name, shape = line.split("\t")
        sizes = [int(n) for n in shape.split("x")]
        begin, end = end, end + 2_000 * int(np.prod(sizes))
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 300 << 20)  # a hole: no disk is used
    return folder


@pytest.fixture
def hub(huge):
    with LoopbackHub(folders={"someone/tiny": TINY, "someone/huge": huge, R11: TINY}) as running:
        yield running


def test_a_folder_tells_its_sizes_by_its_headers():
    tiny = memory.find_checkpoint(TINY)
    assert tiny.sizes.decoder + tiny.sizes.audio == 2 * 1_330_752 == 2 * tiny.stored_values
    assert (tiny.sizes.value_bytes, tiny.sizes.tied, tiny.source) == (2, False, str(TINY))
    assert memory.is_small(TINY)


def test_a_broken_header_names_the_file(tmp_path):
    shutil.copytree(TINY, tmp_path / "broken")
    shard = sorted((tmp_path / "broken").glob("*.safetensors"))[1]
    shard.write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=shard.name):
        memory.find_checkpoint(tmp_path / "broken")


def test_published_models_need_nobody():
    known = memory.published_checkpoint(R11)
    assert known.stored_values == 33_487_033_600 and known.config.context_length == 65_536
    assert memory.published_checkpoint("someone/else") is None


def test_this_machine_offers_less_than_it_has():
    machine = memory.this_machine()
    assert 0 < machine.usable < machine.memory == memory.total_bytes()
    assert machine.usable <= machine.raised <= machine.memory


def test_info_and_plan_of_a_repository_fetch_headers_alone(hub, tmp_path):
    env = hub.environment(tmp_path / "home")
    facts = json.loads(run("info", "someone/tiny", "--json", env=env).stdout)
    assert facts["model"]["stored_values"] == 1_330_752
    assert facts["model"]["source"] == "headers on the hub"
    again = run("plan", "someone/tiny", "--json", env=env)  # config.json is in the cache by now
    assert again.returncode == 0 and json.loads(again.stdout)["parts"][0]["bytes"] == 1_380_096
    fetched = [line for line in hub.requests if line.startswith("GET /cdn")]
    assert len(fetched) == 2 * 3 and all("bytes=0-100000" in line for line in fetched)


def test_what_stands_in_the_cache_is_not_asked_for_again(hub, tmp_path):
    env = hub.environment(tmp_path / "home")
    files = [path.name for path in TINY.iterdir()]
    code = f"from huggingface_hub import hf_hub_download as f\nfor name in {files}: f('someone/tiny', name)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=True, capture_output=True)
    hub.requests.clear()
    facts = json.loads(run("info", "someone/tiny", "--json", env=env).stdout)
    assert facts["model"]["stored_values"] == 1_330_752 and "snapshots" in facts["model"]["source"]
    assert hub.requests == []


def test_a_closed_page_is_planned_by_published_shapes_and_said(hub, tmp_path):
    hub.faults.append(Fault("config.json", status=403, code="GatedRepo"))
    env = hub.environment(tmp_path / "home")
    planned = json.loads(run("plan", R11, "--q-bits", "4", "--memory", "36", "--json", env=env).stdout)
    assert planned["fits"] and planned["parts"][0]["bytes"] == 18_469_627_904
    assert planned["source"] == "published shapes" and "gated" in planned["note"]
    unknown = run("plan", "someone/tiny", env=env)
    assert unknown.returncode == 1 and b"gated" in unknown.stderr and unknown.stdout == b""


@pytest.mark.parametrize(("repo", "endpoint", "words"), [
    ("someone/nothing", None, b"no such repository"),
    ("someone/tiny", "http://127.0.0.1:9", b"cannot reach"),
])
def test_a_hub_that_says_no_is_one_line(hub, tmp_path, repo, endpoint, words):
    env = hub.environment(tmp_path / "home")
    done = run("info", repo, env=env | ({"HF_ENDPOINT": endpoint} if endpoint else {}))
    assert done.returncode == 1 and done.stdout == b""
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


# ---- ask refuses


def test_ask_refuses_what_does_not_fit_before_loading_it(huge, clip):
    done = run("ask", clip, "-p", "What?", "--model", str(huge), "-m", "100")
    line = done.stderr.decode().strip()
    assert done.returncode == 1 and done.stdout == b"" and len(line.splitlines()) == 1
    assert line.startswith("Error: one reply of 3") and "needs 66" in line and "--force" in line
    forced = run("ask", clip, "-p", "What?", "--model", str(huge), "--force")
    assert forced.returncode == 1 and b"model.safetensors" in forced.stderr  # went on to load it


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["chat"]])
def test_serve_and_chat_refuse_it_too(huge, command):
    done = run(*command, "--model", str(huge))
    line = done.stderr.decode().strip()
    assert done.returncode == 1 and line.startswith("Error: one reply of") and "--force" in line
    forced = run(*command, "--model", str(huge), "--force")
    assert forced.returncode == 1 and b"model.safetensors" in forced.stderr


def test_ask_refuses_before_fetching_weights(hub, tmp_path, clip):
    done = run("ask", clip, "--model", "someone/huge", env=hub.environment(tmp_path / "home"))
    assert done.returncode == 1 and b"needs" in done.stderr
    assert all("bytes=" in line for line in hub.requests if "GET /cdn" in line)


def planned(*arguments: str, cache: Path) -> Result:
    """`audio-r1 plan` in this process, with nothing pulled."""
    return CliRunner(env={"AUDIO_R1_CACHE": str(cache)}).invoke(cli, ["plan", *arguments])


def test_the_plan_says_what_fits_not_and_exits_with_1(huge, tmp_path):
    done = planned(str(huge), "--memory", "64", cache=tmp_path)
    assert done.exit_code == 1 and "does not fit" in done.stdout
    assert "No setting here makes it fit." in done.stdout


def test_the_default_plan_is_of_the_model_that_pull_makes(tmp_path):
    done = planned("--memory", "36", cache=tmp_path)
    assert done.exit_code == 0 and done.stderr == ""
    assert "18.47 GB" in done.stdout and "27,392" in done.stdout and "fits, 2.93 GB to spare" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    refused = planned("--memory", "36", "--context", "32768", cache=tmp_path)
    assert refused.exit_code == 1 and "sudo sysctl iogpu.wired_limit_mb=29696 (30.36 GB)" in refused.stdout
    train = json.loads(planned("--train", "--memory", "64", "--max-seq-length", "10240", "--json",
                               cache=tmp_path).stdout)
    assert train["fits"] and round(train["needed"] / 1e9, 1) == 35.7


@pytest.mark.parametrize("arguments", [
    ["--context", "65537"], ["--seconds", "6000"], ["--train", "--max-seq-length", "70000"],
])
def test_what_the_model_cannot_read_is_not_planned(tmp_path, arguments):
    done = planned(*arguments, cache=tmp_path)
    assert done.exit_code == 1 and "at most 65,536" in done.stderr and done.stdout == ""


def test_a_reply_is_kept_within_the_memory_there_is(capsys):
    from mlx_audio_r1.cli.room import keep_within

    assert keep_within(None, {"seed": 1}, 32_000) == {"seed": 1}
    assert keep_within(20_000, {"max_tokens": 100}, 32_000) == {"max_tokens": 100}
    assert keep_within(40_000, {}, 32_000) == {} and capsys.readouterr().err == ""
    assert keep_within(20_000, {}, 32_000) == {"max_tokens": 20_000}
    assert "20,000 tokens" in capsys.readouterr().err
