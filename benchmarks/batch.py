"""Throughput of ``asr batch`` on Ray against the number of actors.

    .venv-batch/bin/python -m benchmarks.batch --actors 1 2 4 8 16 --wait 2
    .venv-batch/bin/python -m benchmarks.batch --actors 1 2 --engine embedded

With ``--engine waiting`` (the default) a stand-in waits instead of recognising, as an actor does
that sends chunks to a server. Each recording is one chunk, and each actor gets `--files` of them.
Everything else is real: decoding, rendering, and the writing of the results.

With ``--engine embedded`` Moonshine recognises ``samples/`` and joins of them; `--files` is the
number of recordings in all, so that the rows compare.

Columns: *start* is the time until the first recording begins, which includes starting Ray and the
actors. *window* is the time from then to the last answer. *share* is the time that actors spent
waiting (or transcribing), divided by actors times window. CPU is that of
Ray and of all actors, their start included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from asr.batch.cluster import RayExecutor, Size
from asr.batch.progress import Progress
from asr.batch.run import prepare, run_batch
from asr.batch.sources import list_sources
from asr.batch.tasks import Job
from asr.config import Options, SubtitleOptions, VadOptions
from asr.engines.base import Engine
from asr.settings import Settings
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Word

if TYPE_CHECKING:
    from asr.config import DecodeOptions

ROOT = Path(__file__).parent.parent
WAIT = "BENCHMARK_WAIT"
TICKS = os.sysconf("SC_CLK_TCK")


class WaitingEngine(Engine):
    """Answers each chunk after a while."""

    name = model = "waiting"
    language = "en"
    slots = 1

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def check(self, options: DecodeOptions) -> tuple[str, ...]:  # noqa: ARG002
        """Ignore all options."""
        return ()

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Wait, and return one word."""
        await asyncio.sleep(self._seconds)
        return Hypothesis(chunk.index, "word", (Word("word", 0.0, 0.5),))


def waiting_engine(settings: Settings) -> Engine:  # noqa: ARG001
    """For `Job.engine`."""
    return WaitingEngine(float(os.environ[WAIT]))


def window_of(out: Path) -> tuple[float, float, float]:
    """When the first recording began and the last one ended, and the seconds of work on all.

    Answers reach the driver later, so the times are those of the files.
    """
    found = []
    for path in out.glob(".batch/done/*/*.json"):
        wall = json.loads(path.read_text())["wall"]
        end = path.stat().st_mtime
        found.append((end - wall, end, wall))
    starts, ends, walls = zip(*found, strict=True)
    return min(starts), max(ends), sum(walls)


def make_recordings(folder: Path, count: int) -> None:
    """Recordings of noise of 5 s, each of another length so that nobody compares them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        samples = 0.1 * rng.standard_normal(5 * SAMPLE_RATE + number)
        soundfile.write(folder / f"{number:05d}.wav", samples, SAMPLE_RATE)


def make_speech(folder: Path, count: int) -> None:
    """Speech of about a minute in each of `count` files."""
    samples, rate = soundfile.read(ROOT / "samples" / "lecture.mp3", dtype="float32")
    for number in range(count):
        soundfile.write(folder / f"{number:03d}.wav", np.tile(samples[: -1 - number], 2), rate)


def cpu_seconds() -> float:
    """CPU seconds of all processes below this one, those that have ended included."""
    children: dict[int, list[tuple[int, float]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            used = sum(map(int, fields[11:15])) / TICKS
            children.setdefault(int(fields[1]), []).append((int(entry.name), used))
    total, pending = 0.0, [os.getpid()]
    while pending:
        for pid, used in children.get(pending.pop(), []):
            total += used
            pending.append(pid)
    return total


def measure(options: argparse.Namespace, n_actors: int) -> str:
    """A row of the table."""
    folder = Path(tempfile.mkdtemp(prefix="asr-batch-bench-"))
    try:
        return _measure(options, n_actors, folder)
    finally:
        shutil.rmtree(folder)


def _measure(options: argparse.Namespace, n_actors: int, folder: Path) -> str:
    is_waiting = options.engine == "waiting"
    (folder / "in").mkdir()
    count = options.files * (n_actors if is_waiting else 1)
    (make_recordings if is_waiting else make_speech)(folder / "in", count)

    aligner = "none" if is_waiting else "auto"
    settings = Settings(work_dir=str(folder), engine="moonshine", aligner=aligner, cpu_workers=1)
    job = prepare(
        Job(
            settings,
            Options(vad=VadOptions("off")) if is_waiting else Options(),
            ("srt",),
            SubtitleOptions(),
            str(folder / "out"),
            "",
            0.0,
            engine="benchmarks.batch:waiting_engine" if is_waiting else "",
        )
    )
    marker = folder / "begun"
    marker.touch()
    with RayExecutor(None, Size(n_actors, 1, 0, options.at_once)) as executor:
        sources = list_sources([str(folder / "in")]).sources
        outcome = run_batch(job, sources, executor, Progress(hidden=True))
        cpu = cpu_seconds()
    if outcome.n_done != count:
        raise RuntimeError(f"{outcome} of {count}")
    first, last, work = window_of(folder / "out")
    window, lanes = last - first, n_actors * options.at_once
    work = options.wait * count if is_waiting else work
    return (
        f"| {n_actors} | {count} | {first - marker.stat().st_mtime:.1f} | {window:.1f} | "
        f"{count / window:.2f} | {work / (lanes * window):.0%} | {cpu:.0f} |"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--engine", choices=("waiting", "embedded"), default="waiting")
    parser.add_argument("--wait", type=float, default=2.0, help="seconds for a recording")
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=1)
    options = parser.parse_args()
    os.environ[WAIT] = str(options.wait)
    print("| actors | recordings | start s | window s | recordings/s | share | CPU s |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for n_actors in options.actors:
        print(measure(options, n_actors), flush=True)


if __name__ == "__main__":
    main()
