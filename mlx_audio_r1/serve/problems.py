"""What goes wrong with a request, in the shape in which OpenAI's clients expect it."""

from __future__ import annotations

from typing import Any

from mlx_audio_r1.errors import AudioR1Error

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(AudioR1Error):
    """A request that is refused, with its HTTP status.

    param: the field at fault, as `messages[0].content[1]`. code: a word a program can test.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.message, self.param, self.code = message, param, code
        self.status, self.headers = status, headers or {}

    def body(self) -> dict[str, Any]:
        """{"error": {...}}."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = KINDS.get(self.status, default)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def unsupported(name: str, advice: str = "leave it out") -> Problem:
    """A field or value that is not supported; the reply names it."""
    return Problem(f"{name} is not supported; {advice}", param=name, code="unsupported_parameter")


def shown(value: Any) -> str:
    """A value of a request as an error message may repeat it: short and on one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
