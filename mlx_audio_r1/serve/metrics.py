"""Counters for /metrics, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mlx_audio_r1.serve.rows import Done

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
HELP = {
    "requests_total": "Requests answered, by path and status.",
    "prompt_tokens_total": "Prompt tokens read, sounds included.",
    "audio_tokens_total": "Tokens of sound read.",
    "cached_tokens_total": "Prompt tokens taken from the prompt cache.",
    "reasoning_tokens_total": "Tokens of reasoning written.",
    "answer_tokens_total": "Tokens of answers written.",
    "audio_seconds_total": "Seconds of sound heard.",
    "replies_total": "Replies, by finish_reason.",
    "cancelled_total": "Requests whose client went away.",
}


class Histogram:
    """Cumulative buckets of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one observation."""
        self._counts[next((i for i, b in enumerate(BUCKETS) if seconds <= b), len(BUCKETS))] += 1
        self._sum += seconds

    def lines(self, name: str) -> list[str]:
        """Its series."""
        total, lines = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """What the server has done since it started; used on the event loop alone."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._times = {"time_to_first_token_seconds": Histogram(), "request_seconds": Histogram()}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A value that is read when it is asked for."""
        self._gauges[name] = (help_text, read)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter of HELP."""
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        self._counts[name, f"{{{inside}}}" if inside else ""] += amount  # type: ignore[assignment]

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        self._times[name].add(seconds)

    def reply(self, done: Done, *, prompt: bool) -> None:
        """Count a finished reply; its prompt where it was not counted yet."""
        self.count("replies_total", finish_reason=done.finish_reason)
        self.count("reasoning_tokens_total", done.reasoning_tokens)
        self.count("answer_tokens_total", done.answer_tokens)
        if prompt:
            self.count("prompt_tokens_total", done.prompt_tokens)
            self.count("audio_tokens_total", done.audio_tokens)
            self.count("cached_tokens_total", done.cached_tokens)
            self.count("audio_seconds_total", done.audio_seconds)

    def text(self) -> str:
        """The page."""
        lines = []
        for name, help_text in HELP.items():
            lines += _head(name, help_text, "counter")
            series = [(labels, n) for (key, labels), n in sorted(self._counts.items()) if key == name]
            lines += [f"audio_r1_{name}{labels} {_number(n)}" for labels, n in series or [("", 0)]]
        for name, histogram in self._times.items():
            lines += _head(name, "Seconds.", "histogram") + histogram.lines(f"audio_r1_{name}")
        for name, (help_text, read) in self._gauges.items():
            lines += [*_head(name, help_text, "gauge"), f"audio_r1_{name} {_number(read())}"]
        return "\n".join(lines) + "\n"


def _head(name: str, help_text: str, kind: str) -> list[str]:
    return [f"# HELP audio_r1_{name} {help_text}", f"# TYPE audio_r1_{name} {kind}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
