"""Readers of request fields: a value and its name in, a checked value out, or a `Problem` naming it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlx_audio_r1.serve.problems import Problem, shown, unsupported

Reader = Callable[[Any, str], Any]


def wrong(name: str, value: Any, expected: str) -> Problem:
    """A value of the wrong type or range."""
    return Problem(f"{name} is {shown(value)}: expected {expected}", param=name, code="invalid_value")


def integer(low: int, high: int) -> Reader:
    """A whole number; true and 1.0 are none."""

    def read(value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(name, value, f"a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float, *, above: bool = False) -> Reader:
    """A number within limits; `above` leaves the lower one out."""

    def read(value: Any, name: str) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fits or (above and value == low):
            raise wrong(name, value, f"a number {'above' if above else 'from'} {low} up to {high}")
        return float(value)

    return read


def boolean(value: Any, name: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def text(value: Any, name: str) -> str:
    """A string that is whole Unicode: half a surrogate pair cannot become tokens."""
    if not isinstance(value, str):
        raise wrong(name, value, "a string")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise wrong(name, value, "whole Unicode characters, this holds half of one") from None
    return value


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise wrong(name, value, "an object")
    return value


def list_of(read: Reader, most: int) -> Reader:
    """A list of at most `most` items, each read by `read`."""

    def read_all(value: Any, name: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise wrong(name, value, f"a list of at most {most} items")
        return [read(item, f"{name}[{i}]") for i, item in enumerate(value)]

    return read_all


def anything(value: Any, name: str) -> Any:
    """For fields that change nothing here."""
    return value


def only(*allowed: Any) -> Reader:
    """A field of which nothing but harmless values are supported."""

    def read(value: Any, name: str) -> Any:
        if not any(value == item and type(value) is type(item) for item in allowed):
            choices = " or ".join(shown(item) for item in allowed)
            raise unsupported(name, f"send {choices} or leave it out")
        return value

    return read


def read_fields(values: Mapping[str, Any], readers: Mapping[str, Reader], prefix: str = "") -> dict[str, Any]:
    """Every field by its reader; null means not given, an unknown name is refused."""
    for name in values:
        if name not in readers:
            raise unsupported(prefix + (name if name.isprintable() and len(name) <= 80 else shown(name)))
    return {
        name: readers[name](value, prefix + name) for name, value in values.items() if value is not None
    }
