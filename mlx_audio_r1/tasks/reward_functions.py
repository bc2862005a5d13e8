"""Reward functions of the user's own, from a Python file.

Two signatures, told apart by their parameters:

    @register_reward_function()                       # as in mlx-lm-lora, called by position
    def short(prompts, completions, answer, types=None): ...

    def polite(completions, **columns): ...           # as in TRL and ms-swift, called by keyword

Both return a number, or None for "nothing to say", for every completion. `register_reward_function` is
there without an import; the import of mlx-lm-lora's examples works too, without mlx-lm-lora. Functions
that are registered count, or, where none is, all public ones of the file.
"""

from __future__ import annotations

import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mlx_audio_r1.errors import TrainingError

_THEIRS = "mlx_lm_lora.trainer.grpo_reward_functions"
ALIASES = (("answer", "solution"), ("type", "problem_type", "types"))  # columns that stand for each other
EXAMPLE = "def f(completions, **columns) or def f(prompts, completions, answer, types=None)"


@dataclass(frozen=True)
class RewardFunction:
    """A function of a file; `takes` are the keywords it knows, None for any, () for a call by position."""

    name: str
    call: Callable[..., Any]
    file: str
    weight: float = 1.0
    takes: tuple[str, ...] | None = ()
    positional: int = 0  # arguments by position, 0 when called by keyword

    @property
    def place(self) -> str:
        return f"{self.file}: function {self.name}"


@dataclass(frozen=True)
class Scores:
    """One value a completion; total is None where every function said None."""

    total: list[float | None]
    by_name: dict[str, list[float | None]]


def load_reward_functions(
    path: str | Path,
    names: Sequence[str] = (),
    weights: Sequence[float] | Mapping[str, float] = (),
) -> list[RewardFunction]:
    """The functions of a file, all or those named, in that order. Raises TrainingError in one line."""
    found = _functions(str(path))
    unknown = [name for name in names if name not in found]
    if unknown:
        raise TrainingError(f"{path}: no reward function {unknown[0]!r}; it has {', '.join(found) or 'none'}")
    if not found:
        raise TrainingError(f"{path}: no function in it; write {EXAMPLE}")
    chosen = list(names) or list(found)
    by_name = _weights(str(path), chosen, weights)
    return [_described(name, found[name], str(path), by_name[name]) for name in chosen]


