"""Measure how the processes of a server that share a port share the requests of our client.

vLLM with `--api-server-count` has such processes: whoever is first accepts a connection, and the
connection stays with that process. The server here is uvicorn with four processes, of which each
request needs 6 ms of CPU and waits 0.3 s. The output has the requests of each process, with kept
connections and with a new connection for each request, in turn.

    python -m benchmarks.api_processes [--runs 3] [--slots 128] [--requests 900]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx

from asr.engines.omni.connections import Connections

PORT = 8765
URL = f"http://127.0.0.1:{PORT}/"
N_PROCESSES = 4
BODY = bytes(200_000)


def work(seconds: float) -> None:
    """Use the CPU for so many seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(3000))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer each request with the number of the process."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await asyncio.to_thread(work, 0.006)
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def shares(kept: int | None, n_requests: int, n_slots: int) -> list[int]:
    """The number of requests that each process answered, largest first."""
    limits = httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=1)
    connections = Connections(n_slots, lambda: httpx.AsyncClient(limits=limits))
    slots, answered = asyncio.Semaphore(n_slots), Counter[str]()

    async def ask() -> None:
        async with slots:
            answer = await connections.post(URL, BODY, httpx.Timeout(60))
            answered[answer.text] += 1

    await asyncio.gather(*(ask() for _ in range(n_requests)))
    await connections.close()
    counts = sorted(answered.values(), reverse=True)
    return counts + [0] * (N_PROCESSES - len(counts))


def main() -> None:
    """Start the server, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--requests", type=int, default=900)
    options = parser.parse_args()
    flags = ["--workers", str(N_PROCESSES), "--port", str(PORT), "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.api_processes:app", *flags]
    with subprocess.Popen(command) as server:
        try:
            while True:
                try:
                    httpx.get(URL, timeout=5)
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            for _ in range(options.runs):
                for name, kept in (("kept", None), ("new", 0)):
                    counts = asyncio.run(shares(kept, options.requests, options.slots))
                    print(
                        name, counts, f"largest share {max(counts) / sum(counts):.0%}", flush=True
                    )
                    time.sleep(2)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
