"""Measure how one key's requests are delayed while another key floods the service.

The service runs in its own processes, with an engine that answers at once (a test double). Key
"flood" does one of these, and key "other" is measured meanwhile:

- uploads: creates empty uploads over many connections; a short recording of the other key is timed.
- callbacks: ends jobs with callbacks to a receiver that never answers; a callback of the other key
  is timed, from the end of its job to its arrival.

    python -m benchmarks.neighbours [--uploads 3000] [--connections 64] [--callbacks 100]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import soundfile

from asr.service import serve
from asr.settings import Settings
from asr.types import SAMPLE_RATE
from benchmarks.measure import save
from benchmarks.pipeline import InstantEngine
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Generator

    from asr.engines.base import Engine

KEYS = ("flood", "other")
ROUTE = "/v1/audio/transcriptions"
CREATED = {"Tus-Resumable": "1.0.0", "Upload-Length": "0"}
RAW = {"Content-Type": "audio/wav"}
WAIT_SECONDS = 300.0


def make_engine(_: Settings) -> Engine:
    """The engine of the service."""
    return InstantEngine()


@contextlib.contextmanager
def service() -> Generator[str]:
    """The service with two keys; its address. The name of a key is its secret."""
    with tempfile.TemporaryDirectory() as name:
        digests = {key: hashlib.sha256(key.encode()).hexdigest() for key in KEYS}
        lines = [json.dumps({"name": key, "sha256": it}) for key, it in digests.items()]
        settings = {
            "ASR_API_KEYS": "\n".join(lines),
            "ASR_WORK_DIR": name,
            "ASR_DATA_DIR": f"{name}/data",
            "ASR_WEBHOOK_SECRET": "secret",
            "ASR_WEBHOOK_ALLOW_PRIVATE": "1",
            "ASR_LOG_LEVEL": "warning",
        }
        with serving(["-m", "benchmarks.neighbours", "--serve"], settings) as (url, _):
            yield url


def client(url: str, key: str) -> httpx.AsyncClient:
    """A client with one of the keys."""
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=None, limits=limits)


def recording(seconds: float, seed: int = 0) -> bytes:
    """Noise as a wav file; another seed gives another recording."""
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    target = io.BytesIO()
    soundfile.write(target, noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return target.getvalue()


async def post(http: httpx.AsyncClient, path: str, **arguments: Any) -> None:
    """Post until the service answers and has not failed. It closes idle connections."""
    while True:
        with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):
            answer = await http.post(path, **arguments)
            if answer.status_code < 500:
                answer.raise_for_status()
                return


async def timed_request(http: httpx.AsyncClient) -> float:
    """Seconds until a short recording is transcribed, with repetitions after status 503."""
    started = time.perf_counter()
    await post(http, ROUTE, content=recording(1.0), headers=RAW)
    return time.perf_counter() - started


async def flood_of_uploads(url: str, n_uploads: int, n_connections: int) -> dict[str, Any]:
    """Times of the other key alone, and while the uploads are created."""
    async with client(url, "flood") as flood, client(url, "other") as other:
        await timed_request(other)
        alone = [await timed_request(other) for _ in range(10)]
        left = iter(range(n_uploads))

        async def create() -> None:
            for _ in left:
                await post(flood, "/v1/uploads", headers=CREATED)

        started = time.perf_counter()
        work = asyncio.gather(*(create() for _ in range(n_connections)))
        beside = []
        while not work.done():
            beside.append(await timed_request(other))
        await work
        took = time.perf_counter() - started
        before = time.perf_counter()
        await post(flood, "/v1/uploads", headers=CREATED)
        last = time.perf_counter() - before
    return {
        "alone_median_s": round(statistics.median(alone), 3),
        "beside_median_s": round(statistics.median(beside), 3),
        "beside_max_s": round(max(beside), 3),
        "flood_s": round(took, 1),
        "one_more_upload_s": round(last, 3),
    }


class Receivers:
    """A receiver that never answers, and one that answers at once and notes when."""

    def __init__(self) -> None:
        self.arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def never(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read everything and answer nothing."""
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    async def at_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer 204."""
        await reader.readuntil(b"\r\n\r\n")
        if not self.arrived.done():
            self.arrived.set_result(time.perf_counter())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


async def create_job(http: httpx.AsyncClient, seed: int, callback: str) -> str | None:
    """The id of a job with a callback, or None if the callback is refused."""
    query = {"callback_url": callback}
    answer = await http.post("/v1/jobs", params=query, content=recording(1.0, seed), headers=RAW)
    return answer.json()["id"] if answer.is_success else None


async def ended(http: httpx.AsyncClient, job: str) -> None:
    """Wait until a job has ended."""
    while (await http.get(f"/v1/jobs/{job}")).json()["state"] != "succeeded":  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def flood_of_callbacks(url: str, n_callbacks: int) -> dict[str, Any]:
    """How long the other key's callback takes while the callbacks to the slow receiver are due."""
    receivers = Receivers()
    slow = await asyncio.start_server(receivers.never, "127.0.0.1", 0)
    quick = await asyncio.start_server(receivers.at_once, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (slow, quick)]
    async with client(url, "flood") as flood, client(url, "other") as other:
        n_accepted, seed = 0, 1
        for n in range(n_callbacks):  # as many as possible for one job, the rest for further jobs
            where = f"http://127.0.0.1:{ports[0]}/{n}"
            job = await create_job(flood, seed, where)
            if job is None:
                seed += 1
                job = await create_job(flood, seed, where)
            n_accepted += job is not None
        await asyncio.sleep(3)
        job = await create_job(other, 0, f"http://127.0.0.1:{ports[1]}/")
        await ended(other, job or "")
        started = time.perf_counter()
        async with asyncio.timeout(WAIT_SECONDS):
            arrived = await receivers.arrived
    slow.close()
    quick.close()
    return {
        "callbacks": n_accepted,
        "jobs": seed,
        "delay_s": round(max(0.0, arrived - started), 2),
    }


def main() -> None:
    """Measure both floods, each with a service of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uploads", type=int, default=3000, help="0: no flood")
    parser.add_argument("--connections", type=int, default=64, help="that create uploads")
    parser.add_argument("--callbacks", type=int, default=100, help="0: no flood")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from benchmarks.neighbours import make_engine as importable

        serve(Settings.from_env(), importable)
        return
    rows = []
    if options.uploads:
        with service() as url:
            found = asyncio.run(flood_of_uploads(url, options.uploads, options.connections))
        rows.append({"flood": "uploads", "uploads": options.uploads} | found)
    if options.callbacks:
        with service() as url:
            found = asyncio.run(flood_of_callbacks(url, options.callbacks))
        rows.append({"flood": "callbacks"} | found)
    save("neighbours", rows)


if __name__ == "__main__":
    main()
