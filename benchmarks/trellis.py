"""Measure the search of the CTC aligner on one core, and how much it delays an event loop.

The emissions of the 30 s chunks are random. The search prunes nothing, so its time does not depend
on them. wav2vec2 has frames of 20 ms and letters; Parakeet has frames of 80 ms and pieces of words.

    python -m benchmarks.trellis [--runs 5]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.align.ctc.trellis import Symbols, Target, best_paths
from benchmarks.measure import save

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"wav2vec2": (1500, 32, 500), "parakeet": (375, 1025, 150)}
BATCHES = (1, 8, 32)
PROBE_SECONDS = 0.001


def make_work(size: tuple[int, int, int], batch: int) -> Callable[[], object]:
    """Make a search over random emissions and words of five labels."""
    n_frames, n_columns, n_labels = size
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((batch, n_frames, n_columns)).astype(np.float32) * 3
    emissions = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    opens = np.arange(n_labels) % 5 == 0
    targets = [Target(rng.integers(2, n_columns, n_labels), opens) for _ in range(batch)]
    return lambda: best_paths(list(emissions), targets, Symbols(0, 1))


async def watch_loop(work: Callable[[], object], n_runs: int) -> np.ndarray:
    """Measure the delays of a sleeping task while a thread works, in sorted milliseconds."""
    loop = asyncio.get_running_loop()
    busy = loop.run_in_executor(None, lambda: [work() for _ in range(n_runs)])
    late = []
    while not busy.done():
        started = time.perf_counter()
        await asyncio.sleep(PROBE_SECONDS)
        late.append(time.perf_counter() - started - PROBE_SECONDS)
    return np.sort(late) * 1000


def measure(name: str, batch: int, n_runs: int) -> dict[str, Any]:
    """Measure CPU time on one core, and the delay of the event loop on all cores."""
    work = make_work(SIZES[name], batch)
    work()
    seconds = []
    for _ in range(n_runs):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    late = asyncio.run(watch_loop(work, n_runs))
    each = statistics.median(seconds) / batch
    return {
        "frames": name,
        "batch": batch,
        "CPU ms a chunk": round(1000 * each, 2),
        "chunks/s of one core": round(1 / each),
        "RTFx of one core": round(30 / each),
        "loop late p50 ms": round(float(late[len(late) // 2]), 2),
        "p99 ms": round(float(late[int(len(late) * 0.99)]), 2),
        "max ms": round(float(late[-1]), 2),
    }


def main() -> None:
    """Measure every size and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    save("trellis", [measure(n, b, options.runs) for n in SIZES for b in BATCHES])


if __name__ == "__main__":
    main()
