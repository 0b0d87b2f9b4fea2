"""A decoded recording on disk, and the child process that decodes it.

Decoding runs in a process of its own with limits on CPU time and address space: files come from
strangers, and codecs are where their bugs are. It writes 16 kHz mono PCM16 to a file, finds the
speech on the way, and reports both while it goes, so that recognition begins long before decoding
ends. Everything later reads the stretch it needs from that file: memory does not grow with the
length, and a chunk can be read again for a second look. Channels that are kept apart have a file
each, written in the same pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from asr import pcm
from asr.audio.growing import GrowingFile, decode_growing
from asr.audio.resample import decode
from asr.audio.vad import SpeechDetector
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioTooLong, DamagedAudio, WorkerDied
from asr.types import SAMPLE_RATE, Audio, SpeechRegion
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from asr.audio.readers import Decoding
    from asr.workers.template import Channel

# PyAV, and what it imports when it opens a file; a child under RLIMIT_AS may not be able to.
PRELOAD = ("asr.audio.recording", "av.subtitles.stream")
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
        return Audio(pcm.to_float32(pcm.from_bytes(data)))


def channel_path(target: Path, channel: int) -> Path:
    """Where a channel lies when channel 0 lies in `target`."""
    return target.with_name(f"{target.stem}-{channel}{target.suffix}") if channel else target


@dataclass(frozen=True, slots=True)
class Decoded:
    """How far decoding one channel has come.

    Attributes:
        n_samples: decoded so far, all of them readable.
        closed: speech regions that ended since the last report.
        open_region: the region that has begun and not ended.
        promised_seconds: what the header says of the length, for progress alone.
        finished: nothing follows.
        warnings: with the last report of channel 0, what was repaired.
        settled_sample: no region that is still to begin will begin before it.
        channel: 0 for all that is mixed.
        n_channels: the same in every report.
    """

    n_samples: int
    closed: tuple[SpeechRegion, ...]
    open_region: SpeechRegion | None
    promised_seconds: float | None = None
    finished: bool = False
    warnings: tuple[str, ...] = ()
    settled_sample: int = 0
    channel: int = 0
    n_channels: int = 1


async def decode_recording(
    pool: ProcessPool,
    source: Path | GrowingFile,
    target: Path,
    vad: VadOptions,
    limits: AudioLimits,
    *,
    split: bool = False,
) -> AsyncGenerator[Decoded]:
    """Decode `source` to `target` in a child process and report as it goes.

    Channels that are to be kept apart go to their `channel_path`, and each time all of them
    report, one after the other. Of a file that grows, all is reported whenever the rest is waited
    for.

    Raises:
        AudioError: the recording cannot be used.
        InvalidOption: the VAD is not installed.
        WorkerDied: the child died of something that is not the recording's fault.
    """
    growing = source if isinstance(source, GrowingFile) else None
    request = {
        "source": str(growing.path if growing else source),
        "info": str(growing.info) if growing else None,
        "target": str(target),
        "vad": asdict(vad),
        "limits": asdict(limits),
        "split": split,
    }
    guard = ProcessLimits(limits.max_cpu_seconds, limits.max_memory_bytes)
    patient = growing is not None
    async with pool.job(
        "asr.audio.recording:decode_job", request, b"", guard, patient=patient
    ) as job:
        try:
            async for message in job:
                for channel in range(len(message["channels"])):
                    yield _decoded(message, channel)
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
        closed = tuple(await asyncio.to_thread(_scan, recording, detector, start, end))
        settled = detector.settled_sample
        yield Decoded(end, closed, detector.open_region, settled_sample=settled)
    last = tuple(detector.finish())
    yield Decoded(n_samples, last, None, finished=True, settled_sample=n_samples)


def _scan(
    recording: Recording, detector: SpeechDetector, start: int, end: int
) -> list[SpeechRegion]:
    return detector.push(pcm.to_int16(recording.read(start, end).samples))


def _blame(error: WorkerDied, limits: AudioLimits) -> Exception:
    """What the death of the decoding process says about the recording."""
    if error.signal == signal.SIGXCPU:
        return AudioTooLong(f"decoding takes more than {limits.max_cpu_seconds} s of CPU time")
    if error.out_of_memory:
        return AudioTooLong(f"decoding takes more than {limits.max_memory_bytes} bytes of memory")
    crashes = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    if error.signal in crashes:
        return DamagedAudio("the recording is damaged: the decoder broke on it")
    return error


def _decoded(message: dict[str, Any], channel: int) -> Decoded:
    regions = message["channels"][channel]
    open_region = regions["open"]
    return Decoded(
        n_samples=message["n_samples"],
        closed=tuple(SpeechRegion(*pair) for pair in regions["closed"]),
        open_region=None if open_region is None else SpeechRegion(*open_region),
        promised_seconds=message["promised"],
        finished=message["finished"],
        warnings=() if channel else tuple(message["warnings"]),
        settled_sample=regions["settled"],
        channel=channel,
        n_channels=len(message["channels"]),
    )


# --- in the child -------------------------------------------------------------------------------


def decode_job(channel: Channel) -> None:
    """Decode one file: the request says which and how, reports go back."""
    request, _ = channel.receive()
    split = request["split"]
    with contextlib.ExitStack() as files:
        tracks: list[_Track] = []
        report = _Report(channel, tracks)
        decoding = _open(request, report)
        differ = False
        for block in decoding.blocks:
            columns = block.T if split else block[np.newaxis]
            while len(tracks) < len(columns):
                path = channel_path(Path(request["target"]), len(tracks))
                target = files.enter_context(path.open("wb", buffering=0))
                tracks.append(_Track(target, SpeechDetector(VadOptions(**request["vad"]))))
            for track, samples in zip(tracks, columns, strict=True):
                track.push(samples)
            differ = differ or any(not np.array_equal(columns[0], other) for other in columns[1:])
            report.add(decoding.promised_seconds)
    if len(tracks) > 1 and not differ:
        message = f"all {len(tracks)} channels hold the same sound; channels=mix hears it once"
        decoding.warnings.append(message)
    report.finish(decoding.warnings)


def _open(request: dict[str, Any], report: _Report) -> Decoding:
    source, limits = Path(request["source"]), AudioLimits(**request["limits"])
    if request["info"] is None:
        return decode(source, limits, split=request["split"])
    growing = GrowingFile(source, Path(request["info"]))
    return decode_growing(growing, limits, report.catch_up, split=request["split"])


class _Track:
    """One channel: its samples go to its file, and its speech is found on the way."""

    def __init__(self, target: BinaryIO, detector: SpeechDetector) -> None:
        self._target = target
        self._closed: list[SpeechRegion] = []
        self.detector = detector

    def push(self, samples: np.ndarray) -> None:
        written = pcm.to_int16(samples)
        left = memoryview(pcm.to_bytes(written))
        while left:
            left = left[self._target.write(left) :]
        self._closed += self.detector.push(written)

    def regions(self, *, finished: bool) -> dict[str, Any]:
        """What happened since the last report."""
        if finished:
            self._closed += self.detector.finish()
        region = None if finished else self.detector.open_region
        closed, self._closed = self._closed, []
        return {
            "closed": [(r.start_sample, r.end_sample) for r in closed],
            "open": region and (region.start_sample, region.end_sample),
            "settled": self.detector.n_samples if finished else self.detector.settled_sample,
        }


class _Report:
    """Says every few seconds of audio what happened in all channels."""

    def __init__(self, channel: Channel, tracks: Sequence[_Track]) -> None:
        self._channel = channel
        self._tracks = tracks
        self._promised: float | None = None
        self._next = REPORT_SAMPLES
        self._sent = 0
        self._is_polite = False

    def add(self, promised: float | None) -> None:
        self._promised = promised
        n_samples = self._n_samples()
        if n_samples >= LONG_SAMPLES and not self._is_polite:
            os.nice(LOW_PRIORITY)  # for good, but this process serves one recording
            self._is_polite = True
        if n_samples >= self._next:
            self._send([], finished=False)

    def catch_up(self) -> None:
        """Say what was not said yet."""
        if self._n_samples() > self._sent:
            self._send([], finished=False)

    def _n_samples(self) -> int:
        return self._tracks[0].detector.n_samples if self._tracks else 0

    def finish(self, warnings: Sequence[str]) -> None:
        self._send(warnings, finished=True)

    def _send(self, warnings: Sequence[str], *, finished: bool) -> None:
        self._channel.send(
            {
                "n_samples": self._tracks[0].detector.n_samples,
                "channels": [track.regions(finished=finished) for track in self._tracks],
                "promised": self._promised,
                "finished": finished,
                "warnings": list(warnings),
            }
        )
        self._sent = self._n_samples()
        self._next = self._sent + REPORT_SAMPLES
