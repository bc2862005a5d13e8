"""Conversions in processes of their own, to be killed, starved of disk, or pointed at another hub.

Reads one JSON request a line, answers one JSON line. On Linux each request runs in a fork of a process
that has done the imports, so a hundred of them take seconds; elsewhere it is a fresh process.

A request holds hf_path, mlx_path, recipe, options, and what should happen to it: `kill_at` (SIGKILL at
this many file-system operations), `kill_after` (this many tensors), `step_delay` (seconds a tensor),
`file_limit` (bytes a file may have).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

# Audit events of operations that change the disk; a kill goes right before one of them.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree", "shutil.copyfile")


def convert_one(request: dict, out: int) -> None:
    from mlx_audio_r1.convert import Options, Recipe, convert
    from mlx_audio_r1.errors import AudioR1Error

    said: list[str] = []
    seen = {"count": 0}

    def watch(event: str, args: tuple) -> None:
        changing = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & 3)
        if changing:
            seen["count"] += 1
            if seen["count"] == request.get("kill_at"):
                os.kill(os.getpid(), signal.SIGKILL)

    def progress(done: int, total: int) -> None:
        if "begun" not in seen:
            seen["begun"] = 1
            os.write(out, b'{"begun": true}\n')
        seen["tensors"] = seen.get("tensors", -1) + 1
        if seen["tensors"] == request.get("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(request.get("step_delay", 0))

    if limit := request.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.addaudithook(watch)
    before = peak_memory()
    try:
        options = Options(**request.get("options", {}), say=said.append, progress=progress)
        recipe = Recipe(**request.get("recipe", {}))
        answer = {"ok": str(convert(request["hf_path"], request["mlx_path"], recipe, options))}
    except AudioR1Error as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    answer |= {"said": said, "changes": seen["count"], "memory": peak_memory() - before}
    os.write(out, json.dumps(answer).encode() + b"\n")


def peak_memory() -> int:
    """Most bytes this process has had in memory.

    On Linux ru_maxrss will not do: it survives exec, so it can be the peak of the parent.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def in_a_fork(line: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            convert_one(json.loads(line), 1)
        finally:
            os._exit(70)  # answered already, or died of something that is no AudioR1Error
    return os.waitpid(child, 0)[1]


def in_a_process(line: str) -> int:
    return subprocess.run([sys.executable, __file__, line], stderr=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        convert_one(json.loads(sys.argv[1]), 1)
        sys.exit(70)
    from mlx_audio_r1.cli.startup import import_engine

    import_engine()
    import mlx_audio_r1.convert.flow  # noqa: F401

    for line in sys.stdin:
        status = (in_a_fork if sys.platform == "linux" else in_a_process)(line)
        os.write(1, json.dumps({"ended": status}).encode() + b"\n")
