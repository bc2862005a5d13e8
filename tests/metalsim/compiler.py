"""Compile kernels and the runtime with clang 17 or newer, once each: the results are cached by content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx

HERE = Path(__file__).parent
FORWARDED = ("atomic", "common", "compute", "geometric", "integer", "limits", "math", "matrix", "quadgroup",
             "relational", "simdgroup", "simdgroup_matrix", "stdlib", "type_traits", "types")
KEEP_SECONDS = 7 * 24 * 3600

LANGUAGE = (
    "-std=c++17", "-fno-exceptions", "-fno-rtti", "-nostdinc++",
    "-Xclang", "-cl-single-precision-constant",
    "-Xclang", "-ffloat16-excess-precision=none", "-Xclang", "-fbfloat16-excess-precision=none",
    *(("-mf16c", "-mfma") if platform.machine() == "x86_64" else ()),
)
WARNINGS = (
    "-Wno-everything", "-Wno-c++11-narrowing", "-Wno-reserved-user-defined-literal",
    "-Werror=uninitialized", "-Werror=return-type",
)
# By -Xclang, because zig's driver drops all of these but the first.
_UNDEFINED = "array-bounds,shift-base,shift-exponent,integer-divide-by-zero,null,alignment," \
             "float-cast-overflow,signed-integer-overflow"
CHECKED = (
    "-O1", "-fno-vectorize", "-fno-slp-vectorize", "-fno-builtin-memset", "-ftrivial-auto-var-init=pattern",
    "-fsanitize=thread", "-Xclang", f"-fsanitize={_UNDEFINED}", "-Xclang", f"-fsanitize-recover={_UNDEFINED}",
    "-mllvm", "-tsan-instrument-func-entry-exit=0", "-mllvm", "-tsan-instrument-read-before-write=1",
)
UNCHECKED = ("-O2",)
LINK = ("-shared", "-nostdlib++", "-O2", "-fno-sanitize=undefined")  # without the last zig links its own hooks


class CompileError(RuntimeError):
    """The kernel does not compile; the message is clang's."""


@cache
def find_compiler() -> tuple[str, ...] | None:
    """clang++ of version 17 or newer, or the ziglang wheel's; None when there is neither."""
    for name in (*(f"clang++-{number}" for number in range(30, 16, -1)), "clang++"):
        if (path := shutil.which(name)) and _version((path,)) >= 17:
            return (path,)
    return (sys.executable, "-m", "ziglang", "c++") if find_spec("ziglang") else None


def _version(command: Sequence[str]) -> int:
    said = subprocess.run([*command, "--version"], capture_output=True, text=True).stdout
    m = re.search(r"clang version (\d+)", said)
    return int(m[1]) if m else 0


def why_unavailable() -> str | None:
    """One line for pytest.skip, or None."""
    if sys.platform != "linux":
        return "the Metal simulator runs on Linux"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"the Metal simulator has no context switch for {platform.machine()}"
    if not find_compiler():
        return "the Metal simulator needs clang 17 or newer: apt-get install clang-19, or pip install ziglang"
    return None


def compiler() -> tuple[str, ...]:
    if reason := why_unavailable():
        raise RuntimeError(reason)
    return find_compiler() or ()


@cache
def cache_folder() -> Path:
    """One a user, not to be written by others: what lies in it is loaded and run. Old files go."""
    folder = Path(tempfile.gettempdir()) / f"metalsim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022:
        raise RuntimeError(f"{folder} belongs to someone else, or others may write to it: remove it")
    for path in folder.iterdir():
        if path.is_file() and path.stat().st_mtime < time.time() - KEEP_SECONDS:
            path.unlink(missing_ok=True)
    return folder


def mlx_include() -> Path:
    return Path(mx.__file__).parent / "include"


@cache
def include_flags() -> tuple[str, ...]:
    """Our headers before MLX's; a forwarding <metal_...> for each of Apple's."""
    forwarding = cache_folder() / "include"
    forwarding.mkdir(exist_ok=True)
    for name in FORWARDED:
        (forwarding / f"metal_{name}").write_text('#include "msl.h"\n', encoding="utf-8")
    return tuple(f"-I{path}" for path in (HERE / "msl", HERE / "runtime", forwarding, mlx_include()))


def run(arguments: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*compiler(), *arguments], input=text, capture_output=True, text=True)


def errors(arguments: Sequence[str], text: str) -> list[str]:
    """clang's error lines. To an object that is thrown away: zig cannot check syntax only."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
        done = run([*arguments, "-c", "-x", "c++", "-", "-o", f"{work}/thrown-away.o"], text)
    found = [line for line in done.stderr.splitlines() if re.search(r":\d+:\d+: (?:fatal )?error: ", line)]
    if done.returncode and not found:
        raise CompileError(done.stderr)
    return found


def _must_run(arguments: Sequence[str], text: str | None = None) -> None:
    done = run(arguments, text)
    if done.returncode:
        raise CompileError(done.stderr)


@cache
def _files_key(folder: str) -> str:
    files = sorted(p for p in (HERE / folder).rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def _cached(name: str, parts: object, flags: Sequence[str], text: str) -> Path:
    """The shared library of this text, compiled unless it was before."""
    key = hashlib.sha256(repr((parts, flags, LINK, compiler(), text)).encode()).hexdigest()[:24]
    library = cache_folder() / f"{name}-{key}.so"
    if library.exists():
        library.touch()
        return library
    with tempfile.TemporaryDirectory(dir=cache_folder()) as work:
        made, thing = f"{work}/made.so", f"{work}/made.o"
        _must_run([*flags, "-fPIC", "-c", "-x", "c++", "-", "-o", thing], text)
        _must_run([*LINK, thing, "-lm", "-o", made])
        os.replace(made, library)
    return library


@cache
def runtime() -> ctypes.CDLL:
    """The runtime; its hooks are global, so that kernels find them."""
    flags = ("-std=c++17", "-O2", "-g1", "-Wno-everything", f"-I{HERE / 'runtime'}")
    library = _cached("runtime", _files_key("runtime"), flags, '#include "runtime.cpp"\n')
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


@cache
def load_kernel(text: str, checked: bool, contract: str, defines: tuple[str, ...]) -> tuple[ctypes.CDLL, str]:
    """A kernel's library, and its path."""
    runtime()
    flags = (*LANGUAGE, *WARNINGS, "-gline-tables-only", *(CHECKED if checked else UNCHECKED),
             f"-ffp-contract={contract}", *(f"-D{d}" for d in defines), *include_flags())
    parts = (_files_key("msl"), _files_key("runtime"), version("mlx"))
    library = _cached("kernel", parts, flags, text)
    return ctypes.CDLL(str(library)), str(library)
