"""A decoded recording on disk, and the child process that decodes it.

Decoding runs in a process of its own with limits on CPU time and address space: files come from
strangers, and codecs are where their bugs are. It writes 16 kHz mono PCM16 to a file, finds the
speech on the way, and reports both while it goes, so that recognition begins long before decoding
ends. Everything later reads the stretch it needs from that file: memory does not grow with the
length, and a chunk can be read again for a second look.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from asr.audio import decode
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioTooLong, DamagedAudio, WorkerDied
from asr.processes import ProcessLimits, ProcessPool
from asr.types import SAMPLE_RATE, Audio, SpeechRegion
from asr.vad import SpeechDetector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asr.zygote import Channel

# PyAV imports the second when it opens a file; a child under RLIMIT_AS may not be able to.
PRELOAD = ("asr.recording", "av.subtitles.stream")
REPORT_SAMPLES = 10 * SAMPLE_RATE
LONG_SAMPLES = 60 * SAMPLE_RATE
"""A recording this long is decoded at low priority from here on: it is far ahead of the engine, and
the decoders of short recordings need the processor more."""
LOW_PRIORITY = 10
_BYTES_PER_SAMPLE = 2


class Recording:
    """16 kHz mono PCM16 without a header, in a file that may still be growing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start_sample: int, end_sample: int) -> Audio:
        """The samples in [start_sample, end_sample).

        Raises:
            ValueError: the file does not reach that far.
        """
        with self.path.open("rb") as file:
            file.seek(start_sample * _BYTES_PER_SAMPLE)
            data = file.read((end_sample - start_sample) * _BYTES_PER_SAMPLE)
        if len(data) != (end_sample - start_sample) * _BYTES_PER_SAMPLE:
            raise ValueError(f"{self.path} ends before sample {end_sample}")
        return Audio(np.frombuffer(data, np.dtype("<i2")).astype(np.float32) / np.float32(32768))


@dataclass(frozen=True, slots=True)
class Decoded:
    """How far decoding has come.

    Attributes:
        n_samples: decoded so far, all of them readable.
        closed: speech regions that ended since the last report.
        open_region: the region that has begun and not ended.
        promised_seconds: what the header says of the length, for progress alone.
        finished: nothing follows.
        warnings: with the last report, what was repaired.
    """

    n_samples: int
    closed: tuple[SpeechRegion, ...]
    open_region: SpeechRegion | None
    promised_seconds: float | None = None
    finished: bool = False
    warnings: tuple[str, ...] = ()


async def decode_recording(
    pool: ProcessPool, source: Path, target: Path, vad: VadOptions, limits: AudioLimits
) -> AsyncGenerator[Decoded]:
    """Decode `source` to `target` in a child process and report as it goes.

    Raises:
        AudioError: the recording cannot be used.
        InvalidOption: the VAD is not installed.
        WorkerDied: the child died of something that is not the recording's fault.
    """
    request = {
        "source": str(source),
        "target": str(target),
        "vad": asdict(vad),
        "limits": asdict(limits),
    }
    guard = ProcessLimits(limits.max_cpu_seconds, limits.max_memory_bytes)
    async with pool.job("asr.recording:decode_job", request, limits=guard) as job:
        try:
            async for message in job:
                yield _decoded(message)
        except WorkerDied as error:
            raise _blame(error, limits) from error


async def scan_recording(recording: Recording, vad: VadOptions) -> AsyncGenerator[Decoded]:
    """Find the speech in what is decoded already, in a thread: there is nothing to guard against.

    Raises:
        InvalidOption: the VAD is not installed.
    """
    n_samples = recording.path.stat().st_size // _BYTES_PER_SAMPLE
    detector = await asyncio.to_thread(SpeechDetector, vad)
    for start in range(0, n_samples, REPORT_SAMPLES):
        end = min(start + REPORT_SAMPLES, n_samples)
        closed = await asyncio.to_thread(_scan, recording, detector, start, end)
        yield Decoded(end, tuple(closed), detector.open_region)
    yield Decoded(n_samples, tuple(detector.finish()), None, finished=True)


def _scan(
    recording: Recording, detector: SpeechDetector, start: int, end: int
) -> list[SpeechRegion]:
    pcm = np.frombuffer(recording.read(start, end).pcm16(), np.dtype("<i2"))
    return detector.push(pcm)


def _blame(error: WorkerDied, limits: AudioLimits) -> Exception:
    """What the death of the decoding process says about the recording."""
    if error.signal == signal.SIGXCPU:
        return AudioTooLong(f"decoding takes more than {limits.max_cpu_seconds} s of CPU time")
    if "MemoryError" in str(error):
        return AudioTooLong(f"decoding takes more than {limits.max_memory_bytes} bytes of memory")
    crashes = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    if error.signal in crashes:
        return DamagedAudio("the recording is damaged: the decoder broke on it")
    return error


def _decoded(message: dict[str, Any]) -> Decoded:
    open_region = message["open"]
    return Decoded(
        n_samples=message["n_samples"],
        closed=tuple(SpeechRegion(*pair) for pair in message["closed"]),
        open_region=None if open_region is None else SpeechRegion(*open_region),
        promised_seconds=message["promised"],
        finished=message["finished"],
        warnings=tuple(message["warnings"]),
    )


# --- in the child -------------------------------------------------------------------------------


def decode_job(channel: Channel) -> None:
    """Decode one file: the request says which and how, reports go back."""
    request, _ = channel.receive()
    decoding = decode(Path(request["source"]), AudioLimits(**request["limits"]))
    detector = SpeechDetector(VadOptions(**request["vad"]))
    report = _Report(channel, detector)
    is_polite = False
    with Path(request["target"]).open("wb", buffering=0) as target:
        for block in decoding.blocks:
            pcm = np.frombuffer(Audio(block).pcm16(), np.dtype("<i2"))
            _write_all(target, pcm.tobytes())
            report.add(detector.push(pcm), decoding.promised_seconds)
            if not is_polite and detector.n_samples >= LONG_SAMPLES:
                os.nice(LOW_PRIORITY)  # for good, but this process serves one recording
                is_polite = True
    report.add(detector.finish(), decoding.promised_seconds)
    report.send(finished=True, warnings=decoding.warnings)


def _write_all(target: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[target.write(left) :]


class _Report:
    """Collects what happened and sends it every few seconds of audio."""

    def __init__(self, channel: Channel, detector: SpeechDetector) -> None:
        self._channel = channel
        self._detector = detector
        self._closed: list[SpeechRegion] = []
        self._promised: float | None = None
        self._next = REPORT_SAMPLES

    def add(self, closed: list[SpeechRegion], promised: float | None) -> None:
        self._closed += closed
        self._promised = promised
        if self._detector.n_samples >= self._next:
            self._next = self._detector.n_samples + REPORT_SAMPLES
            self.send()

    def send(self, *, finished: bool = False, warnings: list[str] | None = None) -> None:
        region = None if finished else self._detector.open_region
        self._channel.send(
            {
                "n_samples": self._detector.n_samples,
                "closed": [(r.start_sample, r.end_sample) for r in self._closed],
                "open": region and (region.start_sample, region.end_sample),
                "promised": self._promised,
                "finished": finished,
                "warnings": warnings or [],
            }
        )
        self._closed = []
