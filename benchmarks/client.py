"""What a chunk costs our side of vLLM: making the request, sending it, reading the answer.

The engine is the real one, with many chunks of 30 s of noise in flight. The server is a stand-in in
a process of its own, which swallows a request and answers the same text some seconds later.

    python -m benchmarks.client [--slots 64 256 512] [--delay 3]

The stand-in alone, for the whole service in front of it (benchmarks/gpu/service.py):

    python -m benchmarks.client --serve 9111 --delay 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from asr.config import DecodeOptions
from asr.engines.vllm_http import VllmHttpEngine, VllmOptions
from asr.errors import EngineUnavailable
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.measure import save
from benchmarks.serving import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS: Final = 30
ROUNDS: Final = 3
SPREAD: Final = 0.25
"""The part of the delay by which an answer comes earlier or later."""
START_SECONDS: Final = 10.0
MODELS: Final = {"data": [{"id": "omni"}]}
ANSWER: Final = {
    "choices": [{"message": {"role": "assistant", "content": "and so it went on"}, "index": 0}],
    "usage": {"prompt_tokens": 420, "completion_tokens": 100},
}


async def answer(delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: a chat after a while, everything else at once."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            left = int(length[1]) if length else 0
            while left:
                left -= len(await reader.read(left))
            is_chat = head.startswith(b"POST")
            if is_chat:
                await asyncio.sleep(delay * random.uniform(1 - SPREAD, 1 + SPREAD))
            body = json.dumps(ANSWER if is_chat else MODELS).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    writer.close()


async def serve(port: int, delay: float) -> None:
    """Be the server."""
    handle = functools.partial(answer, delay)
    server = await asyncio.start_server(handle, "127.0.0.1", port, limit=1 << 21, backlog=2048)
    await server.serve_forever()


@contextlib.contextmanager
def standing_in(delay: float) -> Iterator[str]:
    """The server in a process of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.client", "--serve", str(port)]
    with subprocess.Popen([*command, "--delay", str(delay)]) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


async def open_engine(url: str, slots: int) -> VllmHttpEngine:
    """The engine, once the server is there."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        engine = VllmHttpEngine(VllmOptions((url,), slots=slots))
        try:
            await engine.open()
        except EngineUnavailable:
            await engine.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return engine


async def measure(url: str, slots: int, delay: float) -> dict[str, Any]:
    """Send `ROUNDS` times as many chunks as are in flight at once."""
    engine = await open_engine(url, slots)
    noise = np.random.default_rng(0).standard_normal(SECONDS * SAMPLE_RATE).astype(np.float32)
    audio = Audio(noise * 0.1)
    n_chunks, free = ROUNDS * slots, asyncio.Semaphore(slots)

    async def transcribe(index: int) -> None:
        async with free:
            chunk = Chunk(index, index * len(noise), (index + 1) * len(noise))
            await engine.transcribe(chunk, audio, DecodeOptions())

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(transcribe, range(n_chunks)))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    await engine.close()
    return {
        "in flight": slots,
        "chunks/s": round(n_chunks / wall, 1),
        "at best": round(slots / delay, 1),
        "CPU ms a chunk": round(1000 * cpu / n_chunks, 1),
    }


def main() -> None:
    """Measure, or be the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--delay", type=float, default=3.0, help="seconds to an answer")
    parser.add_argument("--serve", type=int, metavar="PORT", help="only be the server")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.delay))
        return
    with standing_in(options.delay) as url:
        rows = [asyncio.run(measure(url, slots, options.delay)) for slots in options.slots]
    save("client", rows)


if __name__ == "__main__":
    main()
