"""A decoded recording on disk, and the child process that decodes it.

Decoding runs in a child process with limits on CPU time and address space, because files come from
strangers and codecs have bugs. The child writes 16 kHz mono PCM16 to a file, finds speech in it,
and reports its progress, so recognition begins long before decoding ends. Later steps read samples
from that file: memory does not grow with the length of the recording, and a chunk can be
read again. Separate channels get a file each, all written in one pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from asr import pcm
from asr.audio.growing import GrowingFile, decode_growing
from asr.audio.level import LevelMeter
from asr.audio.likeness import LIKE, LikenessMeter
from asr.audio.resample import decode
from asr.audio.silence import is_silence
from asr.audio.vad import SpeechDetector
from asr.config import AudioLimits, VadOptions
from asr.errors import AudioTooLong, DamagedAudio, WorkerDied
from asr.types import SAMPLE_RATE, Audio, SpeechRegion
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from asr.audio.decoding import Decoding
    from asr.workers.template import Channel

# av.subtitles.stream brings in PyAV. PyAV imports it only when it opens a file, and under RLIMIT_AS
# that import may fail in a child.
PRELOAD = ("asr.audio.recording", "av.subtitles.stream")
REPORT_SAMPLES = 10 * SAMPLE_RATE
LONG_SAMPLES = 60 * SAMPLE_RATE
"""After this much audio, decoding continues at low priority. It is far ahead of the engine by then,
and the decoders of short recordings need the processor more."""
LOW_PRIORITY = 10
_BYTES_PER_SAMPLE = 2
_OVERCOMMIT: Final = Path("/proc/sys/vm/overcommit_memory")


class Recording:
    """16 kHz mono PCM16 without a header, in a file that may still be growing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start_sample: int, end_sample: int) -> Audio:
        """Return the samples in [start_sample, end_sample).

        Raises:
            ValueError: the file ends before `end_sample`.
        """
        with self.path.open("rb") as file:
            file.seek(start_sample * _BYTES_PER_SAMPLE)
            data = file.read((end_sample - start_sample) * _BYTES_PER_SAMPLE)
        if len(data) != (end_sample - start_sample) * _BYTES_PER_SAMPLE:
            raise ValueError(f"{self.path} ends before sample {end_sample}")
        return Audio(pcm.to_float32(pcm.from_bytes(data)))

    def count(self) -> int:
        """Return the number of samples in the file."""
        return self.path.stat().st_size // _BYTES_PER_SAMPLE


def channel_path(target: Path, channel: int) -> Path:
    """Return the file of a channel, if `target` is the file of channel 0."""
    return target.with_name(f"{target.stem}-{channel}{target.suffix}") if channel else target


