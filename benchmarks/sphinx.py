"""pocketsphinx on one core and on all: does the process pool scale?

Same recording, same words, with the whole pipeline pinned to the cores it may use.

    python -m benchmarks.sphinx [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Any

from asr.config import Options
from asr.engines.sphinx import SphinxEngine
from asr.pipeline import Transcriber, collect
from benchmarks.measure import PeakMemory, save

RECORDING = Path(__file__).resolve().parent.parent / "samples" / "pauses.ogg"


async def run_once(n_workers: int) -> tuple[float, float, str]:
    """Seconds of work, seconds of speech, and the text."""
    async with Transcriber(SphinxEngine(n_workers)) as transcriber:
        started = time.perf_counter()
        transcript = await collect(transcriber.transcribe_file(RECORDING, Options()))
        return time.perf_counter() - started, transcript.speech_seconds, transcript.text


def measure(cores: list[int], n_runs: int) -> tuple[dict[str, Any], str]:
    """The median of several runs on these cores."""
    os.sched_setaffinity(0, cores)
    memory = PeakMemory()
    with memory.watch():
        runs = [asyncio.run(run_once(len(cores))) for _ in range(n_runs)]
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
    n_runs = parser.parse_args().runs
    cores = sorted(os.sched_getaffinity(0))
    one, text_of_one = measure(cores[:1], n_runs)
    every, text_of_all = measure(cores, n_runs)
    if text_of_one != text_of_all:
        raise SystemExit("one core and all cores give different texts")
    one["speed-up"] = 1.0
    every["speed-up"] = round(one["seconds (median)"] / every["seconds (median)"], 2)
    save("sphinx", [one, every])


if __name__ == "__main__":
    main()
