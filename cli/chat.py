"""`audio-r1 chat`: several turns about one or more sounds.

The surprise: a turn's reasoning is shown but not remembered, and a sound is encoded and read once,
however many questions follow it.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from mlx_audio_r1.cli.options import adapter_option, decoding_options, settings_given

HELP = """\
/add FILE...       sounds for your next question
/think on|off      reason before answering, or answer at once
/save FILE.json    the conversation so far, as messages
/clear             forget everything said and heard
/help              this list
/quit              leave (so does Ctrl-D; Ctrl-C stops a reply)"""


@click.command("chat")
@click.argument("audio", nargs=-1, metavar="AUDIO...")
@click.option("--system-prompt", help="A system message before the first turn.")
@click.option("--model", help="Checkpoint folder, hub repository, or nano.")
@adapter_option
@click.option("--chunk-seconds", type=float, default=25.0, show_default=True,
              help="Longest piece the encoder gets, up to 29.98.")
@click.option("-R", "--hide-thinking", is_flag=True, help="Do not show the reasoning.")
@click.option("--force", is_flag=True, help="Go on where memory is too small (see audio-r1 plan).")
@decoding_options
def chat(audio: tuple[str, ...], system_prompt: str | None, **options: Any) -> None:
    """Talk about AUDIO, turn by turn; /help lists what else you can type.

    Answers go to stdout, the reasoning dim to stderr. With a pipe on stdin every line is a turn.

    \b
    Examples:
      audio-r1 chat clip.wav
      audio-r1 chat a.wav b.wav --thinking-budget 500
      printf 'What is it?\\nHow do you know?\\n' | audio-r1 chat clip.wav -R
    """
    with _conversation(system_prompt, options) as talk:
        if audio:
            talk.try_to(talk.add, shlex.join(audio))
        for line in _lines():
            if not talk.take(line):
                break
        if talk.failed and not sys.stdin.isatty():
            sys.exit(1)


@contextmanager
def _conversation(system_prompt: str | None, options: dict[str, Any]) -> Iterator[Talk]:
    from mlx_audio_r1.cli.model_choice import choose_model, notice_nano
    from mlx_audio_r1.cli.room import reply_room
    from mlx_audio_r1.cli.startup import import_engine

    import_engine(tuner=bool(options["adapter_path"]))
    from mlx_audio_r1.prompt_cache import PromptCache, fingerprint
    from mlx_audio_r1.serve.rows import Batch
    from mlx_audio_r1.session import load

    own = {name: options.pop(name) for name in
           ("model", "adapter_path", "chunk_seconds", "hide_thinking", "prefill_response", "force")}
    name, adapter = choose_model(own["model"]), own["adapter_path"]
    if not own["force"]:
        reply_room(name, [], "", settings_given(options), adapter)
    r1 = load(name, adapter_path=adapter, chunk_seconds=own["chunk_seconds"])
    r1.prompt_cache = PromptCache(fingerprint(name, adapter))
    notice_nano(r1.config.raw)
    rows = Batch(r1, max_rows=1)
    try:
        yield Talk(r1, rows, settings_given(options), system_prompt,
                   own["prefill_response"], own["hide_thinking"])
    finally:
        rows.close()


def _lines() -> Iterator[str]:
    """What is typed or piped in, line by line; Ctrl-C at the prompt throws the line away."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401  line editing and history for input()

    click.secho("/help lists the commands; Ctrl-D leaves.", dim=True, err=True)
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            click.echo()
        except EOFError:
            click.echo()
            return


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C raises a flag, so that no step of the model is torn apart; a second one is not waited for."""
    pressed = False

    def press(*_: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Turn:
    """One question and its answer."""

    sounds: list[str]
    text: str
    thinking: str = ""
    answer: str = ""

    def messages(self) -> list[dict[str, Any]]:
        """As they are saved: OpenAI's messages, sounds by path."""
        parts = [{"type": "audio", "audio": path} for path in self.sounds]
        parts += [{"type": "text", "text": self.text}] if self.text else []
        return [{"role": "user", "content": parts},
                {"role": "assistant", "content": self.answer, "reasoning": self.thinking}]


