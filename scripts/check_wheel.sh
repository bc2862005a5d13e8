#!/usr/bin/env bash
# Build the wheel, install it and its dependencies into an environment of its own, and use it from there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/build"
"$work/build/bin/python" -m pip install --quiet --disable-pip-version-check build
"$work/build/bin/python" -P -m build --wheel --outdir "$work/dist" "$root" >/dev/null
"$python" -m venv "$work/user"
"$work/user/bin/python" -m pip install --quiet --disable-pip-version-check "$work"/dist/*.whl
cp "$root/mlx_audio_r1/nano/sample.wav" "$work/clip.wav"
cd "$work"
user/bin/audio-r1 --version
user/bin/audio-r1 ask clip.wav -p "Name all sounds in order." --json
