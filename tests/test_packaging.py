"""The wheel holds every package, nothing else, and works from outside the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "mlx_audio_r1" / "nano" / "sample.wav"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-P", "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)],
        check=True, capture_output=True,
    )
    [built] = out.glob("*.whl")
    return built


def test_nothing_but_the_package_lands_in_site_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"mlx_audio_r1"}


def test_every_module_and_the_nano_checkpoint_are_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, prefix in ((ROOT / "mlx_audio_r1", ""), (ROOT / "cli", "cli/"), (ROOT / "convert", "convert/")):
        for path in folder.rglob("*.py"):
            assert f"mlx_audio_r1/{prefix}{path.relative_to(folder).as_posix()}" in names
    for path in (ROOT / "mlx_audio_r1" / "kernels" / "metal").iterdir():
        assert f"mlx_audio_r1/kernels/metal/{path.name}" in names
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert f"mlx_audio_r1/nano/checkpoint/{name}" in names
    assert {"mlx_audio_r1/py.typed", "mlx_audio_r1/nano/sample.wav"} <= names


def test_the_embedded_checkpoint_takes_at_most_8_megabytes(wheel):
    with zipfile.ZipFile(wheel) as archive:
        nano = [i.file_size for i in archive.infolist() if "/nano/checkpoint/" in i.filename]
    assert 0 < sum(nano) <= 8_000_000


def test_it_answers_from_the_wheel_alone(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)],
        check=True, capture_output=True,
    )
    code = (
        "import mlx_audio_r1; from mlx_audio_r1.cli.main import main; import sys\n"
        "print(mlx_audio_r1.__file__, file=sys.stderr); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ask", str(SAMPLE), "-p", "What kind of sound is it?"],
        env={**os.environ, "PYTHONPATH": str(site)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )
    assert done.stderr.startswith(str(site))
    assert done.stdout.strip()
