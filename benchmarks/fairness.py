"""Whether a short recording is answered soon while long ones are in work.

A service in processes of its own, with an engine that takes a fixed time for each chunk (a test
double), is sent long recordings, by one key or by a key each. While they arrive, and when they are
in work, it is sent a short one again and again, and the time of each answer is compared with the
time that it takes when nothing else is in work.

    python -m benchmarks.fairness [--long 10] [--hours 1] [--runs 20] [--delay 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import soundfile

from asr.config import DecodeOptions, Settings
from asr.service import serve
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis
from benchmarks.measure import save
from benchmarks.pipeline import SAMPLES, InstantEngine
from benchmarks.serving import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

SHORT_SECONDS = 10.0
ROUTE = "/v1/audio/transcriptions"
ALLOWED = 3.0
SETTLE_SECONDS = 5.0
MIN_ARRIVING = 5


class SlowEngine(InstantEngine):
    """Takes the same time for every chunk. A test double: its words are made up."""

    name = "fixed delay (test double)"
    slots = 4

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Wait, then answer."""
        await asyncio.sleep(self._delay)
        return await super().transcribe(chunk, audio, options)


def make_engine(settings: Settings) -> SlowEngine:  # noqa: ARG001  # the service's signature
    """Runs in the worker process."""
    return SlowEngine(float(os.environ["FAIRNESS_DELAY"]))


def make_recordings(folder: Path, hours: float) -> tuple[Path, Path]:
    """A long and a short recording: the meeting among the samples, repeated."""
    samples, rate = soundfile.read(SAMPLES / "meeting.wav", dtype="int16")
    if rate != SAMPLE_RATE:
        raise SystemExit(f"samples/meeting.wav has {rate} Hz")
    n_long = round(hours * 3600 * rate)
    long, short = folder / "long.flac", folder / "short.wav"
    soundfile.write(long, np.resize(samples, n_long), rate)
    soundfile.write(short, np.resize(samples, round(SHORT_SECONDS * rate)), rate)
    return long, short


class Service:
    """A running service.

    Args:
        folder: for its files.
        delay: of the engine, seconds.
        keys: names.
    """

    def __init__(self, folder: Path, delay: float, keys: list[str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        lines = (json.dumps({"name": name, "key": name}) for name in keys)
        env = os.environ | {
            "ASR_PORT": str(port),
            "ASR_WORK_DIR": str(folder),
            "ASR_API_KEYS": "\n".join(lines),
            "ASR_LOG_LEVEL": "warning",
            "FAIRNESS_DELAY": str(delay),
        }
        command = [sys.executable, "-m", "benchmarks.fairness", "--serve"]
        self._process = subprocess.Popen(command, env=env)

    async def ready(self, http: httpx.AsyncClient) -> None:
        """Wait for the engine."""
        for _ in range(600):
            try:
                if (await http.get("/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
        raise SystemExit("the service did not start")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


def pieces(path: Path) -> Generator[bytes]:
    """A file in pieces."""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            yield data


async def post(
    http: httpx.AsyncClient, path: Path, key: str, sent: asyncio.Event | None = None
) -> float:
    """Seconds until the answer; `sent` is set when the body is out."""

    async def body() -> Any:
        for piece in pieces(path):
            yield piece
        if sent is not None:
            sent.set()

    headers = {"content-type": "audio/wav", "x-api-key": key}
    started = time.perf_counter()
    answer = await http.post(ROUTE, content=body(), headers=headers)
    answer.raise_for_status()
    return time.perf_counter() - started


async def compare(
    folder: Path, options: argparse.Namespace, long_keys: list[str]
) -> dict[str, Any]:
    """Times of the short recording alone, and beside the long ones."""
    long, short = make_recordings(folder, options.hours)
    names = sorted({*long_keys, "short"})
    service = Service(folder, options.delay, names)
    try:
        async with httpx.AsyncClient(base_url=service.url, timeout=None) as http:
            await service.ready(http)
            alone = [await post(http, short, "short") for _ in range(5)]
            sent = [asyncio.Event() for _ in long_keys]
            work = [
                asyncio.create_task(post(http, long, key, event))
                for key, event in zip(long_keys, sent, strict=True)
            ]
            arriving: list[float] = []
            while not all(event.is_set() for event in sent) or len(arriving) < MIN_ARRIVING:
                arriving.append(await post(http, short, "short"))
            await asyncio.sleep(SETTLE_SECONDS)
            beside = []
            for _ in range(options.runs):
                beside.append(await post(http, short, "short"))
                await asyncio.sleep(0.2)
            n_left = sum(not task.done() for task in work)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
    finally:
        service.stop()
    return report(alone, arriving, beside, n_left)


def report(
    alone: list[float], arriving: list[float], beside: list[float], n_left: int
) -> dict[str, Any]:
    """What came out. While the long ones arrive, they are new, too, and decoding is at its peak."""
    base = statistics.median(alone)
    return {
        "alone_s": round(base, 3),
        "beside_median_s": round(statistics.median(beside), 3),
        "beside_max_s": round(max(beside), 3),
        "ratio_median": round(statistics.median(beside) / base, 2),
        "ratio_max": round(max(beside) / base, 2),
        "ratio_max_arriving": round(max(arriving) / base, 2),
        "long_still_in_work": n_left,
    }


def main() -> None:
    """Measure with one key for all, and with a key for each; exit 1 when it took too long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", type=int, default=10, help="long recordings")
    parser.add_argument("--hours", type=float, default=1.0, help="of each")
    parser.add_argument("--runs", type=int, default=20, help="short recordings, one by one")
    parser.add_argument("--delay", type=float, default=1.0, help="of the engine, seconds a chunk")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from benchmarks.fairness import make_engine as importable

        serve(Settings.from_env(), importable)
        return
    rows = []
    for name, keys in (
        ("one key", ["short"] * options.long),
        ("a key for the long ones", ["long"] * options.long),
        ("a key each", [f"long{n}" for n in range(options.long)]),
    ):
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(compare(Path(folder), options, keys))
        rows.append({"keys": name, "long": f"{options.long} x {options.hours:g} h"} | result)
    save("fairness", rows)
    if max(row["ratio_max"] for row in rows) > ALLOWED:
        raise SystemExit(f"a short recording took more than {ALLOWED:g} times its time alone")


if __name__ == "__main__":
    main()