@dataclass(frozen=True, slots=True)
class Decoded:
    """A report on the progress of one channel.

    Attributes:
        n_samples: samples decoded so far. All of them can be read.
        closed: speech regions that ended since the last report.
        open_region: the speech region that has not ended yet.
        promised_seconds: the length that the header states, for a progress bar only.
        finished: this is the last report of the channel.
        warnings: defects that were repaired; set in the last report of channel 0.
        settled_sample: future regions begin at this sample or later.
        channel: 0 if the channels are mixed.
        n_channels: number of channels. It is the same in every report.
        labels: a name of each channel, if the channels are audio tracks.
        stopped: why the decoder stopped before the end of the recording, as text for people; set in
            the last report.
        level: RMS of the channel so far in dBFS; None for digital silence.
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
    labels: tuple[str, ...] = ()
    stopped: str = ""
    level: float | None = None


async def decode_recording(
    pool: ProcessPool,
    source: Path | GrowingFile,
    target: Path,
    vad: VadOptions,
    limits: AudioLimits,
    *,
    split: bool = False,
    track: int | None = None,
    may_stop: bool = False,
) -> AsyncGenerator[Decoded]:
    """Decode `source` to `target` in a child process, and report the progress.

    With `split`, each channel goes to its `channel_path`, and the channels report in turn. With
    `track`, only this audio track is decoded, see `asr.audio.resample.decode`. If `source` is still
    growing, the child reports everything before it waits for more bytes. With `may_stop`, damage
    after the beginning is no error: the last report says why decoding stopped.

    Raises:
        AudioError: the recording cannot be used.
        InvalidOption: the VAD is not installed, or there is no such track.
        WorkerDied: the child died, and the recording is not the cause.
    """
    growing = source if isinstance(source, GrowingFile) else None
    request = {
        "source": str(growing.path if growing else source),
        "info": str(growing.info) if growing else None,
        "target": str(target),
        "vad": asdict(vad),
        "limits": asdict(limits),
        "split": split,
        "track": track,
        "may_stop": may_stop,
    }
    guard = ProcessLimits(limits.max_cpu_seconds, limits.max_memory_bytes)
    patient = growing is not None
    async with pool.job(
        "asr.audio.recording:decode_job", request, b"", guard, patient=patient
    ) as job:
        message = None
        try:
            async for message in job:
                for channel in range(len(message["channels"])):
                    yield _decoded(message, channel)
        except WorkerDied as error:
            blamed = blame(error, limits)
            if not (may_stop and message and isinstance(blamed, DamagedAudio)):
                raise blamed from error
            last = _last_message(message, str(blamed))
            for channel in range(len(last["channels"])):
                yield _decoded(last, channel)


async def scan_recording(recording: Recording, vad: VadOptions) -> AsyncGenerator[Decoded]:
    """Find the speech in a decoded recording. A thread is enough: no codec runs that could crash.

    Raises:
        InvalidOption: the VAD is not installed.
    """
    n_samples = recording.path.stat().st_size // _BYTES_PER_SAMPLE
    detector, level = await asyncio.to_thread(SpeechDetector, vad), LevelMeter()
    for start in range(0, n_samples, REPORT_SAMPLES):
        end = min(start + REPORT_SAMPLES, n_samples)
        closed = tuple(await asyncio.to_thread(_scan, recording, detector, level, start, end))
        settled = detector.settled_sample
        yield Decoded(end, closed, detector.open_region, settled_sample=settled)
    last = tuple(detector.finish())
    yield Decoded(n_samples, last, None, finished=True, settled_sample=n_samples, level=level.dbfs)


def _scan(
    recording: Recording, detector: SpeechDetector, level: LevelMeter, start: int, end: int
) -> list[SpeechRegion]:
    samples = recording.read(start, end).samples
    level.add(samples)
    return detector.push(pcm.to_int16(samples))


def blame(error: WorkerDied, limits: AudioLimits) -> Exception:
    """Return an error about the recording, if the recording is why a decoding child died."""
    if error.signal == signal.SIGXCPU:
        return AudioTooLong(f"decoding takes more than {limits.max_cpu_seconds} s of CPU time")
    if error.out_of_memory and not _is_memory_rationed():
        return AudioTooLong(f"decoding takes more than {limits.max_memory_bytes} bytes of memory")
    crashes = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
    if error.signal in crashes:
        return DamagedAudio("the recording is damaged: the decoder broke on it")
    return error


def _last_message(message: dict[str, Any], stopped: str) -> dict[str, Any]:
    """The report that a child could not send because it crashed after `message`.

    A region that was open then ends where it ended so far.
    """
    end = message["n_samples"]
    channels = [
        it | {"closed": [it["open"]] if it["open"] else [], "open": None, "settled": end}
        for it in message["channels"]
    ]
    return message | {"channels": channels, "finished": True, "warnings": [], "stopped": stopped}


def _is_memory_rationed() -> bool:
    """Whether the system refuses memory when it has none left.

    Otherwise only the limit of the child refuses it. The kernel kills a process when it has none.
    """
    try:
        return _OVERCOMMIT.read_text(encoding="ascii").strip() == "2"
    except OSError:  # not Linux
        return False


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
        labels=tuple(message["labels"]),
        stopped=message["stopped"],
        level=regions["level"],
    )


# --- in the child -------------------------------------------------------------------------------


def decode_job(channel: Channel) -> None:
    """Decode the file that the request names, and send reports."""
    request, _ = channel.receive()
    split = request["split"]
    with contextlib.ExitStack() as files:
        tracks: list[_Track] = []
        report = _Report(channel, tracks)
        decoding = _open(request, report)
        differ, likeness = False, LikenessMeter()
        for block in _until_damage(decoding, report, may_stop=request.get("may_stop", False)):
            columns = block.T if split else block[np.newaxis]
            while len(tracks) < len(columns):
                path = channel_path(Path(request["target"]), len(tracks))
                target = files.enter_context(path.open("wb", buffering=0))
                tracks.append(_Track(target, SpeechDetector(VadOptions(**request["vad"]))))
            for track, samples in zip(tracks, columns, strict=True):
                track.push(samples)
            differ = differ or _do_differ(columns)
            likeness.add(columns)
            _check_bytes(tracks, request["limits"]["max_decoded_bytes"])
            report.add(decoding)
    decoding.warnings += _alike(decoding, len(tracks), likeness.least, differ=differ)
    report.finish(decoding.warnings)


def _alike(
    decoding: Decoding, n_tracks: int, correlation: float | None, *, differ: bool
) -> list[str]:
    """A warning if the channels hold the same sound."""
    kind = "audio tracks" if decoding.labels else "channels"
    advice = "channels=mix transcribes them once"
    if n_tracks > 1 and not differ:
        return [f"all {n_tracks} {kind} are identical; {advice}"]
    if correlation is not None and correlation >= LIKE:
        found = f"the {n_tracks} {kind} hold the same sound (correlation {correlation:.2f})"
        return [f"{found}, so they do not tell speakers apart; {advice}, and speakers=auto does"]
    return []


def _until_damage(decoding: Decoding, report: _Report, *, may_stop: bool) -> Iterator[np.ndarray]:
    """Yield the blocks of a recording.

    With `may_stop`, damage after the first block ends them, and `report` says why.
    """
    has_begun = False
    try:
        for block in decoding.blocks:
            has_begun = True
            yield block
    except DamagedAudio as error:
        if not (may_stop and has_begun):
            raise
        report.stopped = str(error)


def _do_differ(channels: np.ndarray) -> bool:
    others = () if is_silence(channels) else channels[1:]
    return any(not np.array_equal(channels[0], other) for other in others)


def _check_bytes(tracks: Sequence[_Track], max_bytes: int) -> None:
    """Check that the decoded audio does not fill the disk.

    Raises:
        AudioTooLong: it takes more than `max_bytes`.
    """
    if sum(track.n_bytes for track in tracks) > max_bytes:
        message = f"the decoded audio takes more than {max_bytes} bytes of disk"
        raise AudioTooLong(f"{message} (ASR_MAX_DECODED_BYTES)")


def _open(request: dict[str, Any], report: _Report) -> Decoding:
    source, limits = Path(request["source"]), AudioLimits(**request["limits"])
    split, track = request["split"], request.get("track")
    if request["info"] is None:
        return decode(source, limits, split=split, track=track)
    growing = GrowingFile(source, Path(request["info"]))
    return decode_growing(growing, limits, report.catch_up, split=split, track=track)


class _Track:
    """Writes one channel to its file and finds its speech.

    Attributes:
        n_bytes: written so far. Silence is a hole in the file and takes no bytes.
    """

    def __init__(self, target: BinaryIO, detector: SpeechDetector) -> None:
        self.n_bytes = 0
        self._target = target
        self._closed: list[SpeechRegion] = []
        self._level = LevelMeter()
        self.detector = detector

    def push(self, samples: np.ndarray) -> None:
        self._level.add(samples)
        if is_silence(samples):
            self._skip(len(samples))
            self._closed += self.detector.push_silence(len(samples))
            return
        written = pcm.to_int16(samples)
        if written.any():
            self._write(pcm.to_bytes(written))
        else:
            self._skip(len(written))
        self._closed += self.detector.push(written)

    def _write(self, data: bytes) -> None:
        self.n_bytes += len(data)
        left = memoryview(data)
        while left:
            left = left[self._target.write(left) :]

    def _skip(self, n_samples: int) -> None:
        """Make a hole of zeros at the end of the file."""
        end = self._target.seek(n_samples * _BYTES_PER_SAMPLE, os.SEEK_CUR)
        self._target.truncate(end)  # readers do not wait for the next write

    def regions(self, *, finished: bool) -> dict[str, Any]:
        """Return the changes since the last report."""
        if finished:
            self._closed += self.detector.finish()
        region = None if finished else self.detector.open_region
        closed, self._closed = self._closed, []
        return {
            "closed": [(r.start_sample, r.end_sample) for r in closed],
            "open": region and (region.start_sample, region.end_sample),
            "settled": self.detector.n_samples if finished else self.detector.settled_sample,
            "level": self._level.dbfs,
        }


class _Report:
    """Sends a report on all channels after every `REPORT_SAMPLES`.

    Attributes:
        stopped: why the decoder stopped before the end of the recording.
    """

    def __init__(self, channel: Channel, tracks: Sequence[_Track]) -> None:
        self.stopped = ""
        self._channel = channel
        self._tracks = tracks
        self._promised: float | None = None
        self._labels: list[str] = []
        self._next = REPORT_SAMPLES
        self._sent = 0
        self._is_niced = False

    def add(self, decoding: Decoding) -> None:
        self._promised, self._labels = decoding.promised_seconds, decoding.labels
        n_samples = self._n_samples()
        if n_samples >= LONG_SAMPLES and not self._is_niced:
            os.nice(LOW_PRIORITY)  # cannot be undone, but this process decodes only one recording
            self._is_niced = True
        if n_samples >= self._next:
            self._send([], finished=False)

    def catch_up(self) -> None:
        """Report samples that no report has covered yet."""
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
                "labels": self._labels,
                "stopped": self.stopped,
            }
        )
        self._sent = self._n_samples()
        self._next = self._sent + REPORT_SAMPLES
