"""Straight from the hub, through huggingface_hub's own client against a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress

import pytest

from mlx_audio_r1.convert import Options, Recipe, convert, find_pulled
from tests.convert.checkpoints import BF16, copy_of, folder_bytes, read_all, read_shard
from tests.convert.loopback_hub import Fault
from tests.helpers import run

REPO = "stepfun-ai/Step-Audio-R1.1"
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
Q4 = {"quantize": True}


@pytest.fixture
def served(hub, tmp_path):
    """The tiny checkpoint as a repository with a card and a licence."""
    folder = copy_of(BF16, tmp_path / "served")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "LICENSE").write_text("Apache-2.0")
    hub.folders[REPO] = folder
    return folder


def shard_fetches(hub) -> list[str]:
    """Whole-file requests for shards; the ranged ones at the start read headers."""
    return [r.rpartition("/")[2] for r in hub.requests if r.startswith("GET /cdn/") and "bytes=" not in r]


def test_same_weights_as_from_a_folder(hub, served, hub_driver, tmp_path):
    target = tmp_path / "out"
    answer = hub_driver.run(REPO, target, recipe=Q4)
    assert answer["ok"] == str(target)
    convert(str(served), tmp_path / "local", Recipe(quantize=True))
    ours, local = folder_bytes(target), folder_bytes(tmp_path / "local")
    assert ours.pop("README.md") != local.pop("README.md")  # this one names the repository
    assert ours == local
    assert shard_fetches(hub) == SHARDS
    card = (target / "README.md").read_text()
    assert f"base_model: {REPO}" in card and "license: apache-2.0" in card
    assert f"audio-r1 convert --hf-path {REPO} --mlx-path out -q\n" in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["local", "out", "served"]


def test_one_source_shard_on_the_disk_at_a_time(hub, served, hub_driver, tmp_path):
    """Sampled while it runs, slowly: a shard that was converted is gone before the next comes."""
    import threading

    hub.bytes_per_second = 2e6
    target, most = tmp_path / "out", set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            with suppress(FileNotFoundError):  # not there yet, or no more
                names = os.listdir(tmp_path / "out.partial" / "source")
                most.add(sum(name.endswith(".safetensors") for name in names))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        assert hub_driver.run(REPO, target, recipe=Q4, step_delay=0.005)["ok"]
    finally:
        stop.set()
        looking.join()
    assert most == {0, 1}


def test_keep_source_leaves_the_shards_in_the_cache(hub, hub_driver, tmp_path):
    hub.folders["a/kept"] = BF16
    assert hub_driver.run("a/kept", tmp_path / "a", recipe=Q4, options={"keep_source": True})["ok"]
    assert shard_fetches(hub) == SHARDS
    assert hub_driver.run("a/kept", tmp_path / "b")["ok"]
    assert shard_fetches(hub) == SHARDS, "taken from the cache"
    assert hub_driver.run("a/kept", tmp_path / "c")["ok"], "and still there"
    assert shard_fetches(hub) == SHARDS


def test_killed_while_fetching_the_next_run_goes_on(hub, hub_driver, tmp_path):
    repo = "stepfun-ai/killed"
    hub.folders[repo] = BF16
    assert hub_driver.run(repo, tmp_path / "reference", recipe=Q4)["ok"]
    expected = read_all(tmp_path / "reference")
    target = tmp_path / "out"
    first = len(read_shard(BF16 / SHARDS[0]))
    assert hub_driver.run(repo, target, recipe=Q4, kill_after=first + 3) == {}  # inside the second
    for share in (0.0, 0.4, 0.9):  # of the third
        hub.faults = [Fault(rf"GET /cdn/{repo}/{SHARDS[2]}", stall=share)]
        assert hub_driver.run_and_kill(repo, target, hub.stalled.acquire, recipe=Q4) == {}
        assert not target.exists()
    hub.faults = []
    hub.requests.clear()
    assert hub_driver.run(repo, target, recipe=Q4)["ok"]
    # The first is converted, the second lay there whole when the run was killed.
    assert shard_fetches(hub) == [SHARDS[2]]
    assert read_all(target) == expected
    assert not (tmp_path / "out.partial").exists()


def test_resuming_stays_with_the_commit_it_began_with(hub, served, hub_driver, tmp_path):
    assert hub_driver.run(REPO, tmp_path / "out", recipe=Q4, kill_after=5) == {}
    hub.requests.clear()
    assert hub_driver.run(REPO, tmp_path / "out", recipe=Q4)["ok"]
    assert f"GET /api/models/{REPO}/revision/{hub.commit_of(REPO)}" in hub.requests


def test_connection_cut_inside_a_shard_is_survived(hub, hub_driver, tmp_path):
    hub.folders["a/cut"] = BF16
    request = rf"GET /cdn/a/cut/{SHARDS[0]}"
    # First the header breaks off, then it arrives, then the shard itself breaks off.
    hub.faults = [Fault(request, cut=0.5, times=1), Fault(request, times=1), Fault(request, cut=0.5, times=1)]
    assert hub_driver.run("a/cut", tmp_path / "out", recipe=Q4)["ok"]
    assert shard_fetches(hub) == [SHARDS[0], *SHARDS]


def test_server_error_that_passes_is_survived(hub, hub_driver, tmp_path):
    hub.folders["a/hiccup"] = BF16
    hub.faults = [
        Fault(r"GET /api/models/a/hiccup", status=503, times=1),
        Fault(rf"GET /cdn/a/hiccup/{SHARDS[1]}", status=500, times=1),
    ]
    assert hub_driver.run("a/hiccup", tmp_path / "out", recipe=Q4)["ok"]


def test_hub_that_disappears_midway_loses_nothing(hub, hub_driver, tmp_path):
    hub.folders["a/gone"] = BF16
    hub.faults = [Fault(rf"(GET|HEAD) .*{SHARDS[2]}$", status=403)]
    hub.faults[0].pattern = rf"HEAD .*/a/gone/resolve/.*{SHARDS[2]}$"
    answer = hub_driver.run("a/gone", tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "HubError" and "(403)" in answer["error"]
    hub.faults, hub.requests = [], []
    answer = hub_driver.run("a/gone", tmp_path / "out", recipe=Q4)
    assert answer["ok"] and answer["said"][0].startswith("going on with")
    assert [r.rpartition("/")[2] for r in hub.requests if r.startswith("GET /cdn/") and "=0-" not in r] == [
        SHARDS[2]
    ]


REFUSALS = {
    "a/gated": (
        Fault("/a/gated", status=403, code="GatedRepo"),
        "a/gated is gated: accept its terms at {endpoint}/a/gated, then run: hf auth login",
    ),
    "a/gated-out": (
        Fault("/a/gated-out", status=401, code="GatedRepo"),
        "a/gated-out is gated: accept its terms at {endpoint}/a/gated-out, then run: hf auth login",
    ),
    "a/no-token": (
        Fault("/a/no-token", status=401),
        "a/no-token: the hub asks for a valid token (401); run: hf auth login",
    ),
    "a/private": (
        Fault("/a/private", status=401, code="RepoNotFound"),
        "a/private: no such folder here and no such repository at {endpoint}/a/private; "
        "if it is private, run: hf auth login",
    ),
    "a/missing": (
        None,
        "a/missing: no such folder here and no such repository at {endpoint}/a/missing; "
        "if it is private, run: hf auth login",
    ),
    "a/forbidden": (
        Fault("/a/forbidden", status=403),
        "a/forbidden: this token may not do that (403); see {endpoint}/a/forbidden, or run: hf auth login",
    ),
    "not a name": (
        None,
        "not a name: no such folder, and not a repository name like stepfun-ai/Step-Audio-R1.1",
    ),
}


@pytest.mark.parametrize("repo", REFUSALS)
def test_refusals_are_one_line(hub, hub_driver, tmp_path, repo):
    fault, line = REFUSALS[repo]
    hub.faults = [fault] if fault else []
    answer = hub_driver.run(repo, tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "HubError"
    assert answer["error"] == line.format(endpoint=hub.endpoint)
    assert list(tmp_path.iterdir()) == []


def test_gate_that_closes_before_the_files_is_one_line(hub, hub_driver, tmp_path):
    """The real hub tells everybody what a gated repository holds, and refuses the files."""
    hub.folders["a/gate"] = BF16
    hub.faults = [Fault("/a/gate/resolve/", status=403, code="GatedRepo")]
    answer = hub_driver.run("a/gate", tmp_path / "out", recipe=Q4)
    assert "is gated: accept its terms" in answer["error"]
    assert list(tmp_path.iterdir()) == []


def test_unknown_revision_is_one_line(hub, hub_driver, tmp_path):
    hub.folders["a/rev"] = BF16
    answer = hub_driver.run("a/rev", tmp_path / "out", options={"revision": "v9"})
    assert answer["error"] == (
        f"a/rev has no revision v9; {hub.endpoint}/a/rev/tree/main shows what there is"
    )


def test_file_that_vanished_is_one_line(hub, hub_driver, tmp_path):
    hub.folders["a/file"] = BF16
    hub.faults = [Fault("resolve/.*/config.json", status=404, code="EntryNotFound")]
    answer = hub_driver.run("a/file", tmp_path / "out")
    assert answer["error"].startswith("a/file has no file config.json; ")


def test_missing_shard_is_named(hub, served, hub_driver, tmp_path):
    (served / SHARDS[1]).unlink()
    answer = hub_driver.run(REPO, tmp_path / "out")
    assert answer["error"] == f"{REPO}: the shard {SHARDS[1]} is missing"


def test_wrong_content_of_the_right_size_is_caught_and_not_kept(hub, hub_driver, tmp_path):
    hub.folders["a/garbled"] = BF16
    hub.faults = [Fault(rf"GET /cdn/a/garbled/{SHARDS[1]}", garble=True)]
    hub.faults.insert(0, Fault(rf"GET /cdn/a/garbled/{SHARDS[1]}", times=1))  # the header comes right
    answer = hub_driver.run("a/garbled", tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "CheckpointError"
    assert answer["error"].startswith(f"{SHARDS[1]}: what arrived is not what a/garbled holds; it was deleted")
    assert not (tmp_path / "out").exists()
    hub.faults = []
    assert hub_driver.run("a/garbled", tmp_path / "out", recipe=Q4)["ok"]


def test_wrong_size_is_one_line(hub, hub_driver, tmp_path):
    hub.folders["a/short"] = BF16
    request = rf"GET /cdn/a/short/{SHARDS[1]}"
    hub.faults = [Fault(request, times=1), Fault(request, short=True)]
    answer = hub_driver.run("a/short", tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "HubError" and "\n" not in answer["error"]
    size = (BF16 / SHARDS[1]).stat().st_size
    assert f"should be of size {size} but has size {size // 2}" in answer["error"]
    assert not (tmp_path / "out").exists()


def test_garbage_instead_of_a_header_is_one_line(hub, hub_driver, tmp_path):
    hub.folders["a/garbage"] = BF16
    hub.faults = [Fault(r"GET /cdn/a/garbage", garble=True)]
    answer = hub_driver.run("a/garbage", tmp_path / "out", recipe=Q4)
    assert answer["kind"] == "CheckpointError" and SHARDS[0] in answer["error"]
    assert "\n" not in answer["error"]


def test_full_disk_while_fetching_is_one_line(hub, hub_driver, tmp_path):
    hub.folders["a/full"] = BF16
    answer = hub_driver.run("a/full", tmp_path / "out", recipe=Q4, file_limit=200_000)
    assert answer["kind"] == "DiskError" and "the disk is full" in answer["error"]


def test_no_network_is_one_line(tmp_path):
    nobody = "http://127.0.0.1:9"
    environment = {"HF_ENDPOINT": nobody, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = run("convert", "--hf-path", "a/b", "--mlx-path", str(tmp_path / "out"), env=environment)
    assert done.returncode == 1 and done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: cannot reach http://127.0.0.1:9/a/b") and "check the network" in line


def test_offline_is_one_line(tmp_path):
    done = run("convert", "--hf-path", "a/b", "--mlx-path", str(tmp_path / "out"), env={"HF_HUB_OFFLINE": "1"})
    assert done.stderr.decode() == (
        "Error: a/b: the hub is switched off by HF_HUB_OFFLINE; unset it, or give a folder\n"
    )


def test_pull_fetches_once_and_is_found(hub, served, tmp_path):
    environment = hub.environment(tmp_path / "home") | {"AUDIO_R1_CACHE": str(tmp_path / "cache")}
    done = run("pull", REPO, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path / "cache" / "Step-Audio-R1.1-4bit"
    assert done.stdout.decode() == f"{folder}\n" and done.stderr == b""
    assert json.loads((folder / "config.json").read_text())["quantization"]["bits"] == 4
    assert find_pulled(tmp_path / "cache") == folder
    hub.requests.clear()
    again = run("pull", REPO, env=environment)
    assert again.stdout == done.stdout and hub.requests == []


def test_newest_pulled_model_is_the_one_found(tmp_path):
    assert find_pulled(tmp_path / "nowhere") is None
    for age, name in enumerate(("old", "new", "older")):
        shutil.copytree(BF16, tmp_path / name)
        moment = {"old": 200, "new": 300, "older": 100}[name]
        os.utime(tmp_path / name / "config.json", (moment, moment))
        assert age < 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "qwen2"}')
    assert find_pulled(tmp_path) == tmp_path / "new"


def test_upload_puts_the_whole_folder_on_the_hub(hub, served, tmp_path):
    target = tmp_path / "out"
    done = run(
        "convert", "--hf-path", REPO, "--mlx-path", str(target), "-q", "--upload-repo", "someone/R1-4bit",
        env=hub.environment(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == f"{target}\n{hub.endpoint}/someone/R1-4bit\n"
    assert hub.uploads["someone/R1-4bit"] == folder_bytes(target)


def test_upload_without_a_known_token_is_refused_before_the_work(hub, served, tmp_path):
    for token, words in (("hf_other", "(401)"), ("", "needs a token")):
        done = run(
            "convert", "--hf-path", REPO, "--mlx-path", str(tmp_path / "out"), "--upload-repo", "someone/x",
            env=hub.environment(tmp_path / "home") | {"HF_TOKEN": token},
        )
        assert done.returncode == 1 and words in done.stderr.decode()
        assert "hf auth login" in done.stderr.decode()
    assert not (tmp_path / "out").exists()


def until_closed(terminal: int):
    """What arrives on a pseudo-terminal; its end is an error on Linux and nothing on macOS."""
    while True:
        try:
            data = os.read(terminal, 1 << 12)
        except OSError:
            data = b""
        if not data:
            os.close(terminal)
            return
        yield data.decode(errors="replace")


def test_on_a_terminal_there_is_a_bar_with_bytes_and_time(tmp_path):
    import fcntl
    import pty
    import struct
    import subprocess
    import sys
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    program = "from mlx_audio_r1.cli.main import main; main()"
    words = ["convert", "--hf-path", str(BF16), "--mlx-path", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-c", program, *words], stderr=theirs, stdout=-1) as process:
        os.close(theirs)
        shown = "".join(until_closed(ours))
        assert process.stdout.read().decode() == f"{tmp_path / 'out'}\n"
    assert process.returncode == 0
    assert "converting: 100%" in shown and "2.66M/2.66M" in shown and "B/s]" in shown


def test_options_are_the_only_thing_shown_beside_the_path(tmp_path):
    """Progress bars belong to terminals; here stderr stays empty."""
    done = run("convert", "--hf-path", str(BF16), "--mlx-path", str(tmp_path / "out"), "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{tmp_path / 'out'}\n"
    assert Options().force is False
