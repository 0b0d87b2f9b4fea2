"""Measure how the embedded aligner scales: chunks aligned by 1, 2, 4, ... processes at once.

    python -m benchmarks.align_processes [--processes 1 2 4 8 16] [--chunks 24]

It needs no GPU and no network. The chunks are two of the samples, 26.3 s with 68 words and 27.3 s
with 82 words, like the chunks of `benchmarks.gpu.service`. They are aligned as the service does it:
a child process is forked for each chunk, and the witness reads the result.

The columns: *CPU per chunk* is the user and system time of all processes, with forking and the
event loop, but without loading the models. The times of a core depend on what the other cores do,
because they share memory and, on virtual machines, often the core itself.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.align.hmm.aligner import SphinxAligner
from asr.align.witness import witness
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.types import Audio, Hypothesis
from benchmarks.measure import family, save

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
NAMES = ("meeting.wav", "lecture.mp3")
COUNTS = (1, 2, 4, 8, 16)

Chunk = tuple[Audio, Hypothesis]


def read_chunks() -> list[Chunk]:
    """Read the samples and their texts."""
    chunks = []
    for name in NAMES:
        samples = np.concatenate(list(decode(SAMPLES / name, AudioLimits()).blocks))
        facts = json.loads((SAMPLES / name).with_suffix(".json").read_text("ascii"))
        text = " ".join(word["text"] for word in facts["words"])
        chunks.append((Audio(samples), Hypothesis(0, text)))
    return chunks


def cpu_seconds() -> float:
    """Return the CPU time of this process, its descendants, and their children that have ended."""
    ticks = 0
    for pid in family(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


async def align_all(n_processes: int, chunks: list[Chunk]) -> tuple[float, float]:
    """Align the chunks in a new pool; return the wall and the CPU seconds without loading."""
    aligner = SphinxAligner(n_processes)
    await aligner.open()
    started, used = time.perf_counter(), cpu_seconds()
    waiting = iter(chunks)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_processes):
                group.create_task(_align(aligner, waiting))
        return time.perf_counter() - started, cpu_seconds() - used
    finally:
        await aligner.close()


async def _align(aligner: SphinxAligner, waiting: Iterator[Chunk]) -> None:
    for audio, hypothesis in waiting:
        timed = await aligner.align(audio, hypothesis)
        if not timed.words or timed.warnings:
            raise RuntimeError("the aligner failed")
        witness(audio, timed)


def measure(n_processes: int, chunks: list[Chunk]) -> dict[str, Any]:
    """Measure a row of the table."""
    wall, used = asyncio.run(align_all(n_processes, chunks))
    return {
        "processes": n_processes,
        "chunks": len(chunks),
        "chunks/s": round(len(chunks) / wall, 1),
        "CPU per chunk, ms": round(1000 * used / len(chunks)),
        "RTFx": round(sum(audio.duration for audio, _ in chunks) / wall),
    }


def main() -> None:
    """Measure all numbers of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--chunks", type=int, default=24, help="for each process")
    options = parser.parse_args()
    both = read_chunks()
    asyncio.run(align_all(1, both))  # compiles, if nobody has yet
    rows = []
    for n_processes in options.processes:
        chunks = list(itertools.islice(itertools.cycle(both), n_processes * options.chunks))
        rows.append(measure(n_processes, chunks))
        print(rows[-1], flush=True)
    save("align_processes", rows, {"load average at the end": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
