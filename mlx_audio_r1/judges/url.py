"""A judge behind a URL: OpenAI's chat completions, with the standard library.

A server that is busy, broken or away is asked again after a while, twice as long each time; one that refuses
is not. The surprise: several requests are under way at once, but replies come in the order of the prompts.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlx_audio_r1.errors import JudgeError

PATH = "/chat/completions"
AT_ONCE = 4  # requests
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # s between tries
WORTH_A_TRY = (408, 409, 425, 429, 500, 502, 503, 504)
SHOWN = 200  # characters of a refusal


class UrlJudge:
    """model: as the server calls it. timeout: s a request. retries: beyond the first try. sleep: for tests.
    system: words before the prompt. params: sent beside, in place of ours, None: left out. rater: who of
    several; it is not sent, and tells their replies apart in a cache."""

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        max_tokens: int = 512,
        timeout: float = 120.0,
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        system: str = "",
        params: Mapping[str, Any] | None = None,
        rater: int = 0,
    ):
        self._url = url if url.endswith(PATH) else url.rstrip("/") + PATH
        self._model, self._key, self._sleep = model, api_key, sleep
        self._timeout, self._retries = timeout, retries
        self.name = f"{self._url} {model}".strip()
        sent = {"temperature": 0, "max_tokens": max_tokens, **(params or {})}
        self._sent = {name: value for name, value in sent.items() if value is not None}
        self._before = [{"role": "system", "content": system}] if system else []
        self.params: Mapping[str, Any] = {**self._sent, **told(system, rater)}

    def ask(self, prompts: Sequence[str]) -> Iterator[str | None]:
        """A reply to each. Raises JudgeError."""
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            yield from pool.map(self._reply, prompts)
        finally:
            pool.shutdown(cancel_futures=True)

    def _reply(self, prompt: str) -> str:
        """Tries until there is one, or no more sense in it."""
        wait = FIRST_WAIT
        for left in range(self._retries, -1, -1):
            try:
                return self._read(self._post(prompt))
            except urllib.error.HTTPError as error:
                why, again = _refusal(error), error.code in WORTH_A_TRY
            except (OSError, TimeoutError) as error:  # URLError is an OSError
                why, again = str(getattr(error, "reason", error)), True
            if not again:
                raise JudgeError(f"judge {self._url}: refused ({why}); see judge_model and the API key")
            if left:
                self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        raise JudgeError(f"judge {self._url}: no reply in {self._retries + 1} tries ({why}); start it and "
                            "run again, what was judged is kept")  # fmt: skip

    def _post(self, prompt: str) -> bytes:
        messages = [*self._before, {"role": "user", "content": prompt}]
        body = {"model": self._model, "messages": messages, **self._sent}
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=self._timeout) as response:
            found: bytes = response.read()
        return found

    def _read(self, content: bytes) -> str:
        try:
            return str(json.loads(content)["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError):
            raise JudgeError(f"judge {self._url}: what came is no chat completion; is this the address of "
                                "an OpenAI-compatible server, ending in /v1?") from None  # fmt: skip


def told(system: str, rater: int) -> dict[str, Any]:
    """What a reply depends on beside the parameters of a request."""
    return {**({"system": system} if system else {}), **({"rater": rater} if rater else {})}


def _refusal(error: urllib.error.HTTPError) -> str:
    with error:
        said = error.read(4 * SHOWN).decode("utf-8", "replace").split()
    return f"{error.code} {' '.join(said)[:SHOWN]}".strip()
