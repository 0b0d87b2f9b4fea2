"""What the routes of the web page cost for a recording of ten hours with 90,000 words.

    python -m benchmarks.page_routes [--hours 10]

It makes a job with a synthetic transcript and a synthetic recording (tones and noise, as FLAC), and
measures each route: seconds, CPU seconds of this process and of its children, bytes of the answer,
and the longest time for which the event loop did nothing else. No model runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import resource
import tempfile
import time
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import soundfile
from fastapi import FastAPI

from asr.config import ChunkOptions, DecodeOptions, SubtitleOptions, VadOptions
from asr.pipeline.checkpoint import pack_segment, pack_summary
from asr.service.app import Application
from asr.service.jobs.database import Database
from asr.service.jobs.leases import Leases, NewResults
from asr.service.jobs.recordings import Recordings
from asr.service.jobs.request import JobRequest
from asr.service.jobs.rows import NewJob
from asr.service.jobs.store import JobStore
from asr.settings import Settings
from asr.types import Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

WORDS_PER_SECOND = 2.5
WORDS_PER_SEGMENT = 12


def segments(n_words: int) -> Iterator[Segment]:
    """A transcript with a word every 0.4 s."""
    for first in range(0, n_words, WORDS_PER_SEGMENT):
        numbers = range(first, min(first + WORDS_PER_SEGMENT, n_words))
        times = [(n / WORDS_PER_SECOND, (n + 0.8) / WORDS_PER_SECOND) for n in numbers]
        words = tuple(Word(f"word{n}", *times[n - first], 0.87, "aligned") for n in numbers)
        text = " ".join(word.text for word in words)
        number = first // WORDS_PER_SEGMENT
        yield Segment(number, times[0][0], times[-1][1], text, words)


def write_recording(path: Path, hours: float) -> None:
    """A FLAC of tones and noise."""
    second = np.arange(16_000) / 16_000
    block = 0.2 * np.sin(2 * np.pi * 300 * second) + np.random.default_rng(0).normal(
        0, 0.02, 16_000
    )
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(hours * 60)):
            file.write(np.tile(block, 60))


async def make_job(settings: Settings, hours: float, recording: Path) -> str:
    """A job that has succeeded."""
    request = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions())
    job, database = uuid.uuid4().hex, Database(settings.database)
    _, n_bytes = Recordings(settings.data_path / "recordings").adopt(recording, job)
    store, leases = JobStore(database), Leases(database)
    await store.open()
    await store.create(NewJob(job, "", request.pack(), job, "0", n_bytes, kept_bytes=n_bytes))
    await leases.claim("lease", 600)
    found = list(segments(round(hours * 3600 * WORDS_PER_SECOND)))
    rows = [(segment.id, pack_segment(segment)) for segment in found]
    seconds = hours * 3600
    summary = pack_summary(Transcript((), "en", seconds, seconds, 0.0, "none"))
    results = NewResults(segments=rows, progress=(seconds, seconds, seconds))
    await leases.succeed(job, "lease", results, len(rows), summary)
    await store.close()
    return job


@asynccontextmanager
async def watched() -> AsyncGenerator[list[float]]:
    """The longest pause of the event loop in this block, in seconds."""
    longest = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.002)
            longest[0] = max(longest[0], time.perf_counter() - before - 0.002)

    task = asyncio.create_task(watch())
    try:
        yield longest
    finally:
        task.cancel()


def cpu(who: int) -> float:
    """CPU seconds of this process, or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def measured(name: str, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Ask, and print what it cost."""
    started, before = time.perf_counter(), cpu(resource.RUSAGE_SELF)
    async with watched() as longest:
        answer = await ask()
        while answer.status_code == 503:
            await asyncio.sleep(1)
            answer = await ask()
    seconds, own = time.perf_counter() - started, cpu(resource.RUSAGE_SELF) - before
    n_bytes = int(answer.headers.get("content-length", 0))
    print(
        f"{name:28} {answer.status_code} {seconds:7.2f} s {own:6.2f} CPU s {n_bytes / 1e6:7.2f} MB"
        f"  longest pause of the loop {1000 * longest[0]:5.0f} ms",
        flush=True,
    )
    return answer


async def run(hours: float, folder: Path) -> None:
    """Measure all routes."""
    settings = Settings(data_dir=str(folder), work_dir=str(folder), max_active_jobs=0)
    write_recording(folder / "recording.flac", hours)
    job = await make_job(settings, hours, folder / "recording.flac")
    application, app = Application(_no_worker, settings, folder, folder), FastAPI()
    application.install(app)
    transport = httpx.ASGITransport(app)
    base = f"http://localhost/v1/jobs/{job}/"
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=None) as client:
        await application.jobs.store.open()
        async with application.page.working():
            await measure_transcript(client)
            await measure_media(client, (folder / "recordings" / f"{job}.made"), hours)
    print(f"children: {cpu(resource.RUSAGE_CHILDREN):.1f} CPU s")


async def measure_transcript(client: httpx.AsyncClient) -> None:
    """Read, save and export the transcript."""
    plain = {"accept-encoding": "identity"}
    whole = await measured("GET transcript", lambda: client.get("transcript", headers=plain))
    await measured("GET transcript, gzip", lambda: client.get("transcript"))
    body = json.dumps({"segments": whole.json()["segments"]}).encode()
    packed = gzip.compress(body, 6)
    print(f"(body of the PUT: {len(body) / 1e6:.1f} MB, {len(packed) / 1e6:.1f} MB as gzip)")
    headers = {"if-match": whole.headers["etag"], "content-encoding": "gzip"}
    await measured(
        "PUT transcript", lambda: client.put("transcript", content=packed, headers=headers)
    )
    await measured("GET transcript, corrected", lambda: client.get("transcript"))
    await measured("GET transcript.srt", lambda: client.get("transcript.srt"))


async def measure_media(client: httpx.AsyncClient, made: Path, hours: float) -> None:
    """Prepare, show, cut and draw the recording."""
    start = round(hours * 3000)
    await measured("GET peaks, first", lambda: client.get("peaks"))
    await measured("GET peaks", lambda: client.get("peaks"))
    clip = f"audio?start={start}&end={start + 30}"
    await measured("GET clip of 30 s", lambda: client.get(clip))
    picture = f"spectrogram.png?start={start}&end={start + 30}"
    await measured("GET spectrogram, first", lambda: client.get(picture))
    await measured("GET spectrogram", lambda: client.get(picture))
    files = await asyncio.to_thread(lambda: list(made.iterdir()))
    print({path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in files})


async def _no_worker(_: object) -> AsyncGenerator[Any]:
    return
    yield


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(options.hours, Path(folder)))


if __name__ == "__main__":
    main()
