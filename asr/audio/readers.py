"""Recordings -> blocks of samples at their own rate and with all their channels.

libsndfile (through soundfile) opens wav, flac, ogg, opus, and mp3s that state their number of
frames. FFmpeg (through PyAV) opens the rest: other mp3s, m4a, mp4, mov, webm, mkv, aac, wma, amr
and the audio track of video. The bytes decide the format, never the file name.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import soundfile

from asr.audio.concatenated import is_concatenated, is_counted
from asr.audio.disk import check_readable, refuse_disk_errors
from asr.audio.silence import silence
from asr.errors import DamagedAudio, UnsupportedAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from pathlib import Path

    import av

ACCEPTED: Final = (
    "Accepted are wav, flac, mp3, ogg, opus, m4a, mp4, mov, webm, mkv, aac, wma and amr, "
    "of 8 to 192 kHz"
)
MIN_RATE: Final = 8_000
MAX_RATE: Final = 192_000
MAX_CHANNELS: Final = 64
BLOCK_FRAMES: Final = 65_536
MAX_GAP_SECONDS: Final = 0.1
"""Seconds. Larger jumps of a container's timestamps become silence, so times stay true."""
MAX_SILENCE_SECONDS: Final = 3600.0
"""Seconds. A longer jump ahead is not a pause but another clock: the audio continues at once. An
hour is longer than a muted microphone usually stays muted."""
MAX_BACK_SECONDS: Final = 1.0
"""Seconds. A longer jump back is another clock. A shorter one is jitter, and the samples count."""
MAX_LEAD_SECONDS: Final = 0.01
"""Seconds. The limit for the gap before the first sound, if the audio begins after the video. This
gap has no jitter. Without silence in its place every word would come too early."""

MAX_TRAILER_BYTES: Final = 16_384
"""More bytes than this after the audio are not a tag, but may be a second recording."""

# Demuxers that read one file and nothing else: no hls, no concat, no playlists of any kind.
_FORMATS: Final = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,wav,w64,webm"
)
# For these FFmpeg guesses the length of a file from its size and the bitrate of its first frames.
_GUESSED: Final = ("mp3", "aac")
_UNKNOWN_FRAMES: Final = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a FLAC that came from a pipe

# Key: the first bytes of the file. Value: format of a chunk header, offset of the first chunk,
# header bytes that a chunk's size includes, and the alignment of chunks.
_CHUNKS: Final = {
    b"RIFF": ("<4sI", 12, 0, 2),
    b"RIFX": (">4sI", 12, 0, 2),
    b"RF64": ("<4sI", 12, 0, 2),
    b"FORM": (">4sI", 12, 0, 2),
    b"riff": ("<16sQ", 40, 24, 8),  # w64
}
_LONG: Final = (b"RF64", b"riff")
_MAX_CHUNKS: Final = 1_000
_NO_SIZE: Final = 0x7FFF_0000
"""Sizes from here on mean "unknown". Programs that write to a pipe leave them: sox 0x7FFFF000,
others all bits set."""
_NO_LONG_SIZE: Final = 2**62

RatedBlocks = Iterator[tuple[int, np.ndarray]]
"""Pairs of a rate in Hz and a block of shape (n_frames, n_channels)."""


class Readable(Protocol):
    """A file that is read from start to end, in pieces of any length."""

    def read(self, n_bytes: int, /) -> bytes:
        """Return at most `n_bytes` of the next bytes, none at the end."""
        ...


@dataclass(slots=True)
class Decoding:
    """A recording being decoded. Iterate over `blocks` once; `warnings` is complete after that.

    Attributes:
        blocks: float32 samples.
        promised_seconds: the length that the header states, or None. For a progress bar only.
        warnings: defects that were repaired.
    """

    blocks: Iterator[np.ndarray] = field(default_factory=lambda: iter(()))
    promised_seconds: float | None = None
    warnings: list[str] = field(default_factory=list)


