"""Measure the time and the disk that recordings with gaps and jumps of their clock take.

It makes three files of a few kilobytes and decodes each as the service does:

- a jump of 10 hours in a Matroska file, which once became 10 hours of silence
- eleven gaps of 3590 s in a Matroska file, each short enough to stay silence
- an MPEG-TS file whose clock jumps back by 5000 s

    python -m benchmarks.gaps
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.audio.recording import PRELOAD, decode_recording
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioError
from asr.types import SAMPLE_RATE
from asr.workers.pool import ProcessPool
from benchmarks.measure import save
from tests.support import makers

if TYPE_CHECKING:
    from collections.abc import Iterator


def with_gaps(seconds: float) -> float:
    """A gap of 3590 s after each of the first eleven seconds."""
    return seconds + 3590 * int(min(max(seconds, 0), 11))


def make_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a name for each case, and its file."""
    four, fourteen = makers.click(4, 3.0), makers.click(14, 3.0)
    yield (
        "a jump of 10 hours",
        makers.write_container(
            folder / "jump.mkv", four, "flac", shift=lambda t: t + 36_000 * (t >= 2)
        ),
    )
    yield (
        "eleven gaps of 3590 s",
        makers.write_container(
            folder / "gaps.mkv",
            fourteen,
            "flac",
            shift=lambda t: t + 3590 * int(min(max(t, 0), 11)),
        ),
    )
    late = makers.write_container(
        folder / "late.ts", four, "aac", kind="mpegts", shift=lambda t: t + 5000
    )
    early = makers.write_container(folder / "early.ts", four, "aac", kind="mpegts")
    joined = folder / "joined.ts"
    joined.write_bytes(late.read_bytes() + early.read_bytes())
    yield "a clock that jumps back", joined


async def measure(pool: ProcessPool, name: str, path: Path) -> dict[str, Any]:
    """Decode one file."""
    target, n_samples, result = path.with_suffix(".pcm"), 0, "decoded"
    started = time.perf_counter()
    try:
        async for report in decode_recording(pool, path, target, VadOptions(), AudioLimits()):
            n_samples = report.n_samples
    except AudioError as error:
        result = str(error)
    return {
        "file": name,
        "bytes": path.stat().st_size,  # noqa: ASYNC240  # nothing else runs
        "result": result,
        "audio_s": round(n_samples / SAMPLE_RATE, 1),
        "seconds": round(time.perf_counter() - started, 2),
        "disk_bytes": target.stat().st_blocks * 512,
    }


async def measure_all() -> list[dict[str, Any]]:
    """One row for each file."""
    pool = ProcessPool(PRELOAD, 1)
    try:
        with tempfile.TemporaryDirectory() as name:
            return [await measure(pool, *it) for it in make_files(Path(name))]
    finally:
        await pool.close()


if __name__ == "__main__":
    save("gaps", asyncio.run(measure_all()))
