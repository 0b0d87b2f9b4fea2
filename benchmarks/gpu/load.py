"""Measure raw vLLM: send chunks of noise to chat completions at several concurrencies.

With several servers, chunks go to the servers in turn. The concurrency is the total over all
servers.

The requests are the same as the service's, so the two speeds can be compared. Every chunk has
different samples, so the encoder cache never has an answer. Every answer has the same number of
tokens. Each concurrency runs twice, first to compile kernels. The rows of these first passes are
marked `"raw": "warm-up"`; `--no-warm-up` leaves them out.

The servers' own metrics show where a chunk's time goes:

- `queue_s`, `prefill_s` and `decode_s` are means per chunk inside the engine.
- `outside_s` is the rest of the client's mean waiting time (network, JSON, base64, mel).
- `running` is the mean number of chunks in prefill or decoding.
- `prompt_tokens` is the mean per chunk.
- `steps` are engine steps. Each API process counts the steps that contain one of its chunks, so
  with several API processes a step can be counted more than once.
- `big_steps` are steps of more than 256 tokens. Decoding takes one token per running chunk, so with
  up to 256 running chunks per engine, at least one chunk starts in such a step.

benchmarks.gpu.steps counts steps more exactly.

    python -m benchmarks.gpu.load http://127.0.0.1:8000 --concurrency 16 256 [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np

from asr.config import DecodeOptions
from asr.engines.omni.connections import Connections
from asr.engines.omni.dialects import DIALECTS, Dialect, request_body
from asr.types import SAMPLE_RATE, Audio

INSIDE = ("queue", "prefill", "decode")
STEPS = "vllm:iteration_tokens_total"


@dataclass(frozen=True, slots=True)
class Load:
    """One pass: `n_chunks` chunks of `seconds`, `concurrency` at once, `n_tokens` per answer."""

    urls: tuple[str, ...]
    model: str
    seconds: float
    n_tokens: int
    concurrency: int
    n_chunks: int
    keeps_connections: bool = False


def fixed_length(n_tokens: int) -> Dialect:
    """The vLLM dialect, with answers of exactly `n_tokens` tokens and without log-probabilities.

    Random weights give log-probabilities that are not numbers, and vLLM then answers 400.
    """
    length = {"max_tokens": n_tokens, "min_tokens": n_tokens, "ignore_eos": True}
    return replace(DIALECTS["vllm"], logprobs={**length, "logprobs": False})


def make_body(load: Load, noise: np.ndarray, start: int) -> bytes:
    """The service's request for a chunk of `noise` that begins at sample `start`."""
    audio = Audio(noise[start : start + round(load.seconds * SAMPLE_RATE)])
    return request_body(load.model, audio, DecodeOptions(), fixed_length(load.n_tokens), "wav")


async def read_metrics(client: httpx.AsyncClient, urls: tuple[str, ...]) -> Counter[str]:
    """Every vLLM metric, added up over servers, models and engines.

    The key of a histogram bucket is the metric's name, a space and the bucket's upper bound.
    """
    total: Counter[str] = Counter()
    for url in urls:
        for line in (await client.get(url + "/metrics")).text.splitlines():
            if line.startswith("vllm:"):
                series, value = line.rsplit(" ", 1)
                name, _, labels = series.partition("{")
                bound = labels.partition('le="')[2].partition('"')[0]
                key = f"{name} {bound}" if bound else name
                total[key] += float(value)  # type: ignore[assignment]
    return total


def explain(counted: Counter[str], wall: float) -> dict[str, float]:
    """The output fields from what the servers counted during a pass of `wall` seconds."""
    n_chunks = counted["vllm:request_decode_time_seconds_count"]
    if not n_chunks:
        return {}
    inside = {
        f"{part}_s": counted[f"vllm:request_{part}_time_seconds_sum"] / n_chunks for part in INSIDE
    }
    n_steps = counted[f"{STEPS}_count"]
    row = {
        "chunks": n_chunks,
        "chunks_per_s": n_chunks / wall,
        "prompt_tokens": counted["vllm:prompt_tokens_total"] / n_chunks,
        **inside,
        "running": n_chunks / wall * (inside["prefill_s"] + inside["decode_s"]),
        "steps": n_steps,
        "big_steps": n_steps - counted[f"{STEPS}_bucket 256.0"],
    }
    return {name: round(value, 2) for name, value in row.items()}


def make_client(kept: int | None = 0) -> httpx.AsyncClient:
    """A client like the service's, with a connection for each request.

    With None for `kept`, connections are kept until they were idle for 1 s. Then the server's API
    processes get unequal shares of the requests.
    """
    headers = {"content-type": "application/json"}
    limits = httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=1)
    return httpx.AsyncClient(headers=headers, limits=limits)


async def run(load: Load) -> dict[str, Any]:
    """Send all chunks of one pass and return its output row."""
    rng = np.random.default_rng(time.time_ns())
    n_noise = round(load.seconds * SAMPLE_RATE) + 64 * load.n_chunks
    noise = 0.1 * rng.standard_normal(n_noise, dtype=np.float32)
    bodies = [make_body(load, noise, 64 * i) for i in range(load.n_chunks)]
    latencies: list[float] = []
    slots = asyncio.Semaphore(load.concurrency)
    kept = None if load.keeps_connections else 0
    connections = Connections(load.concurrency, functools.partial(make_client, kept))

    async def send(index: int, body: bytes) -> None:
        url = load.urls[index % len(load.urls)] + "/v1/chat/completions"
        async with slots:
            started = time.perf_counter()
            answer = await connections.post(url, body, httpx.Timeout(500))
            answer.raise_for_status()
            latencies.append(time.perf_counter() - started)

    async with make_client() as client:
        before = await read_metrics(client, load.urls)
        started = time.perf_counter()
        await asyncio.gather(*(send(*it) for it in enumerate(bodies)))
        wall = time.perf_counter() - started
        after = await read_metrics(client, load.urls)
    await connections.close()
    after.subtract(before)
    counted = explain(after, wall)
    return {
        "concurrency": load.concurrency,
        "chunk_s": load.seconds,
        "tokens": load.n_tokens,
        "wall_s": round(wall, 2),
        "rtfx": round(load.n_chunks * load.seconds / wall),
        "p50_s": round(float(np.quantile(latencies, 0.5)), 2),
        "p95_s": round(float(np.quantile(latencies, 0.95)), 2),
        **counted,
        "outside_s": round(np.mean(latencies) - sum(counted.get(f"{it}_s", 0) for it in INSIDE), 2),
    }


def main() -> None:
    """Run every concurrency, after a warm-up pass unless it is switched off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--model", default="omni")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--rounds", type=int, default=3, help="chunks = rounds x concurrency")
    parser.add_argument("--no-warm-up", action="store_true", help="leave out the warm-up passes")
    parser.add_argument("--keep-connections", action="store_true")
    options = parser.parse_args()
    passes = ["measured"] if options.no_warm_up else ["warm-up", "measured"]
    for name in passes:
        for n in options.concurrency:
            rounds = options.rounds if name == "measured" else 1
            what = (options.seconds, options.tokens, n, max(rounds * n, 4))
            load = Load(tuple(options.urls), options.model, *what, options.keep_connections)
            row = asyncio.run(run(load))
            print(json.dumps({"raw": name, **row}), flush=True)


if __name__ == "__main__":
    main()