def score(
    functions: Sequence[RewardFunction],
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> Scores:
    """Weighted sum over the functions for each completion. `columns` are those of the rows, a value a
    completion; those in ALIASES stand for each other. Raises TrainingError naming file and function."""
    columns = _with_aliases(columns, len(completions))
    by_name = {f.name: _scored(f, prompts, completions, columns) for f in functions}
    total: list[float | None] = []
    for i in range(len(completions)):
        said = [f.weight * value for f in functions if (value := by_name[f.name][i]) is not None]
        total.append(sum(said) if said else None)
    return Scores(total, by_name)


# The file


def _functions(path: str) -> dict[str, Callable[..., Any]]:
    registered: dict[str, Callable[..., Any]] = {}

    def register_reward_function(name: str | None = None) -> Callable[[Any], Any]:
        def keep(function: Any) -> Any:
            registered[name or function.__name__] = function
            return function

        return keep

    module = ModuleType(f"reward_functions_{Path(path).stem}")
    module.__dict__.update(__file__=path, register_reward_function=register_reward_function)
    try:
        code = compile(Path(path).read_bytes(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        at = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise TrainingError(
            f"{path}{at}: cannot be read as Python ({getattr(error, 'msg', None) or error})"
        ) from None
    with _in_their_place(register_reward_function):
        try:
            exec(code, module.__dict__)
        except (Exception, SystemExit) as error:  # it is the user's code: anything may come
            raise TrainingError(f"{path}: {_at(error, path)}{_said(error)} while it is loaded") from None
    return registered or {name: f for name, f in vars(module).items() if _is_own(name, f, module)}


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    """A public function that the file itself defines."""
    return inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")


@contextmanager
def _in_their_place(register: Callable[..., Any]) -> Iterator[None]:
    """While a file is loaded, mlx-lm-lora's registering module is ours: it would load MLX, or be missing."""
    parts = _THEIRS.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        module = ModuleType(name)
        module.__dict__.update(__path__=[], register_reward_function=register)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, old in before.items():
            sys.modules.pop(name)
            if old is not None:
                sys.modules[name] = old


def _weights(path: str, names: list[str], weights: Sequence[float] | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(weights, Mapping):
        if weights and len(weights) != len(names):
            raise TrainingError(
                f"{path}: {len(weights)} weights for {len(names)} functions ({', '.join(names)})"
            )
        weights = dict(zip(names, weights, strict=False))
    for name, weight in weights.items():
        if name not in names:
            raise TrainingError(
                f"{path}: a weight for {name!r}, which is not used; used are {', '.join(names)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise TrainingError(f"{path}: weight {weight!r} of {name}: expected a number")
    return {name: float(weights.get(name, 1.0)) for name in names}


def _described(name: str, function: Any, path: str, weight: float) -> RewardFunction:
    """With its way to be called. A class stands for what it makes."""
    if inspect.isclass(function):
        try:
            function = function()
        except Exception as error:
            raise TrainingError(f"{path}: class {name}: {_said(error)} when made without arguments") from None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise TrainingError(f"{path}: {name} is no plain function; write {EXAMPLE}")
    parameters = list(inspect.signature(function).parameters.values())
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not open_ended and len(plain) in (3, 4) and plain[0] != "completions":
        return RewardFunction(name, function, path, weight, (), len(plain))
    if "completions" not in [p.name for p in parameters]:
        raise TrainingError(f"{path}: function {name}: no parameter completions; write {EXAMPLE}")
    takes = None if open_ended else tuple(p.name for p in parameters if p.kind is not p.VAR_POSITIONAL)
    return RewardFunction(name, function, path, weight, takes)


# A call


def _with_aliases(columns: Mapping[str, Sequence[Any]], count: int) -> dict[str, Sequence[Any]]:
    full = dict(columns)
    for same in ALIASES:
        for missing in same:
            there = [name for name in same if name in columns]
            if missing not in full and there:
                full[missing] = columns[there[0]]
    for name, values in full.items():
        if len(values) != count:
            raise TrainingError(f"column {name}: {len(values)} values for {count} completions")
    return full


def _scored(
    function: RewardFunction,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: dict[str, Sequence[Any]],
) -> list[float | None]:
    try:
        values = _called(function, list(prompts), list(completions), columns)
    except (Exception, SystemExit) as error:  # it is the user's code: anything may come
        raise TrainingError(f"{function.place}: {_at(error, function.file)}{_said(error)}") from None
    return _checked(function, values, len(completions))


def _called(
    function: RewardFunction, prompts: list[str], completions: list[str], columns: dict[str, Sequence[Any]]
) -> Any:
    nothing = [None] * len(completions)
    if function.positional:
        types = list(columns["type"]) if "type" in columns else None
        return function.call(
            *(prompts, completions, list(columns.get("answer", nothing)), types)[: function.positional]
        )
    given = {name: list(values) for name, values in columns.items()} | {
        "prompts": prompts,
        "completions": completions,
    }
    if function.takes is not None:
        missing = [n for n in function.takes if n not in given and _required(function.call, n)]
        if missing:
            raise LookupError(f"it wants {missing[0]}, which no row has as a column")
        given = {name: given[name] for name in function.takes if name in given}
    return function.call(**given)


def _required(call: Callable[..., Any], name: str) -> bool:
    return inspect.signature(call).parameters[name].default is inspect.Parameter.empty


def _checked(function: RewardFunction, values: Any, count: int) -> list[float | None]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise TrainingError(f"{function.place}: returned {type(values).__name__}, expected {count} numbers")
    values = list(values)
    if len(values) != count:
        raise TrainingError(f"{function.place}: returned {len(values)} values for {count} completions")
    return [_number(function, i, value) for i, value in enumerate(values)]


def _number(function: RewardFunction, i: int, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float("nan") if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not math.isfinite(number):
        shown = repr(value)[:60]
        raise TrainingError(f"{function.place}: returned {shown} for completion {i}, expected a number or None")
    return number


def _at(error: BaseException, path: str) -> str:
    """line 12: the last line of the user's file in the traceback."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    return f"line {lines[-1]}: " if lines else ""


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