@dataclass
class Talk:
    """The conversation and what can be typed into it."""

    r1: Any
    rows: Any
    settings: dict[str, Any]
    system_prompt: str | None
    prefill: str
    hide_thinking: bool
    turns: list[Turn] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)  # sounds for the next question
    failed: bool = False

    def take(self, line: str) -> bool:
        """A line that was typed; False ends the conversation."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/quit", "/exit"):
            return False
        if word.startswith("/"):
            commands = {"/add": self.add, "/think": self.think, "/save": self.save, "/clear": self.clear,
                        "/help": lambda _: _note(HELP)}
            unknown = f"{word}: no such command; /help lists them"
            self.try_to(commands.get(word, lambda _: self._fail(unknown)), rest.strip())
        elif line.strip() or self.pending:
            self.try_to(self.ask, line.strip())
        return True

    def try_to(self, do: Callable[[str], None], what: str) -> None:
        """Do it; what cannot be done is one line, and the conversation goes on."""
        from mlx_audio_r1.errors import AudioR1Error

        try:
            do(what)
        except (AudioR1Error, OSError, ValueError) as error:
            self._fail(str(error))

    def add(self, given: str) -> None:
        """/add"""
        from mlx_audio_r1.audio import duration

        paths = [str(Path(name).expanduser()) for name in shlex.split(given)]
        if not paths:
            raise ValueError("/add needs a file")
        for path in paths:
            _note(f"{path}: {duration(path):.1f} s, goes with your next question")
            self.pending.append(path)

    def think(self, given: str) -> None:
        """/think"""
        if given not in ("on", "off"):
            raise ValueError("/think takes on or off")
        self.settings["thinking"] = given == "on"
        _note("it reasons before it answers" if given == "on" else "it answers at once")

    def save(self, given: str) -> None:
        """/save"""
        if not given:
            raise ValueError("/save needs a file")
        path = Path(given).expanduser()
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages = [*system, *(message for turn in self.turns for message in turn.messages())]
        written = json.dumps({"model": self.r1.name, "messages": messages}, ensure_ascii=False, indent=1)
        path.write_text(f"{written}\n", encoding="utf-8")
        _note(f"{path}: {len(self.turns)} turns")

    def clear(self, _: str) -> None:
        """/clear"""
        self.turns.clear()
        self.pending.clear()
        _note("nothing was said")

    def ask(self, text: str) -> None:
        """A question, with the sounds that were added since the last one."""
        turn = Turn(self.pending, text)
        try:
            self._reply(turn)
        finally:
            if turn.answer:
                self.turns.append(turn)
                self.pending = []

    def _reply(self, turn: Turn) -> None:
        from mlx_audio_r1.cli.show import NOTES, ReplyPrinter
        from mlx_audio_r1.generate import Step
        from mlx_audio_r1.serve.rows import Job

        printer = ReplyPrinter(as_json=False, hide_thinking=self.hide_thinking)
        self.rows.add("turn", Job(tuple(self._messages(turn)), self.settings))
        with _interruptible() as interrupted:
            note: str | None = "stopped"
            while not interrupted():
                for _, _, event in self.rows.step():
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Step):
                        printer.step(event.kind, event.text)
                        kept = turn.answer if event.kind == "answer" else turn.thinking
                        setattr(turn, event.kind, kept + event.text)
                    else:
                        note = NOTES.get(event.stop_reason or event.finish_reason)
                if not len(self.rows):
                    break
            self.rows.cancel("turn")
        click.echo()
        if note:
            _note(f"[{note}]")
        elif not turn.answer:
            _note("[no answer: the model stopped inside its reasoning]")

    def _messages(self, turn: Turn) -> Iterator[Any]:
        from mlx_audio_r1.prompt import NO_THINKING_TAIL, THINKING_TAIL, AudioPart, Message

        if self.system_prompt:
            yield Message("system", (self.system_prompt,))
        for said in (*self.turns, turn):
            yield Message("user", (*map(AudioPart, said.sounds), *([said.text] if said.text else [])))
            if said is not turn:
                yield Message("assistant", (said.answer,))
        thinking = self.settings.get("thinking", self.r1.defaults.thinking)
        yield Message("assistant", ((THINKING_TAIL if thinking else NO_THINKING_TAIL) + self.prefill,))

    def _fail(self, words: str) -> None:
        self.failed = True
        click.secho(f"Error: {words}", fg="red", err=True)


def _note(words: str) -> None:
    click.secho(words, dim=True, err=True)
