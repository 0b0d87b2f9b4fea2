"""Raw vLLM: noise chunks at several concurrencies, straight to chat completions.

With several servers, chunks go to them in turn and the concurrency is that of all together.

The requests are those of the service, so that the two can be compared. Every chunk is sent once, so
no cache answers for the encoder, and every answer has the same number of tokens. Two passes for
each concurrency; the first, which compiles kernels, is marked.

Where a chunk's time goes is what the servers' own metrics say: `queue_s`, `prefill_s` and
`decode_s` are means of a request inside the engine, `outside_s` is the rest of what the client
waited (network, JSON, base64, mel), `running` is how many were inside on average, and
`prompt_tokens` a mean too. `steps` are the engine's, counted by each API process that has a chunk
in them; `big_steps` those of over 256 tokens: more than decoding takes, so chunks began in them.
benchmarks.gpu.steps counts better.

    python -m benchmarks.gpu.load http://127.0.0.1:8000 --concurrency 16 256 [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
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
    """What to send: `n_chunks` of `seconds`, `concurrency` at once, `n_tokens` each answer."""

    urls: tuple[str, ...]
    model: str
    seconds: float
    n_tokens: int
    concurrency: int
    n_chunks: int


def fixed_length(n_tokens: int) -> Dialect:
    """The dialect of vLLM, with answers of so many tokens.

    Random weights give log-probabilities that are no numbers, which vLLM answers with 400.
    """
    length = {"max_tokens": n_tokens, "min_tokens": n_tokens, "ignore_eos": True}
    return replace(DIALECTS["vllm"], logprobs={**length, "logprobs": False})


def make_body(load: Load, noise: np.ndarray, start: int) -> bytes:
    """What the service sends, with samples of the noise that begin at `start`."""
    audio = Audio(noise[start : start + round(load.seconds * SAMPLE_RATE)])
    return request_body(load.model, audio, DecodeOptions(), fixed_length(load.n_tokens), "wav")


async def read_metrics(client: httpx.AsyncClient, urls: tuple[str, ...]) -> Counter[str]:
    """Every counter of the servers, added up over servers, models and engines.

    The buckets of a histogram keep their bound in the name.
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
    """What the servers counted during a pass of so many seconds."""
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


def make_client() -> httpx.AsyncClient:
    """Connections that are idle end before the server ends them."""
    headers = {"content-type": "application/json"}
    limits = httpx.Limits(keepalive_expiry=1)
    return httpx.AsyncClient(headers=headers, limits=limits)


async def run(load: Load) -> dict[str, Any]:
    """Send everything and say how fast it was answered."""
    rng = np.random.default_rng(time.time_ns())
    n_noise = round(load.seconds * SAMPLE_RATE) + 64 * load.n_chunks
    noise = 0.1 * rng.standard_normal(n_noise, dtype=np.float32)
    bodies = [make_body(load, noise, 64 * i) for i in range(load.n_chunks)]
    latencies: list[float] = []
    slots = asyncio.Semaphore(load.concurrency)
    connections = Connections(load.concurrency, make_client)

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
    """Run every concurrency twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--model", default="omni")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--rounds", type=int, default=3, help="chunks = rounds x concurrency")
    parser.add_argument("--no-warm-up", action="store_true", help="count the first pass")
    options = parser.parse_args()
    passes = ["measured"] if options.no_warm_up else ["warm-up", "measured"]
    for name in passes:
        for n in options.concurrency:
            rounds = options.rounds if name == "measured" else 1
            what = (options.seconds, options.tokens, n, max(rounds * n, 4))
            row = asyncio.run(run(Load(tuple(options.urls), options.model, *what)))
            print(json.dumps({"raw": name, **row}), flush=True)


if __name__ == "__main__":
    main()
