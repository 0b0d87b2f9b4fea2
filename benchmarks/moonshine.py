"""Measure Moonshine's speed, memory and start-up, on one core and on all cores.

The whole pipeline transcribes the same recording, pinned to one core and to all cores, with and
without the aligner. With the aligner, the witness runs too, as in the service. The recording
repeats the samples, so that it has many chunks. With few chunks, the last one would decide the
time.

The cores of a virtual machine may be hyperthreads, or shared with other machines. So the benchmark
also measures processes that only count in a loop. No program can reach a higher speed-up.

    python -m benchmarks.moonshine [--runs 5] [--minutes 3]

Other load can only make a run slower, so the best runs are compared. Other load changes CPU seconds
less than wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.config import Options
from asr.pipeline.transcriber import collect, make_transcriber
from asr.settings import Settings
from benchmarks.measure import PeakMemory, save
from benchmarks.pipeline import make_recording

N_COUNT = 20_000_000
ALIGNERS = ("none", "sphinx")


@dataclass(frozen=True, slots=True)
class Run:
    """One transcription.

    Attributes:
        seconds: wall time without the start-up.
        open_seconds: wall time of the start-up.
        cpu_seconds: of all processes, with the start-up.
        speech: seconds of speech in the recording; `duration` is that of the whole recording.
        largest_mb: of the largest process.
    """

    seconds: float
    open_seconds: float
    cpu_seconds: float
    duration: float
    speech: float
    text: str
    largest_mb: float


def count(n: int) -> float:
    """Return the seconds it takes to count to `n`."""
    started = time.perf_counter()
    for _ in range(n):
        pass
    return time.perf_counter() - started


def ceiling(n_cores: int) -> float:
    """Return the speed-up of counting on all cores over one core."""
    with multiprocessing.Pool(n_cores) as pool:
        alone = pool.apply(count, (N_COUNT,))
        together = pool.map(count, [N_COUNT] * n_cores, chunksize=1)
    return n_cores * alone / max(together)


def measure(path: Path, cores: list[int], aligner: str) -> Run:
    """Transcribe the recording on these cores."""
    os.sched_setaffinity(0, cores)
    settings = Settings(engine="moonshine", aligner=aligner, cpu_workers=len(cores))
    memory = PeakMemory()
    before = _cpu_seconds()
    with memory.watch():
        run = asyncio.run(_transcribe(path, settings))
    opened, seconds, transcript = run
    return Run(
        seconds=seconds,
        open_seconds=opened,
        cpu_seconds=_cpu_seconds() - before,
        duration=transcript.duration,
        speech=transcript.speech_seconds,
        text=transcript.text,
        largest_mb=memory.largest,
    )


async def _transcribe(path: Path, settings: Settings) -> tuple[float, float, Any]:
    started = time.perf_counter()
    async with make_transcriber(settings) as transcriber:
        opened = time.perf_counter()
        transcript = await collect(transcriber.transcribe_file(path, Options()))
        return opened - started, time.perf_counter() - opened, transcript


def _cpu_seconds() -> float:
    """CPU seconds of this process and of the children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(it.ru_utime + it.ru_stime for it in usages)


def main() -> None:
    """Measure one core and all cores in turns, so that both meet the same load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    variants = list(itertools.product((1, len(cores)), ALIGNERS))
    runs: dict[tuple[int, str], list[Run]] = {variant: [] for variant in variants}
    ceilings = []
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        path = Path(folder) / "recording.wav"
        make_recording(path, options.minutes / 60)
        for _ in range(options.runs):
            for n_cores, aligner in variants:
                runs[n_cores, aligner].append(measure(path, cores[:n_cores], aligner))
            os.sched_setaffinity(0, cores)
            ceilings.append(ceiling(len(cores)))
    counting = f"{min(ceilings):.2f}-{max(ceilings):.2f}"
    save("moonshine", [_row(*it, runs[it]) for it in variants], {"speed-up of counting": counting})
    print(f"speed-up of counting on {len(cores)} cores: {counting}")


def _row(n_cores: int, aligner: str, runs: list[Run]) -> dict[str, Any]:
    best = min(runs, key=lambda run: run.seconds)
    cpu = min(run.cpu_seconds for run in runs)
    return {
        "cores": n_cores,
        "aligner": aligner,
        "runs": len(runs),
        "seconds (best)": round(best.seconds, 2),
        "spread": f"{best.seconds:.2f}-{max(run.seconds for run in runs):.2f}",
        "RTFx of the recording": round(best.duration / best.seconds, 1),
        "RTFx of its speech": round(best.speech / best.seconds, 1),
        "speech per CPU second": round(best.speech / cpu, 1),
        "start-up s": round(min(run.open_seconds for run in runs), 2),
        "largest process MB": round(max(run.largest_mb for run in runs)),
    }


if __name__ == "__main__":
    main()
