"""`audio-r1 chat`, with a pipe on stdin and on a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers import run
from tests.serve.conftest import load_tiny, wav

TINY = str(Path(__file__).parent / "golden" / "tiny-fp32")
GREEDY = ["--model", TINY, "--temp", "0", "-m", "20", "--thinking-budget", "6"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "a b.wav"
    path.write_bytes(wav(1.0))
    return path


def test_lines_from_a_pipe_are_turns_about_the_same_sound(clip, tmp_path):
    saved = tmp_path / "talk.json"
    lines = f"What is it?\n\n/think off\nAnd now?\n/save {saved}\n"
    done = run("chat", str(clip), *GREEDY, stdin=lines.encode())
    assert done.returncode == 0, done.stderr
    messages = json.loads(saved.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[0]["content"] == [
        {"type": "audio", "audio": str(clip)},
        {"type": "text", "text": "What is it?"},
    ]
    assert messages[2]["content"] == [{"type": "text", "text": "And now?"}]
    first, second = messages[1], messages[3]
    r1 = load_tiny()
    alone = r1.ask(clip, "What is it?", temperature=0.0, max_tokens=20, thinking_budget=6)
    assert (first["content"], first["reasoning"]) == (alone.answer, alone.thinking) and second[
        "reasoning"
    ] == ""
    history = [*messages[:1], {"role": "assistant", "content": first["content"]}, messages[2]]
    again = r1.reply(history, temperature=0.0, max_tokens=20, thinking=False)
    assert second["content"] == again.answer
    assert done.stdout.decode() == f"{first['content']}\n{second['content']}\n"
    assert first["reasoning"].encode() in done.stderr and b"\x1b" not in done.stderr


def test_what_cannot_be_done_is_a_line_and_the_talk_goes_on(clip):
    lines = (
        f"/add no.wav\n/add\n/think maybe\n/save\n/what\n/help\n/add '{clip}'\nWhat?\n/clear\n/quit\nnever\n"
    )
    done = run("chat", *GREEDY, "-R", stdin=lines.encode())
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("Error:")]
    assert done.returncode == 1 and len(errors) == 5 and "no.wav" in errors[0] and "/what" in errors[4]
    assert b"/add FILE..." in done.stderr and b"1.0 s" in done.stderr and b"Traceback" not in done.stderr
    assert done.stdout.strip()


def test_nothing_typed_is_nothing_said():
    done = run("chat", *GREEDY, stdin=b"")
    assert (done.returncode, done.stdout) == (0, b"")


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, *arguments: str):
        self._file, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from mlx_audio_r1.cli.main import main; main()", "chat", *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(side)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, words: str) -> None:
        """Until the words are shown; what came before them is forgotten."""
        self._read_until(lambda: words in self.shown)
        self.shown = self.shown.partition(words)[2]

    def wait_for_more(self, characters: int) -> None:
        """Until so much more is shown, whatever it is."""
        self._read_until(lambda: len(self.shown) >= characters)

    def interrupt_until(self, words: str) -> None:
        """Ctrl-C until the words are shown. Once is not enough: of one that comes just as readline goes to
        wait, CPython takes notice at the next key."""
        for _ in range(20):
            self.process.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                self._read_until(lambda: words in self.shown, seconds=3)
                break
        self.wait_for(words)

    def _read_until(self, enough: Callable[[], bool], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < end, self.shown
            if select.select([self._file], [], [], 0.1)[0]:
                self.shown += os.read(self._file, 4096).decode("utf-8", "replace")

    def close(self) -> int:
        try:
            return self.process.wait(timeout=240)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._file)


def test_on_a_terminal_ctrl_c_stops_the_reply_and_ctrl_d_leaves(clip):
    terminal = Terminal(str(clip), "--model", TINY, "--temp", "1", "--seed", "3", "-m", "5000")
    try:
        terminal.wait_for("> ")
        terminal.type("What is it?\n")
        terminal.wait_for("What is it?\r\n")
        terminal.wait_for_more(100)  # it is in the middle of a reply; thousands of tokens are to come
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("[stopped]")
        terminal.wait_for("> ")
        terminal.type("never mind")
        terminal.wait_for("never mind")
        terminal.interrupt_until("> ")  # at the prompt it throws the line away
        terminal.type("/help\n")
        terminal.wait_for("/save FILE.json")
        terminal.wait_for("> ")
        terminal.type("\x04")
    finally:
        code = terminal.close()
    assert code == 0
