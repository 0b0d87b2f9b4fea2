"""CPU time of our client of vLLM per chunk: build the request, send it, read the answer.

The engine is the real one, with many chunks of 30 s of noise in flight. The server is a stand-in in
its own process, which reads a request and returns a fixed text some seconds later.

    python -m benchmarks.client [--slots 64 256 512] [--delay 3]

Start only the stand-in, to measure the whole service (benchmarks/gpu/service.py):

    ASR_PORT=9111 python -m benchmarks.client --serve --delay 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import re
import time
from typing import Any, Final

import numpy as np

from asr.config import DecodeOptions
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.types import SAMPLE_RATE, Audio, Chunk
from benchmarks.measure import save
from benchmarks.serving import serving

SECONDS: Final = 30
ROUNDS: Final = 3
SPREAD: Final = 0.25
"""Answers come earlier or later by up to this fraction of the delay."""
MODELS: Final = {"data": [{"id": "omni"}]}
ANSWER: Final = {
    "choices": [{"message": {"role": "assistant", "content": "and so it went on"}, "index": 0}],
    "usage": {"prompt_tokens": 420, "completion_tokens": 100},
}


async def answer(delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: answer a chat after the delay, everything else at once."""
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
    """Run the stand-in server."""
    handle = functools.partial(answer, delay)
    server = await asyncio.start_server(handle, "127.0.0.1", port, limit=1 << 21, backlog=2048)
    await server.serve_forever()


async def measure(url: str, slots: int, delay: float) -> dict[str, Any]:
    """Transcribe `ROUNDS * slots` chunks, `slots` at once."""
    engine = VllmHttpEngine(VllmOptions((url,), slots=slots))
    await engine.open()
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
    """Measure, or run the stand-in server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--delay", type=float, default=3.0, help="seconds to an answer")
    parser.add_argument("--serve", action="store_true", help="only be the server, on ASR_PORT")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(int(os.environ["ASR_PORT"]), options.delay))
        return
    command = ["-m", __spec__.name, "--serve", "--delay", str(options.delay)]
    with serving(command, {}) as (url, _):
        rows = [asyncio.run(measure(url, slots, options.delay)) for slots in options.slots]
    save("client", rows)


if __name__ == "__main__":
    main()
