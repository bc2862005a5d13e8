"""What proves each op: one file an op, with its cases and its float64 reference. See ../proof.py."""

from __future__ import annotations

from pkgutil import iter_modules


def names() -> list[str]:
    """Of the ops, without importing them."""
    return sorted(module.name for module in iter_modules(__path__))
