"""Imports point down only, and what is heavy stays away from `--help`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [  # lowest first; a module may import its own layer and those before it
    {"errors", "config", "blas", "files", "record_file"},
    {"kernels", "report"},
    {"audio", "audio_decode", "audio_format", "mel", "tokenizer", "prompt", "reasoning"},
    {"models"},
    {"hub", "hub_errors", "weights", "footprint", "footprint_training", "plan", "plan_training",
     "rates", "plan_mgrd", "plan_mgrd_phases", "memory",
     "adapters", "adapter_config", "adapter_files", "adapters_peft"},
    {"generate", "batch", "prompt_cache", "reading"},
    {"reply", "session", "many", "tasks", "judges"},
    {"jobs"},
    {"convert", "train", "evaluate", "serve"},
    {"mgrd"},
    {"nano", "cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PACKAGE = "mlx_audio_r1"
FOLDERS = {"convert": ROOT / "convert", "cli": ROOT / "cli"}


def sources() -> list[tuple[str, Path]]:
    """(dotted name inside the package, file) of every module."""
    found = []
    for folder, prefix in [(ROOT / PACKAGE, ""), *((p, f"{n}.") for n, p in FOLDERS.items())]:
        for path in sorted(folder.rglob("*.py")):
            name = prefix + ".".join(path.relative_to(folder).with_suffix("").parts)
            found.append((name, path))
    return found


def imported(path: Path) -> set[str]:
    """Names below the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith(f"{PACKAGE}.")}
    return names & RANK.keys()


@pytest.mark.parametrize(("name", "path"), sources(), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_point_down(name, path):
    own = name.split(".")[0]
    if own == "__init__":
        return  # the public API is found lazily
    assert own in RANK, f"{name} has no layer: add it to LAYERS"
    above = {other for other in imported(path) if RANK[other] > RANK[own]}
    assert not above, f"{name} imports {sorted(above)} from a higher layer"


def test_no_relative_imports_and_no_print_in_the_library():
    for name, path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{name}: relative import"
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            script = name.startswith(("cli.", "nano."))
            assert script or not (called and node.func.id == "print"), f"{name}: print"


def test_environment_is_read_in_the_cli_alone():
    for name, path in sources():
        if not name.startswith("cli."):
            assert "os.environ" not in path.read_text(encoding="utf-8"), name


HEAVY = ("mlx.core", "mlx_lm", "numpy", "transformers", "soundfile", "huggingface_hub", "torch")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ask", "-h"], ["convert", "-h"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom mlx_audio_r1.cli.main import cli\n"
        f"try: cli({arguments!r}, prog_name='audio-r1')\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_every_package_is_listed_for_the_wheel():
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    tree = set()
    for name, path in sources():
        if path.name == "__init__.py":
            package = name.removesuffix("__init__").rstrip(".")
            tree.add(f"{PACKAGE}.{package}".rstrip("."))
    assert tree == listed
