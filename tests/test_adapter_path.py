"""`--adapter-path` everywhere a model answers, and a prompt cache that never mixes adapter and base."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlx_audio_r1 import load
from mlx_audio_r1.adapter_config import AdapterConfig, LoRAParameters
from mlx_audio_r1.adapters import adapter_arrays, attach, disabled, fill, save_adapter
from mlx_audio_r1.cli.main import cli
from mlx_audio_r1.cli.options import adapter_option
from mlx_audio_r1.prompt_cache import PromptCache, fingerprint
from mlx_audio_r1.session import AudioR1
from tests.helpers import run
from tests.serve.conftest import serving, wav

TINY = str(Path(__file__).parent / "golden" / "tiny-fp32")
GREEDY = {"temperature": 0.0, "max_tokens": 20, "thinking_budget": 6}
OPTIONS = ["--model", TINY, "--temp", "0", "-m", "20", "--thinking-budget", "6"]
QUESTION = "What is it?"


def make_adapter(folder: Path, seed: int, model: str | None = TINY) -> str:
    """An adapter of what hears and what speaks, far enough from the base that greedy replies differ."""
    r1 = load(model)
    config = attach(r1.model, AdapterConfig(model="tiny", also_trained=("audio_adaptor.conv",), lora_parameters=
        LoRAParameters(rank=4, scale=2.0, keys=("self_attn.*", "mlp.*", "audio_adaptor.linear1"))))  # fmt: skip
    keys = iter(mx.random.split(mx.random.key(seed), 200))
    arrays = adapter_arrays(r1.model).items()
    fill(r1.model, {n: x + 0.2 * mx.random.normal(x.shape, key=next(keys)) for n, x in arrays}, "test")
    return str(save_adapter(folder, r1.model, config))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> str:
    return make_adapter(tmp_path_factory.mktemp("path") / "adapters", 1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("path") / "clip.wav"
    path.write_bytes(wav(1.0))
    return str(path)


@pytest.fixture(scope="module")
def expected(adapter, clip) -> dict[str, str]:
    """The reply of the adapted model, by the Python door; not that of the base."""
    reply = load(TINY, adapter_path=adapter).ask(clip, QUESTION, **GREEDY)
    assert reply.token_ids != load(TINY).ask(clip, QUESTION, **GREEDY).token_ids
    return {"think": reply.thinking, "answer": reply.answer}


def call(*args: str) -> str:
    done = CliRunner().invoke(cli, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


# ---- every command


def test_ask(adapter, clip, expected):
    record = json.loads(call("ask", clip, "-p", QUESTION, "--json", *OPTIONS, "--adapter-path", adapter))
    assert {key: record[key] for key in expected} == expected


def test_batch(adapter, clip, expected):
    record = json.loads(call("batch", clip, "-p", QUESTION, *OPTIONS, "--adapter-path", adapter))
    assert {key: record[key] for key in expected} == expected


def test_transcribe(adapter, clip):
    same = ["transcribe", clip, "-o", "-", "--model", TINY, "-m", "12"]
    assert call(*same, "--adapter-path", adapter) != call(*same)


def test_chat(adapter, clip, expected, tmp_path):
    saved = tmp_path / "talk.json"
    typed = f"{QUESTION}\n/save {saved}\n"
    done = run("chat", clip, *OPTIONS, "--adapter-path", adapter, stdin=typed.encode())
    assert done.returncode == 0, done.stderr
    reply = json.loads(saved.read_text())["messages"][-1]
    assert {"think": reply["reasoning"], "answer": reply["content"]} == expected


def body() -> dict:
    import base64

    sound = {"data": base64.b64encode(wav(1.0)).decode(), "format": "wav"}
    parts = [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": QUESTION}]
    return {"model": "x", "messages": [{"role": "user", "content": parts}], **GREEDY}


def message(reply: httpx.Response) -> dict[str, str]:
    assert reply.status_code == 200, reply.text
    told = reply.json()["choices"][0]["message"]
    return {"think": told["reasoning"] or "", "answer": told["content"]}


def test_serve(adapter, expected):
    """The command itself, in a process of its own."""
    code = "from mlx_audio_r1.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0", "--model", TINY, "--adapter-path", adapter],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
        with httpx.Client(timeout=60, trust_env=False) as http:
            assert message(http.post(f"{url}/chat/completions", json=body())) == expected
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_info(adapter):
    told = json.loads(call("info", TINY, "--adapter-path", adapter, "--json"))
    rows = told["adapter"]
    # rank 4 x (in + out) of 4 x (q, o, k, v, gate, up, down), linear1; and the whole of the convolution
    values = 4 * 4 * (2 * 256 + 2 * 160 + 3 * 384) + 4 * (64 + 2048) + 3 * 64 * 64 + 64
    assert rows["parameters"] == values and rows["kind"] == "lora" and rows["rank"] == 4
    assert rows["keys"].endswith("audio_adaptor.linear1") and rows["also_trained"] == "audio_adaptor.conv"
    assert rows["base"] == "tiny" and rows["file_bytes"] > 4 * values
    plain = json.loads(call("info", TINY, "--json"))
    assert "adapter" not in plain
    more = told["memory"]["needed_bytes"] - plain["memory"]["needed_bytes"]
    # What an adapter adds to a model this small counts twice, since the slack planned follows the weights.
    assert more == 2 * told["memory"]["adapter_bytes"] and told["memory"]["adapter_bytes"] > 4 * values
    assert told["memory"]["decoder_bytes"] == plain["memory"]["decoder_bytes"]
    assert f"parameters              {values:,}" in call("info", TINY, "--adapter-path", adapter)


WAYS = {"ask": ["-p", QUESTION], "batch": ["-p", QUESTION], "transcribe": ["-o", "-"], "chat": [],
        "serve": ["--port", "0"], "info": []}  # fmt: skip


@pytest.mark.parametrize("command", WAYS)
@pytest.mark.parametrize(("given", "words"), [
    ("nowhere", "nowhere: no such folder"),
    (TINY, "no adapter_config.json; it holds a checkpoint, which --model takes"),
])  # fmt: skip
def test_a_wrong_folder_is_one_line_and_exit_code_1(command, given, words, clip):
    inputs = [clip] if command in ("ask", "batch", "transcribe") else []
    model = [TINY] if command == "info" else ["--model", TINY]
    done = CliRunner().invoke(cli, [command, *inputs, *WAYS[command], *model, "--adapter-path", given])
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and words in done.stderr and done.stderr.count("\n") == 1


def test_an_adapter_of_another_model_is_one_line_and_exit_code_1(tmp_path, clip):
    nano = make_adapter(tmp_path / "nano", 3, model=None)
    done = CliRunner().invoke(cli, ["ask", clip, *OPTIONS, "--adapter-path", nano])
    assert done.exit_code == 1 and "is the adapter of another model?" in done.stderr


def test_the_option_is_called_the_same_everywhere():
    from mlx_audio_r1.cli.main import COMMANDS

    assert adapter_option
    for command in WAYS:
        params = {p.name: p.opts for p in cli.get_command(None, command).params}
        assert params["adapter_path"] == ["--adapter-path"] and command in COMMANDS


def test_nano_answers_with_an_adapter_whose_masters_are_float32(tmp_path):
    folder = make_adapter(tmp_path / "nano", 2, model=None)
    r1 = load(adapter_path=folder)
    assert r1.adapter_path == folder
    arrays = adapter_arrays(r1.model)
    assert {x.dtype for name, x in arrays.items() if "lora" in name} == {mx.float32}
    with_it = r1.logits([{"role": "user", "content": QUESTION}])
    with disabled(r1.model):
        assert mx.array_equal(r1.logits([{"role": "user", "content": QUESTION}]),
                              load().logits([{"role": "user", "content": QUESTION}]))
    assert not mx.array_equal(with_it, load().logits([{"role": "user", "content": QUESTION}]))


# ---- the prompt cache


def cached(folder: Path, adapter_path: str | None) -> AudioR1:
    r1 = load(TINY, adapter_path=adapter_path)
    r1.prompt_cache = PromptCache(fingerprint(TINY, adapter_path), folder=folder)
    return r1


def test_base_and_adapters_share_a_folder_and_nothing_in_it(adapter, clip, tmp_path):
    other = make_adapter(tmp_path / "other", 9)
    replies = []
    for path in (None, adapter, other):
        exact = load(TINY, adapter_path=path).ask(clip, QUESTION, **GREEDY).token_ids
        first, again = cached(tmp_path / "cache", path), cached(tmp_path / "cache", path)
        assert first.ask(clip, QUESTION, **GREEDY).token_ids == exact
        assert first.prompt_cache.encoded == 1  # nothing of the models before was taken
        assert again.ask(clip, QUESTION, **GREEDY).token_ids == exact
        assert again.prompt_cache.encoded == 0  # but its own was
        replies.append(exact)
    assert len({tuple(ids) for ids in replies}) == 3


def test_what_is_asked_with_the_adapter_off_is_kept_nowhere(adapter, clip, tmp_path):
    base = load(TINY).ask(clip, QUESTION, **GREEDY).token_ids
    r1 = cached(tmp_path, adapter)
    with disabled(r1.model):
        assert r1.ask(clip, QUESTION, **GREEDY).token_ids == base
    assert r1.prompt_cache.nbytes == 0 and not list(tmp_path.iterdir())
    tuned = r1.ask(clip, QUESTION, **GREEDY).token_ids
    with disabled(r1.model):
        assert r1.ask(clip, QUESTION, **GREEDY).token_ids == base
    assert r1.ask(clip, QUESTION, **GREEDY).token_ids == tuned != base


def test_the_server_keeps_them_apart_on_disk(adapter, expected, tmp_path):
    said = []
    for path in (None, adapter):
        with serving(lambda path=path: load(TINY, adapter_path=path), prompt_cache_folder=tmp_path) as server:
            said.append(message(server.http.post("/v1/chat/completions", json=body())))
    assert said[0] != said[1] == expected
