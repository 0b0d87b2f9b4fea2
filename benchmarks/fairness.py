"""Measure how soon a short recording is answered while long ones are being transcribed.

The service runs in its own processes, with an engine that takes a fixed time per chunk (a test
double). It gets long recordings, all from one key or each from its own key. While they arrive, and
again while they are transcribed, it gets a short one repeatedly. Each answer time is compared
with the time without other work. For the slowest answer, the report separates the wait for a slot
of the engine from everything else (upload, decoding, stitching, response).

    python -m benchmarks.fairness [--long 10] [--hours 1] [--arrivals 4] [--runs 20] [--delay 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import soundfile

from asr import tracing
from asr.service import serve
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis
from benchmarks.measure import save
from benchmarks.pipeline import SAMPLES, InstantEngine
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from asr.config import DecodeOptions

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


class ChunkTimes:
    """A tracer that writes how long each chunk took, from asking for a slot to the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Generator[None]:
        """Write the time of a chunk."""
        started = time.perf_counter()
        yield
        if name == "chunk":
            took = time.perf_counter() - started
            with self._path.open("a", encoding="ascii") as file:
                file.write(json.dumps({"of": attributes["seconds"], "took": took}) + "\n")

    def carrier(self) -> dict[str, str]:
        """Empty: no other process traces."""
        return {}

    def within(self, carrier: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Do nothing: no other process traces."""
        return contextlib.nullcontext()


def make_engine(settings: Settings) -> SlowEngine:  # noqa: ARG001  # the service's signature
    """Runs in the worker process."""
    tracing.install(ChunkTimes(Path(os.environ["FAIRNESS_TIMES"])))
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


@contextlib.contextmanager
def service(delay: float, keys: list[str]) -> Generator[tuple[str, Path]]:
    """A running service; its address and the folder of its files.

    Args:
        delay: of the engine, seconds.
        keys: names.
    """
    lines = (json.dumps({"name": name, "key": name}) for name in keys)
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        settings = {
            "ASR_WORK_DIR": folder,
            "ASR_DATA_DIR": f"{folder}/data",
            "ASR_API_KEYS": "\n".join(lines),
            "ASR_LOG_LEVEL": "warning",
            "FAIRNESS_DELAY": str(delay),
            "FAIRNESS_TIMES": f"{folder}/times",
        }
        with serving(["-m", "benchmarks.fairness", "--serve"], settings) as (url, _):
            yield url, Path(folder)


def pieces(path: Path) -> Generator[bytes]:
    """Read a file in pieces of 1 MiB."""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            yield data


async def post(
    http: httpx.AsyncClient, path: Path, key: str, sent: asyncio.Event | None = None
) -> float:
    """Post a file; return the seconds until the answer. `sent` is set after the last byte."""

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


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of a short recording: in total, and from asking for a slot to the end."""

    seconds: float
    at_engine: float


class Measurement:
    """Sends recordings to one service.

    Args:
        http: to the service.
        recordings: the long one and the short one.
        times: the file with the times of the chunks.
    """

    def __init__(self, http: httpx.AsyncClient, recordings: tuple[Path, Path], times: Path) -> None:
        self._http = http
        self._long, self._short = recordings
        self._times = times
        self._length = 0.0  # of the short recording's only chunk; identifies it

    async def short(self) -> Answer:
        """Send the short recording."""
        n_before = len(self._took())
        seconds = await post(self._http, self._short, "short")
        return Answer(seconds, self._took()[n_before])

    def _took(self) -> list[float]:
        if not self._times.exists():
            return []
        lines = [json.loads(line) for line in self._times.read_text("ascii").splitlines()]
        self._length = self._length or lines[0]["of"]
        return [line["took"] for line in lines if line["of"] == self._length]

    async def arrivals(self, keys: list[str]) -> list[Answer]:
        """Send the long recordings all at once, and the short one while they arrive."""
        answers: list[Answer] = []
        async with self._sending(keys) as sent:
            while not all(event.is_set() for event in sent) or len(answers) < MIN_ARRIVING:
                answers.append(await self.short())
        return answers

    async def settled(self, keys: list[str], n_runs: int) -> list[Answer]:
        """Send the short recording while the long ones are transcribed."""
        answers = []
        async with self._sending(keys) as sent:
            await asyncio.gather(*(event.wait() for event in sent))
            await asyncio.sleep(SETTLE_SECONDS)
            for _ in range(n_runs):
                answers.append(await self.short())
                await asyncio.sleep(0.2)
        return answers

    @contextlib.asynccontextmanager
    async def _sending(self, keys: list[str]) -> AsyncGenerator[list[asyncio.Event]]:
        """Send long recordings during this block; set the event of each when it is fully sent."""
        sent = [asyncio.Event() for _ in keys]
        work = [
            asyncio.create_task(post(self._http, self._long, key, event))
            for key, event in zip(keys, sent, strict=True)
        ]
        yield sent
        if any(task.done() for task in work):
            raise SystemExit("a long recording was done too early; send longer ones")
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(SETTLE_SECONDS)  # until the service has ended them


async def measure(
    url: str, folder: Path, options: argparse.Namespace, keys: list[str]
) -> dict[str, Any]:
    """Times of the short recording alone, while long ones arrive, and beside them."""
    recordings = make_recordings(folder, options.hours)
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        measurement = Measurement(http, recordings, folder / "times")
        alone = [await measurement.short() for _ in range(5)]
        arriving = [
            answer for _ in range(options.arrivals) for answer in await measurement.arrivals(keys)
        ]
        beside = await measurement.settled(keys, options.runs)
    return report(alone, arriving, beside, options.delay)


def report(
    alone: list[Answer], arriving: list[Answer], beside: list[Answer], delay: float
) -> dict[str, Any]:
    """One row of the results."""
    base = statistics.median(answer.seconds for answer in alone)
    row: dict[str, Any] = {"alone_s": round(base, 3)}
    for name, answers in (("arriving", arriving), ("beside", beside)):
        slowest = max(answers, key=lambda answer: answer.seconds)
        median = statistics.median(answer.seconds for answer in answers)
        row |= {
            f"{name}_n": len(answers),
            f"{name}_median_s": round(median, 3),
            f"{name}_max_s": round(slowest.seconds, 3),
            f"{name}_max_waited_s": round(slowest.at_engine - delay, 3),  # for a slot
            f"{name}_max_else_s": round(slowest.seconds - slowest.at_engine, 3),
            f"{name}_ratio_median": round(median / base, 2),
            f"{name}_ratio_max": round(slowest.seconds / base, 2),
        }
    return row


def main() -> None:
    """Measure with one key for all, and with a key for each; exit 1 if an answer took too long."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", type=int, default=10, help="long recordings")
    parser.add_argument("--hours", type=float, default=1.0, help="of each")
    parser.add_argument("--arrivals", type=int, default=4, help="how often they arrive together")
    parser.add_argument("--runs", type=int, default=20, help="short recordings beside them")
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
        with service(options.delay, sorted({*keys, "short"})) as (url, folder):
            result = asyncio.run(measure(url, folder, options, keys))
        rows.append({"keys": name, "long": f"{options.long} x {options.hours:g} h"} | result)
    save("fairness", rows)
    worst = max(row[f"{name}_ratio_max"] for row in rows for name in ("arriving", "beside"))
    if worst > ALLOWED:
        raise SystemExit(f"a short recording took more than {ALLOWED:g} times its time alone")


if __name__ == "__main__":
    main()