def open_file(path: Path, decoding: Decoding) -> RatedBlocks:
    """Return the blocks of a file.

    Args:
        path: the file.
        decoding: receives the length in the header and, while iterating, warnings.

    Raises:
        UnsupportedAudio: not audio in an accepted format.
        DamagedAudio: while iterating, decoding failed.
    """
    several = is_concatenated(path)
    source = None if several else _open_libsndfile(path, decoding)
    if source is None:
        # Without "file:" FFmpeg would take the "12" of a file called "12:30.m4a" for a protocol.
        source = _open_ffmpeg(f"file:{path}", decoding)
    if several:
        decoding.promised_seconds = None  # it describes only the first recording
    return source


def open_stream(file: Readable, decoding: Decoding, probe_bytes: int) -> RatedBlocks:
    """Return the blocks of a file that cannot seek, with the same errors as `open_file`.

    Uses FFmpeg only: libsndfile reads the end of a file before it decodes the beginning.
    """
    return _open_ffmpeg(file, decoding, {"probesize": str(probe_bytes)})


def _check_layout(rate: int, channels: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnsupportedAudio(f"the sample rate is {rate} Hz. {ACCEPTED}.")
    if not 1 <= channels <= MAX_CHANNELS:
        raise UnsupportedAudio(f"the recording has {channels} channels; 1 to {MAX_CHANNELS} work")


# --- libsndfile ---------------------------------------------------------------------------------


def _open_libsndfile(path: Path, decoding: Decoding) -> RatedBlocks | None:
    """Return the blocks, or None if libsndfile does not know the format or the length."""
    # By descriptor, so that libsndfile does not see the name: it reads the bytes of any file called
    # x.vox or x.au as samples.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        file = soundfile.SoundFile(descriptor, closefd=True)
    except soundfile.LibsndfileError:
        return None
    if not 0 < file.frames < _UNKNOWN_FRAMES:
        file.close()  # the header was written before the audio and not completed
        return None
    if file.format == "MP3" and not is_counted(path):
        file.close()  # libsndfile would assume one bitrate and end too early
        return None
    _check_layout(file.samplerate, file.channels)
    n_promised = file.frames * _promised_share(descriptor)
    decoding.promised_seconds = n_promised / file.samplerate
    return _libsndfile_blocks(file, descriptor, decoding)


def _libsndfile_blocks(
    file: soundfile.SoundFile, descriptor: int, decoding: Decoding
) -> RatedBlocks:
    n_frames = 0
    with file:
        while True:
            try:
                block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                check_readable(descriptor)
                raise _damaged(n_frames / file.samplerate, error) from error
            if len(block) == 0:
                break
            n_frames += len(block)
            yield file.samplerate, block
        _check_trailer(file.format, descriptor, decoding)


def _promised_share(descriptor: int) -> float:
    """Return the audio bytes that the header states, divided by those in the file; at least 1.

    libsndfile counts only the frames that the file holds. Multiply its count by this number to get
    the count in the header.
    """
    place = _data_chunk(descriptor)
    if place is None:
        return 1.0
    start, n_promised = place
    n_there = os.fstat(descriptor).st_size - start
    return n_promised / n_there if 0 < n_there < n_promised else 1.0


def _data_chunk(descriptor: int) -> tuple[int, int] | None:
    """Return the offset of the samples and their number of bytes according to the header.

    Knows wav, rf64, w64, aiff and au; None for other formats or an unknown size. Uses pread, which
    does not move libsndfile's position in the file.
    """
    magic, start, size = struct.unpack(">4sII", os.pread(descriptor, 12, 0).ljust(12, b"\0"))
    if magic == b".snd":
        return (start, size) if size < _NO_SIZE else None
    if magic not in _CHUNKS:
        return None
    form, at, own_bytes, align = _CHUNKS[magic]
    n_header = struct.calcsize(form)
    long_size = None
    for _ in range(_MAX_CHUNKS):
        header = os.pread(descriptor, n_header, at)
        if len(header) < n_header:
            break
        name, size = struct.unpack(form, header)
        size -= own_bytes
        at += n_header
        if name[:4] == b"ds64":  # only in rf64, for sizes over 32 bits
            long_size = int.from_bytes(os.pread(descriptor, 8, at + 8), "little")
        if name[:4] in (b"data", b"SSND"):
            limit = _NO_LONG_SIZE if magic in _LONG else _NO_SIZE
            size = size if long_size is None else long_size
            return (at, size) if size < limit else None
        if not 0 <= size < _NO_LONG_SIZE:
            break
        at += size + -size % align
    return None


def _check_trailer(kind: str, descriptor: int, decoding: Decoding) -> None:
    """Warn if many bytes follow the recording that libsndfile decoded."""
    n_left = os.fstat(descriptor).st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
    if kind in ("MP3", "OGG") and n_left > MAX_TRAILER_BYTES:
        decoding.warnings.append(f"{n_left} bytes after the end of the recording were not decoded")


def _damaged(seconds: float, cause: Exception) -> DamagedAudio:
    message = f"the recording is damaged or cut off after {seconds:.1f} s"
    return DamagedAudio(f"{message} ({str(cause).strip()})", seconds)


# --- FFmpeg -------------------------------------------------------------------------------------


def _open_ffmpeg(
    source: str | Readable, decoding: Decoding, options: dict[str, str] | None = None
) -> RatedBlocks:
    # Imported here and in `_frames`: FFmpeg's libraries are large, and only decoders need them.
    import av
    import av.error

    guards = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(source, "r", options=guards | (options or {}), metadata_errors="ignore")
    except MemoryError:  # must come first: PyAV's MemoryError is an FFmpegError too
        raise
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        refuse_disk_errors(error, source)
        raise UnsupportedAudio(f"this is not audio that can be read. {ACCEPTED}.") from error
    stream = container.streams.best("audio")
    if not isinstance(stream, av.AudioStream):
        container.close()
        raise UnsupportedAudio(f"the file has no audio track. {ACCEPTED}.")
    if getattr(stream, "codec_context", None) is None:  # then stream.rate does not exist either
        container.close()
        raise UnsupportedAudio(f"the codec of the audio is unknown. {ACCEPTED}.")
    _check_layout(stream.rate or MIN_RATE, stream.channels or 1)
    decoding.promised_seconds = _promised_seconds(container)
    return _ffmpeg_blocks(container, stream, decoding)


def _promised_seconds(container: av.container.InputContainer) -> float | None:
    if not container.duration or (container.format.name in _GUESSED and container.size > 0):
        return None
    # Only Matroska counts its length from time 0 instead of from its first packet.
    counts_from_0 = "matroska" in container.format.name
    start = (container.start_time or 0) if counts_from_0 else 0
    return max(container.duration - start, 0) / 1e6


def _ffmpeg_blocks(
    container: av.container.InputContainer, stream: av.AudioStream, decoding: Decoding
) -> RatedBlocks:
    """Decode packet by packet, and insert silence where the timestamps jump ahead."""
    origin = (container.start_time or 0) / 1e6
    late = float((stream.start_time or 0) * (stream.time_base or 0)) - origin
    clock = _Clock(origin, late)
    with container:
        for frame in _frames(container, stream, decoding):
            rate, block = frame.sample_rate, _frame_samples(frame)
            _check_layout(rate, block.shape[1])
            if n_silent := round(clock.gap(frame.time, len(block) / rate) * rate):
                yield rate, silence(n_silent, block.shape[1])
            yield rate, block
    if clock.n_jumps:
        decoding.promised_seconds = None  # it includes the jumps
        decoding.warnings.append(
            f"the clock of the recording jumps ahead by more than an hour, {clock.n_jumps} times, "
            f"first after {clock.first_jump:.1f} s of audio: no silence was inserted"
        )


class _Clock:
    """Compares the timestamps of a container with the audio so far.

    Args:
        origin: the timestamp of second 0.
        late: seconds from there to the first sound, according to the header.

    Attributes:
        n_jumps: how often the clock jumped far ahead. Jumps back are normal where recordings were
            joined.
        first_jump: seconds of audio before the first jump.
    """

    def __init__(self, origin: float, late: float) -> None:
        self._origin = origin
        self._late = late
        self._expected: float | None = None  # the end of the previous frame by its timestamp
        self._seconds = 0.0  # of audio, with the gaps
        self.n_jumps = 0
        self.first_jump = 0.0

    def gap(self, time: float | None, seconds: float) -> float:
        """Return the seconds of silence before a frame.

        Args:
            time: the timestamp of the frame, if it has one.
            seconds: its length.
        """
        gap = 0.0
        if time is not None:
            gap = self._lead(time) if self._expected is None else self._gap(time, self._expected)
            self._expected = time
        if self._expected is not None:
            self._expected += seconds
        self._seconds += gap + seconds
        return gap

    def _lead(self, time: float) -> float:
        """Return the silence before the first frame.

        FFmpeg takes the least timestamp for the first one. In a recording whose clock jumps back,
        that one is later in the file, and only the header tells when the sound starts.
        """
        if time - self._origin - self._late > MAX_BACK_SECONDS:
            self._origin = time - self._late
        lead = time - self._origin - self._seconds
        least = MAX_LEAD_SECONDS if self._late > MAX_LEAD_SECONDS else MAX_GAP_SECONDS
        if lead > MAX_SILENCE_SECONDS:
            return self._gap(time, self._origin)
        return lead if lead > least else 0.0

    def _gap(self, time: float, expected: float) -> float:
        ahead = time - expected
        if ahead > MAX_SILENCE_SECONDS:
            self.first_jump = self.first_jump if self.n_jumps else self._seconds
            self.n_jumps += 1
        if not -MAX_BACK_SECONDS <= ahead <= MAX_SILENCE_SECONDS:
            self._origin = time - self._seconds
        gap = time - self._origin - self._seconds
        return gap if gap > MAX_GAP_SECONDS else 0.0


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream, decoding: Decoding
) -> Iterator[av.AudioFrame]:
    """Yield the frames of a stream. Skip a few damaged packets, as players do."""
    import av.error

    n_good, n_bad = 0, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            yield from packet.decode()
            n_good += 1
        except StopIteration:
            break
        except MemoryError:  # must come first: PyAV's MemoryError is an FFmpegError too
            raise
        except av.error.FFmpegError as error:
            refuse_disk_errors(error, container.name)
            n_bad += 1
            if n_bad > 3 + n_good // 100:
                raise _damaged(
                    0.0 if n_good == 0 else n_good * _packet_seconds(stream), error
                ) from error
    if n_bad:
        decoding.warnings.append(f"{n_bad} damaged packets of audio were skipped")


def _packet_seconds(stream: av.AudioStream) -> float:
    return (stream.codec_context.frame_size or 1024) / (stream.rate or SAMPLE_RATE)


_SCALE: Final = {"u8": 1 / 128, "s16": 1 / 32768, "s32": 1 / 2147483648}


def _frame_samples(frame: av.AudioFrame) -> np.ndarray:
    """Return the samples of a frame as float32, shape (n_frames, n_channels)."""
    try:
        array = frame.to_ndarray()
    except ValueError as error:  # PyAV cannot convert s64
        raise UnsupportedAudio(
            f"samples in the format {frame.format.name} are not supported"
        ) from error
    block = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    name = frame.format.name.removesuffix("p")
    if name == "u8":
        return (block.astype(np.float32) - 128) * np.float32(_SCALE[name])
    if name in _SCALE:
        return block.astype(np.float32) * np.float32(_SCALE[name])
    return block.astype(np.float32, copy=False)
