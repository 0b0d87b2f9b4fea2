"""Everything except recognition: decode, VAD, chunking, stitch and formats of long recordings.

The engine returns invented words at once, so the numbers show the cost of the pipeline around it.
The recordings repeat the samples, as 44.1 kHz stereo.

    python -m benchmarks.pipeline 1h.wav 1h.mp3 10h.wav [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from asr.config import DecodeOptions, Options
from asr.engines.base import Engine
from asr.output.formats import FORMATS, render
from asr.pipeline.transcriber import Transcriber, collect
from asr.types import Audio, Chunk, Hypothesis, Word
from benchmarks.measure import PeakMemory, save

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
RATE = 44_100
WORDS_PER_SECOND = 2.5


class InstantEngine(Engine):
    """A test double that returns invented words at once."""

    name = "instant (test double)"
    model = "instant"
    slots = 8
    language = "en"

    def check(self, options: DecodeOptions) -> tuple[str, ...]:  # noqa: ARG002
        """Accept all options."""
        return ()

    async def open(self) -> None:
        """Do nothing: there is no model."""

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:  # noqa: ARG002
        """Return as many words as speech of this length would have."""
        n_words = max(1, int(chunk.duration * WORDS_PER_SECOND))
        step = chunk.duration / n_words
        words = tuple(Word("word", i * step, (i + 0.8) * step) for i in range(n_words))
        return Hypothesis(chunk.index, " ".join(word.text for word in words), words)

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


def make_recording(path: Path, hours: float) -> None:
    """Write the samples repeatedly, block by block."""
    block = _one_round()
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        left = round(hours * 3600 * RATE)
        while left > 0:
            file.write(block[:left])
            left -= min(left, len(block))


def _one_round() -> np.ndarray:
    parts = []
    for name in ("meeting.wav", "lecture.mp3", "pauses.ogg", "telephone.wav"):
        samples, rate = soundfile.read(SAMPLES / name, dtype="float32", always_2d=True)
        parts.append(soxr.resample(samples.mean(axis=1), rate, RATE))
    mono = np.concatenate(parts).astype(np.float32)
    return np.stack((mono, 0.7 * mono), axis=1)


async def run_once(path: Path) -> float:
    """Return the seconds for one recording, including all output formats."""
    async with Transcriber(InstantEngine()) as transcriber:
        started = time.perf_counter()
        transcript = await collect(transcriber.transcribe_file(path, Options()))
        for name in FORMATS:
            render(transcript, name)
        return time.perf_counter() - started


def measure(path: Path, hours: float, n_runs: int) -> dict[str, Any]:
    """Return the median time of several runs, and the largest peak memory."""
    memory = PeakMemory()
    with memory.watch():
        seconds = [asyncio.run(run_once(path)) for _ in range(n_runs)]
    median = statistics.median(seconds)
    return {
        "recording": f"{hours:g} h {path.suffix[1:]}",
        "runs": n_runs,
        "seconds (median)": round(median, 2),
        "spread": f"{min(seconds):.2f}-{max(seconds):.2f}",
        "RTFx": round(hours * 3600 / median),
        "main MB": round(memory.by_role["main"]),
        "decoder MB": round(memory.by_role["helper"]),
    }


def main() -> None:
    """Measure every length and format."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = ["1h.wav", "1h.mp3", "10h.wav"]
    parser.add_argument("recordings", nargs="*", default=default, help="hours and format")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for name in options.recordings:
        hours = float(name.partition("h")[0])
        with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
            path = Path(folder) / name
            make_recording(path, hours)
            rows.append(measure(path, hours, options.runs))
    save("pipeline", rows)


if __name__ == "__main__":
    main()
