"""Does the server's memory stay flat, and how much does it answer? Prints a line for every tenth.

    python benchmarks/serve_soak.py --model nano --requests 2000 --clients 32

Starts `audio-r1 serve` as a process of its own and sends it short sounds with questions: four in five
are answered whole, one in five is a stream whose reader leaves. Resident memory is that of the server
alone, as `ps` tells it. The text of the replies is not looked at.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import subprocess
import sys
import threading
import time
import wave
from collections import Counter
from http.client import HTTPConnection

import numpy as np


def clip(seconds: float, hertz: float) -> str:
    """A tone as WAV, in base64."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((9_000 * np.sin(2 * np.pi * hertz * t)).astype("<i2").tobytes())
    return base64.b64encode(buffer.getvalue()).decode()


def body(rng: random.Random, clips: list[str], stream: bool) -> str:
    sound = {"type": "input_audio", "input_audio": {"data": rng.choice(clips), "format": "wav"}}
    question = {"type": "text", "text": f"What is it? ({rng.randrange(100)})"}
    return json.dumps({"messages": [{"role": "user", "content": [sound, question]}], "max_tokens": 32,
                       "thinking_budget": 12, "temperature": 0.7, "stream": stream})


def client(port: int, seed: int, count: int, clips: list[str], seen: Counter[str], times: list[float]) -> None:
    """`count` requests, one after the other."""
    rng, connection = random.Random(seed), HTTPConnection("127.0.0.1", port, timeout=300)
    for i in range(count):
        leave, started = (seed + i) % 5 == 4, time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body(rng, clips, leave),
                           {"content-type": "application/json"})
        response = connection.getresponse()
        if leave:
            response.read(1)
            connection.close()
            seen["left"] += 1
            continue
        usage = json.loads(response.read()).get("usage", {})
        times.append(time.perf_counter() - started)
        seen[str(response.status)] += 1
        seen["tokens"] += usage.get("completion_tokens", 0)
    connection.close()


def resident_megabytes(process: subprocess.Popen[str]) -> float:
    command = ["ps", "-o", "rss=", "-p", str(process.pid)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    clips = [clip(0.4 + 0.2 * i, 150 + 60 * i) for i in range(12)]
    command = "from mlx_audio_r1.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--model", given.model, "--port", "0",
         "--log-level", "warning", "--prompt-cache-bytes", "20000000"],
        stderr=subprocess.PIPE, text=True,
    )
    try:
        address = next(line for line in process.stderr or () if line.startswith("serving"))
        port = int(address.split("127.0.0.1:")[1].split("/")[0])
        for tenth in range(10):
            seen: Counter[str] = Counter()
            times: list[float] = []
            share = max(1, given.requests // 10 // given.clients)
            threads = [threading.Thread(target=client, args=(port, 100 * tenth + i, share, clips, seen, times))
                       for i in range(given.clients)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - started
            print(f"{resident_megabytes(process):8.1f} MB  {sum(seen.values()) - seen['tokens']:4d} requests "
                  f"{took:6.1f} s  {seen['tokens'] / took:6.1f} tokens/s  median {np.median(times):.2f} s  "
                  f"{dict(seen)}", flush=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
