"""pocketsphinx on one core and on all cores: does the process pool scale?

The same recording is transcribed with the whole pipeline pinned to one core, then to all cores. The
recording repeats the samples to have many chunks: with few, the last chunk would decide the time.

The cores of a virtual machine may be hyperthreads, or shared with other machines. So processes that
only count are measured too. Their speed-up is the most that any program can reach.

    python -m benchmarks.sphinx [--runs 5] [--minutes 3]

Other load on the machine can only slow a run down, so the best runs are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from asr.config import Options
from asr.engines.sphinx import SphinxEngine
from asr.pipeline.transcriber import Transcriber, collect
from benchmarks.measure import PeakMemory, save
from benchmarks.pipeline import make_recording

N_COUNT = 20_000_000


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


async def run_once(path: Path, n_workers: int) -> tuple[float, float, str]:
    """Return the wall time, the seconds of speech, and the text."""
    async with Transcriber(SphinxEngine(n_workers)) as transcriber:
        started = time.perf_counter()
        transcript = await collect(transcriber.transcribe_file(path, Options()))
        return time.perf_counter() - started, transcript.speech_seconds, transcript.text


def measure(path: Path, cores: list[int], n_workers: int) -> tuple[float, float, str, float]:
    """One run on these cores: seconds, seconds of speech, text, MB of the largest process."""
    os.sched_setaffinity(0, cores)
    memory = PeakMemory()
    with memory.watch():
        seconds, speech, text = asyncio.run(run_once(path, n_workers))
    return seconds, speech, text, memory.largest


def main() -> None:
    """Measure one core and all cores in turns, so that both meet the same load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    sizes = (1, len(cores))
    runs: dict[int, list[tuple[float, float, str, float]]] = {n: [] for n in sizes}
    ceilings = []
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        path = Path(folder) / "recording.wav"
        make_recording(path, options.minutes / 60)
        for _ in range(options.runs):
            for n in sizes:
                runs[n].append(measure(path, cores[:n], n))
            ceilings.append(ceiling(len(cores)))
    if len({text for made in runs.values() for _, _, text, _ in made}) != 1:
        raise SystemExit("the runs differ in their text")
    best = {n: min(run[0] for run in made) for n, made in runs.items()}
    rows = [_row(n, runs[n], best[1] / best[n]) for n in sizes]
    rows[0]["speed-up of counting"] = "1.0"
    rows[1]["speed-up of counting"] = f"{min(ceilings):.2f}-{max(ceilings):.2f}"
    save("sphinx", rows)


def _row(n_cores: int, runs: list[tuple[float, float, str, float]], gain: float) -> dict[str, Any]:
    seconds = [run[0] for run in runs]
    return {
        "cores": n_cores,
        "runs": len(runs),
        "seconds (best)": round(min(seconds), 2),
        "spread": f"{min(seconds):.2f}-{max(seconds):.2f}",
        "RTFx of the speech (best)": round(runs[0][1] / min(seconds), 2),
        "largest process MB": round(max(run[3] for run in runs)),
        "speed-up of the best": round(gain, 2),
    }


if __name__ == "__main__":
    main()
