"""Many questions to a loaded model at once, or many replies to one: the batch engine for people.

    for reply in answer_many(r1, [r1.question("a.wav", "What is it?"), r1.question("b.wav", "And this?")]):
        print(reply.answer)
    replies = sample(r1, r1.question("a.wav", "What is it?"), 8, temperature=1.0, seed=1)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlx_audio_r1.batch import MAX_ROWS, Engine, Event
from mlx_audio_r1.prompt import Message
from mlx_audio_r1.reply import Heard, Reply, reply_of
from mlx_audio_r1.session import AudioR1

Messages = Sequence[Mapping[str, Any] | Message]


class Conversations:
    """An Engine that takes messages and gives replies. Options of `submit` are those of AudioR1.stream."""

    def __init__(self, r1: AudioR1, **engine: Any):
        self.r1 = r1
        self.engine = Engine(r1.model, r1.tokenizer, **engine)
        self._heard: dict[int, tuple[int, Heard, float]] = {}

    def __enter__(self) -> Conversations:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def submit(
        self, messages: Messages, num_samples: int = 1, *, behind: Sequence[int] = (), **options: Any
    ) -> int:
        """Decode and encode the sounds now, queue the rest; the id its events will carry. behind: ids of the
        beginning of the reply."""
        prompt = self.r1.prepare(messages, **options)
        if behind:
            prompt = self.r1.continued(prompt, behind)
        id = self.engine.submit(
            prompt.ids, prompt.embeddings, prompt.settings, prompt.thinking_open, num_samples, prompt.prefix
        )
        self._heard[id] = len(prompt.ids), prompt.heard, prompt.encode_seconds
        return id

    def step(self) -> list[Event]:
        return self.engine.step()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.engine)

    def reply(self, event: Event) -> Reply:
        """The reply so far; whole when the event has a finish_reason."""
        prompt_tokens, heard, seconds = self._heard[event.request]
        draft = event.draft
        draft.timings.encode = seconds
        return reply_of(draft.writer, draft.text, draft.timings, prompt_tokens, heard)

    def cancel(self, request: int, sample: int | None = None) -> bool:
        """Stop a request, or one sample of it; no event of it follows. False when it was over."""
        return self.engine.cancel(request, sample)

    def forget(self, request: int) -> None:
        """Let go of what `reply` needs, when all replies of a request have been taken."""
        self._heard.pop(request, None)


def answer_many(
    r1: AudioR1, questions: Iterable[Messages], *, max_rows: int = MAX_ROWS,
    kv_limit: int | None = None, **options: Any,
) -> Iterator[Reply]:
    """A reply for each question, in order; no more sounds are held than rows can be filled with."""
    with Conversations(r1, max_rows=max_rows, kv_limit=kv_limit) as many:
        done: dict[int, Reply] = {}
        asked, given, questions = 0, 0, iter(questions)
        exhausted = False
        while not exhausted or given < asked:
            while not exhausted and many.engine.waiting < 2:
                question = next(questions, None)
                exhausted = question is None
                if question is not None:
                    many.submit(question, **options)
                    asked += 1
            for event in many.step():
                if event.finish_reason:
                    done[event.request] = many.reply(event)
                    many.forget(event.request)
            while given in done:
                yield done.pop(given)
                given += 1


def sample(
    r1: AudioR1, messages: Messages, num_samples: int, *, max_rows: int | None = None,
    kv_limit: int | None = None, **options: Any,
) -> list[Reply]:
    """Several replies to one prompt, read once; with a seed, sample i is always the same."""
    with Conversations(r1, max_rows=max_rows or num_samples, kv_limit=kv_limit) as many:
        many.submit(messages, num_samples, **options)
        replies = {event.sample: many.reply(event) for event in many if event.finish_reason}
    return [replies[i] for i in range(num_samples)]
