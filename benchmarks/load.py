"""Load test: many clients for minutes, counting errors and measuring latency and memory.

The service runs in its own processes, with an engine that answers at once (a test double). Clients
transcribe files as text, subtitles or a stream; make jobs, follow them and fetch their subtitles;
upload in parts and transcribe the upload. Another client requests /health ten times a second.
Answers other than 2xx and 429 are errors. Memory is the sum of the resident sets of all processes,
so shared pages count several times.

    python -m benchmarks.load [--clients 50] [--minutes 10]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from asr.service import serve
from asr.settings import Settings
from benchmarks.measure import family, save
from benchmarks.pipeline import InstantEngine
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "meeting.wav"
ROUTE = "/v1/audio/transcriptions"
HEALTH_SECONDS = 0.1
MEMORY_SECONDS = 5.0
TUS = {"tus-resumable": "1.0.0"}


def make_engine(_: Settings) -> InstantEngine:
    """The engine of the worker process."""
    return InstantEngine()


class Tally:
    """Counts of answers, their latencies, and memory."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.health: list[float] = []
        self.memory: list[float] = []

    def note(self, answer: httpx.Response) -> bool:
        """Count an answer; return whether it is a success."""
        self.statuses[answer.status_code] += 1
        if not answer.is_success and answer.status_code != 429:
            self.errors[f"{answer.request.method} {answer.url.path}: {answer.status_code}"] += 1
        return answer.is_success


class Client:
    """One client."""

    def __init__(self, http: httpx.AsyncClient, tally: Tally, seed: int) -> None:
        self._http = http
        self._tally = tally
        self._random = random.Random(seed)
        self._wav = SAMPLE.read_bytes()[: 44 + 32_000 * self._random.randrange(5, 26)]

    async def run(self, until: float) -> None:
        """Do the tasks in turn; after 429, wait as long as the answer asks."""
        tasks: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {
            "file": self.file,
            "stream": self.stream,
            "job": self.job,
            "upload": self.upload,
        }
        while time.monotonic() < until:
            name = self._random.choice(list(tasks))
            try:
                self._tally.done[name] += await tasks[name]()
            except httpx.HTTPError as error:
                self._tally.errors[f"{name}: {type(error).__name__}"] += 1
            await asyncio.sleep(self._random.uniform(0.05, 1.0))

    async def file(self) -> bool:
        """Transcribe a file into one of the formats."""
        name = self._random.choice(["json", "srt", "vtt", "text", "verbose_json"])
        files = {"file": ("a.wav", self._wav)}
        answer = await self._http.post(ROUTE, files=files, data={"response_format": name})
        return self._tally.note(answer)

    async def stream(self) -> bool:
        """Send a raw body and read the stream of events."""
        headers, query = {"content-type": "audio/wav"}, {"stream": "true"}
        answer = await self._http.post(ROUTE, content=self._wav, headers=headers, params=query)
        return self._tally.note(answer) and "transcript.text.done" in answer.text

    async def job(self) -> bool:
        """Make a job, follow it, fetch its subtitles and delete it."""
        wav = self._wav[:-2] + self._random.randbytes(2)  # makes the recording a new one
        made = await self._http.post("/v1/jobs", content=wav, headers={"content-type": "audio/wav"})
        if not self._tally.note(made):
            return False
        url = f"/v1/jobs/{made.json()['id']}"
        events = await self._http.get(f"{url}/events")
        srt = await self._http.get(f"{url}/transcript.srt")
        gone = await self._http.delete(url)
        notes = [self._tally.note(answer) for answer in (events, srt, gone)]  # count all
        return all(notes)

    async def upload(self) -> bool:
        """Upload in three parts, transcribe the upload and delete it."""
        headers = TUS | {"upload-length": str(len(self._wav))}
        made = await self._http.post("/v1/uploads", headers=headers)
        if not self._tally.note(made):
            return False
        url = made.headers["location"]
        cuts = [0, len(self._wav) // 3, len(self._wav) // 2, len(self._wav)]
        for start, end in itertools.pairwise(cuts):
            part = TUS | {"upload-offset": str(start)}
            part |= {"content-type": "application/offset+octet-stream"}
            answer = await self._http.patch(url, content=self._wav[start:end], headers=part)
            if not self._tally.note(answer):
                return False
        upload = url.rpartition("/")[2]
        answer = await self._http.post(ROUTE, json={"upload_id": upload})
        gone = await self._http.delete(url, headers=TUS)
        notes = [self._tally.note(answer), self._tally.note(gone)]
        return all(notes)


async def watch_health(url: str, tally: Tally) -> None:
    """Measure the latency of /health on a separate connection."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        while True:
            started = time.perf_counter()
            answer = await http.get("/health")
            tally.health.append(time.perf_counter() - started)
            tally.note(answer)
            await asyncio.sleep(HEALTH_SECONDS)


async def watch_memory(root: int, tally: Tally) -> None:
    """The resident sets of a process and its descendants, in MB."""
    while True:
        tally.memory.append(await asyncio.to_thread(_resident, root))
        await asyncio.sleep(MEMORY_SECONDS)


def _resident(root: int) -> float:
    n_pages = 0
    for pid in family(root):
        with contextlib.suppress(OSError):
            n_pages += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return n_pages * os.sysconf("SC_PAGESIZE") / 1e6


@contextlib.contextmanager
def service() -> Generator[tuple[str, int]]:
    """Our service with an engine that answers at once; its address and main process."""
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        settings = {"ASR_DATA_DIR": folder, "ASR_LOG_LEVEL": "warning"}
        with serving(["-m", __spec__.name, "--serve"], settings) as running:
            yield running


async def measure(url: str, root: int, n_clients: int, seconds: float) -> Tally:
    """Run all clients for the given time."""
    tally, until = Tally(), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=2 * n_clients, keepalive_expiry=4)  # uvicorn: 5
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        watches = [asyncio.create_task(watch_health(url, tally))]
        watches.append(asyncio.create_task(watch_memory(root, tally)))
        clients = [Client(http, tally, seed) for seed in range(n_clients)]
        await asyncio.gather(*(client.run(until) for client in clients))
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
    return tally


def main() -> None:
    """Measure, or be the service that is measured."""
    if "--serve" in sys.argv:
        serve(Settings.from_env(), make_engine)
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with service() as (url, root):
        tally = asyncio.run(measure(url, root, options.clients, 60 * options.minutes))
    health, memory = sorted(tally.health), tally.memory
    settled = memory[len(memory) // 4 :]
    row = {
        "clients": options.clients,
        "minutes": options.minutes,
        **{f"{name}s done": n for name, n in sorted(tally.done.items())},
        "answers": sum(tally.statuses.values()),
        "429": tally.statuses[429],
        "errors": sum(tally.errors.values()),
        "/health p50 ms": round(1000 * health[len(health) // 2], 1),
        "/health p99 ms": round(1000 * health[int(0.99 * len(health))], 1),
        "/health max ms": round(1000 * health[-1], 1),
        "RSS MB after a quarter": round(settled[0]),
        "RSS MB at the end": round(sum(settled[-6:]) / len(settled[-6:])),
        "RSS MB at most": round(max(memory)),
    }
    save("load", [row])
    for what, n in tally.errors.most_common():
        print(f"error, {n} times: {what}")
    raise SystemExit(1 if tally.errors else 0)


if __name__ == "__main__":
    main()
