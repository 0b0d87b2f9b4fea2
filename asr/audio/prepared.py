"""A recording prepared for a page that plays and shows it: FLAC at 16 kHz, and its peaks.

Everything comes from the decoder that the transcript comes from, so both have the same time axis.
A span can be read without decoding the audio before it.

    audio.flac    16 kHz mono, 16 bits: 60 to 90 MB per hour
    peaks.bin     the lowest and the highest sample of every 10 ms, one signed byte each
    info.json     `Info`

The recording is decoded in a child process with limits, in constant memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
import soundfile

from asr import pcm
from asr.audio.resample import decode
from asr.config import AudioLimits
from asr.errors import DamagedAudio, EmptyAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from asr.workers.template import Channel

AUDIO: Final = "audio.flac"
PEAKS: Final = "peaks.bin"
INFO: Final = "info.json"
PEAKS_PER_SECOND: Final = 100
SAMPLES_PER_PEAK: Final = SAMPLE_RATE // PEAKS_PER_SECOND
MAX_DEVIATION: Final = 0.25
"""Seconds. If a player finds the recording longer or shorter than our decoder by more than this,
positions would not agree, and the player gets the prepared audio."""
PRELOAD: Final = ("asr.audio.prepared", "av.subtitles.stream")  # as for asr.audio.recording
_PLAYABLE: Final = {
    # FFmpeg's name of the container, and of the codec -> the type for browsers
    ("wav", "pcm_s16le"): "audio/wav",
    ("wav", "pcm_u8"): "audio/wav",
    ("flac", "flac"): "audio/flac",
    ("mov,mp4,m4a,3gp,3g2,mj2", "aac"): "audio/mp4",
}
"""What every browser plays, and where it finds any time exactly. In an MP3 of variable bit rate
browsers are seconds off."""


@dataclass(frozen=True, slots=True)
class Info:
    """Facts about a prepared recording.

    Attributes:
        seconds: its length.
        played_as: the type of the recording itself, if every browser plays it on the same time
            axis; else "".
        stopped: why decoding stopped before the end, or "".
    """

    seconds: float
    played_as: str = ""
    stopped: str = ""


def read_info(folder: Path) -> Info | None:
    """The facts about the recording in a folder, or None if none was prepared there."""
    try:
        return Info(**json.loads((folder / INFO).read_text(encoding="ascii")))
    except FileNotFoundError:
        return None


def read_span(folder: Path, start: float, end: float) -> np.ndarray:
    """The int16 samples between two times in seconds; fewer at the end of the recording."""
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    with soundfile.SoundFile(folder / AUDIO) as file:
        file.seek(min(first, file.frames))
        found: np.ndarray = file.read(max(0, last - first), dtype="int16")
    return found


def read_peaks(folder: Path, points_per_second: float, max_points: int) -> tuple[int, np.ndarray]:
    """The peaks of a whole recording with fewer points.

    Args:
        folder: of the prepared recording.
        points_per_second: at most as many are returned.
        max_points: likewise in total.

    Returns:
        The samples per point, and int8 values: the minimum and the maximum of each point in turn.
    """
    fine = np.fromfile(folder / PEAKS, np.int8).reshape(-1, 2)
    factor = max(1, -(-PEAKS_PER_SECOND // points_per_second), -(-len(fine) // max_points))
    step = int(factor)
    firsts = np.arange(0, len(fine), step)
    if not len(firsts):
        return SAMPLES_PER_PEAK * step, np.zeros(0, np.int8)
    low = np.minimum.reduceat(fine[:, 0], firsts)
    high = np.maximum.reduceat(fine[:, 1], firsts)
    return SAMPLES_PER_PEAK * step, np.stack([low, high], axis=1).reshape(-1)


# --- in the child -------------------------------------------------------------------------------


def prepare_job(channel: Channel) -> None:
    """Decode a recording into a folder, and answer with its `Info`."""
    request, _ = channel.receive()
    source, folder = Path(request["source"]), Path(request["folder"])
    limits = AudioLimits(**request["limits"])
    seconds, stopped = _write(source, folder, limits, request["split"], request["track"])
    info = Info(seconds, _played_as(source, seconds), stopped)
    (folder / INFO).write_text(json.dumps(asdict(info)), encoding="ascii")
    channel.send(asdict(info))


def probe_job(channel: Channel) -> None:
    """Answer with the type of a recording for browsers by its header alone; "" if it has none."""
    request, _ = channel.receive()
    channel.send({"played_as": _played_as(Path(request["source"]))})


def _write(
    source: Path, folder: Path, limits: AudioLimits, split: bool, track: int | None
) -> tuple[float, str]:
    """Write audio and peaks; returns the seconds, and why decoding stopped before the end."""
    stopped, n_samples = "", 0
    with (
        (folder / PEAKS).open("wb") as peaks,
        soundfile.SoundFile(folder / AUDIO, "w", SAMPLE_RATE, 1, "PCM_16") as audio,
    ):
        meter = _PeakMeter(peaks)
        try:
            for samples in _mono(source, limits, split, track):
                n_samples += len(samples)
                audio.write(samples)
                meter.add(samples)
        except DamagedAudio as error:
            if not n_samples:
                raise
            stopped = str(error)  # the transcript ends there, too
        meter.finish()
    if not n_samples:
        raise EmptyAudio("the recording holds no samples")
    return n_samples / SAMPLE_RATE, stopped


def _mono(
    source: Path, limits: AudioLimits, split: bool, track: int | None
) -> Iterator[np.ndarray]:
    """Blocks of int16 samples. Separate channels or tracks are averaged."""
    for block in decode(source, limits, split=split, track=track).blocks:
        yield pcm.to_int16(block.mean(axis=1, dtype=np.float32) if block.ndim > 1 else block)


class _PeakMeter:
    """Writes the peaks of a stream of samples."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._rest = np.zeros(0, np.int16)

    def add(self, samples: np.ndarray) -> None:
        joined = np.concatenate([self._rest, samples])
        n_whole = len(joined) // SAMPLES_PER_PEAK * SAMPLES_PER_PEAK
        self._write(joined[:n_whole].reshape(-1, SAMPLES_PER_PEAK))
        self._rest = joined[n_whole:]

    def finish(self) -> None:
        if len(self._rest):
            self._write(self._rest[None])

    def _write(self, rows: np.ndarray) -> None:
        pairs = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1) if len(rows) else rows
        self._target.write((pairs >> 8).astype(np.int8).tobytes())


def _played_as(source: Path, seconds: float | None = None) -> str:
    """The type of a recording that every browser plays on our time axis, or ""."""
    try:
        with av.open(str(source)) as container:
            return _type_of(container, seconds)
    except (av.FFmpegError, OSError, ValueError):
        return ""


def _type_of(container: Any, seconds: float | None) -> str:
    streams = container.streams
    if len(streams.audio) != 1 or len(streams) != 1:
        return ""
    sound = streams.audio[0]
    found = _PLAYABLE.get((container.format.name, sound.codec_context.name), "")
    if sound.duration is None or sound.time_base is None:
        return ""
    start = float((sound.start_time or 0) * sound.time_base)
    length = float(sound.duration * sound.time_base)
    is_other = seconds is not None and abs(length - seconds) > MAX_DEVIATION
    return "" if is_other or start > MAX_DEVIATION else found
