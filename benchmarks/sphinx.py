"""pocketsphinx on one core and on all: does the process pool scale?

Same recording, same words, with the whole pipeline pinned to the cores it may use. The recording
is the samples repeated: with few chunks, the last one alone would decide.

A virtual machine's cores may be halves of one, or shared with others. So the same runs are made
with processes that do nothing but count: what those gain is all that any program can.

    python -m benchmarks.sphinx [--runs 3] [--minutes 8]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from asr.config import Options
from asr.engines.sphinx import SphinxEngine
from asr.pipeline import Transcriber, collect
from benchmarks.measure import PeakMemory, save
from benchmarks.pipeline import make_recording

N_COUNT = 20_000_000


def count(n: int) -> float:
    """Seconds to count to `n`."""
    started = time.perf_counter()
    for _ in range(n):
        pass
    return time.perf_counter() - started


def ceiling(n_cores: int) -> float:
    """How much more work all cores do than one, when the work is counting."""
    with multiprocessing.Pool(n_cores) as pool:
        alone = pool.apply(count, (N_COUNT,))
        together = pool.map(count, [N_COUNT] * n_cores, chunksize=1)
    return n_cores * alone / max(together)


async def run_once(path: Path, n_workers: int) -> tuple[float, float, str]:
    """Seconds of work, seconds of speech, and the text."""
    async with Transcriber(SphinxEngine(n_workers)) as transcriber:
        started = time.perf_counter()
        transcript = await collect(transcriber.transcribe_file(path, Options()))
        return time.perf_counter() - started, transcript.speech_seconds, transcript.text


def measure(path: Path, cores: list[int], n_runs: int) -> tuple[dict[str, Any], str]:
    """The median of several runs on these cores."""
    os.sched_setaffinity(0, cores)
    memory = PeakMemory()
    with memory.watch():
        runs = [asyncio.run(run_once(path, len(cores))) for _ in range(n_runs)]
    texts = {text for _, _, text in runs}
    if len(texts) != 1:
        raise SystemExit("the runs differ in their text")
    seconds = [run[0] for run in runs]
    median, speech = statistics.median(seconds), runs[0][1]
    row = {
        "cores": len(cores),
        "runs": n_runs,
        "seconds (median)": round(median, 2),
        "spread": f"{min(seconds):.2f}-{max(seconds):.2f}",
        "RTFx of the speech": round(speech / median, 2),
        "largest process MB": round(memory.largest),
    }
    return row, texts.pop()


def main() -> None:
    """Measure one core against all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        path = Path(folder) / "recording.wav"
        make_recording(path, options.minutes / 60)
        one, text_of_one = measure(path, cores[:1], options.runs)
        before = ceiling(len(cores))
        every, text_of_all = measure(path, cores, options.runs)
        after = ceiling(len(cores))
    if text_of_one != text_of_all:
        raise SystemExit("one core and all cores give different texts")
    one |= {"speed-up": 1.0, "speed-up of counting": "1.0"}
    every["speed-up"] = round(one["seconds (median)"] / every["seconds (median)"], 2)
    every["speed-up of counting"] = f"{before:.2f} before, {after:.2f} after"
    save("sphinx", [one, every])


if __name__ == "__main__":
    main()
