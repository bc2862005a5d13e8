"""Judges: a real server on the loopback, a file for people, a cache that survives being cut."""

import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_audio_r1.errors import JudgeError
from mlx_audio_r1.hub import NANO
from mlx_audio_r1.judges.judge import (
    CACHE,
    REQUESTS,
    RESPONSES,
    Cached,
    FileJudge,
    JudgeConfig,
    LocalJudge,
    key_of,
    open_judge,
    rows_of,
)
from mlx_audio_r1.judges.url import UrlJudge
from mlx_audio_r1.mgrd.judge_prompt import JUDGE_PROMPT, JudgeVerdict, judge_prompt, read_verdict
from mlx_audio_r1.tasks.choice import Choice
from mlx_audio_r1.tasks.item import OPTIONS, Item, Turn

YES = '{"grounded": true, "coherent": true, "correct": true}'


@contextmanager
def server(replies):
    """(URL, requests): answers with the replies in turn, the last one again and again; a number is a status,
    bytes are sent as they are."""
    seen, left = [], list(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, dict(self.headers), body))
            reply = left.pop(0) if len(left) > 1 else left[0]
            reply = reply(body) if callable(reply) else reply
            said = {"choices": [{"message": {"content": reply}}]} if isinstance(reply, str) else {"error": "no"}
            content = reply if isinstance(reply, bytes) else json.dumps(said).encode()
            self.send_response(reply if isinstance(reply, int) else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", seen
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


# ---- a server


def test_a_server_is_asked_as_openai_is_and_replies_come_in_order():
    with server([lambda body: body["messages"][0]["content"].upper()]) as (url, seen):
        judge = UrlJudge(url, "big", "secret", max_tokens=9)
        assert list(judge.ask([f"p{i}" for i in range(7)])) == [f"P{i}" for i in range(7)]
    path, headers, body = seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert {**body, "messages": 0} == {"model": "big", "messages": 0, "temperature": 0, "max_tokens": 9}
    assert "secret" not in judge.name and "secret" not in json.dumps(dict(judge.params))


def test_a_busy_server_is_asked_again_each_time_after_twice_as_long():
    waits = []
    with server([503, 429, 500, YES]) as (url, seen):
        assert list(UrlJudge(url, "m", sleep=waits.append).ask(["p"])) == [YES]
    assert waits == [1.0, 2.0, 4.0] and len(seen) == 4
    assert "Authorization" not in seen[0][1]


@pytest.mark.parametrize(("replies", "says", "tries"), [
    ([503], r"no reply in 3 tries \(503 .*start it and run again", 3),
    ([401], r"refused \(401 .*judge_model and the API key", 1),
    ([b"<html>"], "what came is no chat completion", 1),
    ([b'{"choices": []}'], "what came is no chat completion", 1),
])  # fmt: skip
def test_a_server_that_never_answers_ends_the_phase_in_one_line(replies, says, tries):
    with server(replies) as (url, seen):
        with pytest.raises(JudgeError, match=says) as error:
            list(UrlJudge(url, "m", "secret", retries=2, sleep=lambda _: None).ask(["p"]))
        assert len(seen) == tries
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_no_server_and_a_slow_one():
    with server([YES]) as (url, _):
        pass
    with pytest.raises(JudgeError, match="no reply in 1 tries"):
        list(UrlJudge(url, "m", retries=0, timeout=2).ask(["p"]))
    held = threading.Event()
    with server([lambda body: YES * (1 + held.wait(2))]) as (url, _):
        with pytest.raises(JudgeError, match=r"no reply in 1 tries \(.*timed out"):
            list(UrlJudge(url, "m", retries=0, timeout=0.1).ask(["p"]))
        held.set()


# ---- the cache


class Scripted:
    """Says what it is told to, and counts."""

    def __init__(self, said, name="scripted"):
        self.said, self.name, self.params, self.asked = said, name, {"t": 0}, []

    def ask(self, prompts):
        for prompt in prompts:
            self.asked.append(prompt)
            yield self.said[prompt]


def test_nothing_is_asked_twice_not_even_after_a_kill(tmp_path):
    judge = Scripted({"a": "A", "b": None, "c": "C"})
    assert list(Cached(judge, tmp_path / CACHE).ask(["a", "b", "a", "c"])) == ["A", None, "A", "C"]
    assert judge.asked == ["a", "b", "c"]
    again = Scripted({"a": "?", "b": "B", "c": "?"})
    assert list(Cached(again, tmp_path / CACHE).ask(["c", "b", "a"])) == ["C", "B", "A"]
    assert again.asked == ["b"]
    content = (tmp_path / CACHE).read_bytes()
    (tmp_path / CACHE).write_bytes(content[:-5])  # the last line is torn
    third = Scripted({"b": "B2", "a": "?", "d": "D"})
    assert list(Cached(third, tmp_path / CACHE).ask(["a", "b", "d"])) == ["A", "B2", "D"]
    assert len(rows_of(tmp_path / CACHE)) == 4


def test_another_judge_parameter_or_prompt_is_another_question(tmp_path):
    list(Cached(Scripted({"a": "A"}), tmp_path / CACHE).ask(["a"]))
    other = Scripted({"a": "Z"}, name="other")
    assert list(Cached(other, tmp_path / CACHE).ask(["a"])) == ["Z"]
    hotter = Scripted({"a": "H"})
    hotter.params = {"t": 1}
    assert list(Cached(hotter, tmp_path / CACHE).ask(["a"])) == ["H"]
    assert len({key_of(j, p) for j in (other, hotter) for p in "ab"}) == 4


# ---- people


def test_people_get_requests_once_and_answer_in_either_form(tmp_path):
    judge = FileJudge(tmp_path, {"grounded": "true or false"})
    assert list(judge.ask(["one", "two", "three"])) == [None] * 3
    assert list(judge.ask(["one", "two", "three"])) == [None] * 3
    rows = rows_of(tmp_path / REQUESTS)
    assert [row["prompt"] for row in rows] == ["one", "two", "three"]
    assert set(rows[0]) == {"id", "prompt", "expects"} and rows[0]["expects"] == {"grounded": "true or false"}
    answers = [{"id": rows[0]["id"], "grounded": True, "coherent": False, "correct": True},
               {"id": rows[2]["id"], "response": f"```json\n{YES}\n```"}]  # fmt: skip
    (tmp_path / RESPONSES).write_text("".join(json.dumps(a) + "\n" for a in answers) + "torn {")
    said = list(judge.ask(["one", "two", "three"]))
    assert said[1] is None
    assert read_verdict(said[0]) == JudgeVerdict(True, False, True) and read_verdict(said[2]).failed == []


# ---- a local model


@pytest.fixture
def language_model(tmp_path):
    """A random Qwen2 of a few thousand parameters that writes with the embedded model's tokens."""
    from mlx_lm.models.qwen2 import Model, ModelArgs

    vocab = max(json.loads((NANO / "tokenizer.json").read_text())["model"]["vocab"].values()) + 64
    config = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16,
              "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": vocab,
              "tie_word_embeddings": True}  # fmt: skip
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (tmp_path / "config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, tmp_path / name)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_a_local_model_says_the_same_each_time(language_model):
    judge = LocalJudge(str(language_model), max_tokens=4)
    first, second = judge.ask(["Is it?", "Is it?"])
    assert first == second and isinstance(first, str)


@pytest.mark.filterwarnings("ignore")
def test_a_local_model_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(JudgeError, match="mlx_lm cannot load it"):
        list(LocalJudge(str(tmp_path)).ask(["p"]))


# ---- which judge, and what it says


def test_judges_by_their_spelling(tmp_path):
    assert isinstance(open_judge(JudgeConfig("file"), tmp_path), FileJudge)
    assert open_judge(JudgeConfig("mlx:a/b"), tmp_path).name == "mlx:a/b"
    assert open_judge(JudgeConfig("http://h/v1/", "m"), tmp_path).name == "http://h/v1/chat/completions m"
    for kind in ("", "mlx:", "ftp://h", "gpt"):
        with pytest.raises(JudgeError, match="give a URL, mlx:MODEL or file"):
            open_judge(JudgeConfig(kind), tmp_path)


@pytest.mark.parametrize(("reply", "verdict"), [
    (YES, (True, True, True)),
    (f"```json\n{YES}\n```", (True, True, True)),
    (f"<think>\nHm, {{}}\n</think>\n{YES}\n", (True, True, True)),
    ('{"grounded": false, "coherent": true, "correct": true, "why": "reads"}', (False, True, True)),
    (f"Here it is: {YES}", None),
    (f"{YES} I am sure.", None),
    ('{"grounded": 1, "coherent": true, "correct": true}', None),
    ('{"grounded": "true", "coherent": true, "correct": true}', None),
    ('{"grounded": true, "coherent": true}', None),
    ("[true, true, true]", None), ("yes", None), ("", None), ("[" * 5_000, None), ("null", None),
])  # fmt: skip
def test_verdicts_are_read_strictly(reply, verdict):
    found = read_verdict(reply)
    assert found == (None if verdict is None else JudgeVerdict(*verdict))


def test_the_prompt_has_all_that_is_judged_and_braces_stay():
    item = Item("u", (Turn("user", ("Which {one}?", OPTIONS)),), Choice(("drum", "bell"), (1,)))
    text = judge_prompt(item, "It {rings}.", "B")
    assert all(part in text for part in ("Which {one}?", "drum", "bell", "It {rings}.", '{"grounded": true or'))
    assert "{question}" in JUDGE_PROMPT and "{question}" not in text
