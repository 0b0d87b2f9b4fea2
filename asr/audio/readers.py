"""Recordings -> blocks of samples at their own rate and with all their channels.

libsndfile (through soundfile) opens wav, flac, ogg, opus, and mp3s that state their number of
frames. FFmpeg (through PyAV) opens the rest: other mp3s, m4a, mp4, mov, webm, mkv, aac, wma, amr
and the audio track of video. The bytes decide the format, never the file name.

If the file holds several recordings, they are opened one after the other.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import soundfile

from asr.audio.chain import Part, chained
from asr.audio.concatenated import MAX_TRAILER_BYTES, extent, next_recording, search
from asr.audio.containers import has_more_streams, samples_of
from asr.audio.decoding import Decoding, check_layout, damaged
from asr.audio.disk import check_readable
from asr.audio.mpeg import is_counted
from asr.audio.tracks import Choice, Source, check_track, open_tracks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asr.audio.containers import Extent, Peek, Samples
    from asr.audio.decoding import RatedBlocks

BLOCK_FRAMES: Final = 65_536
_UNKNOWN_FRAMES: Final = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a FLAC that came from a pipe
_FLAC_BUFFER: Final = 1 << 17
"""libFLAC may have read so many bytes, and more, of what follows the recording."""


def open_file(
    path: Path, decoding: Decoding, choice: Choice | None = None, start: int = 0
) -> RatedBlocks:
    """Return the blocks of a file, of all recordings in it.

    Args:
        path: the file.
        decoding: receives the length in the header and, while iterating, warnings.
        choice: which audio tracks to decode.
        start: where the first recording begins.

    Raises:
        UnsupportedAudio: not audio in an accepted format.
        InvalidOption: there is no track of the chosen number.
        DamagedAudio: while iterating, decoding failed.
    """
    choice = choice or Choice()
    return chained(lambda at: _open_part(path, at, decoding, choice), start, decoding)


class Slice:
    """Some bytes of a file, which can be read like a file of their own.

    Args:
        path: the file.
        start: the first byte.
        end: the byte after the last one.
        is_strict: refuse to seek out of these bytes. FFmpeg expects an error there, and libsndfile
            expects none.
    """

    def __init__(self, path: Path, start: int, end: int, *, is_strict: bool) -> None:
        self._is_strict = is_strict
        self.descriptor = os.open(path, os.O_RDONLY)
        self._start, self._end, self._at = start, end, start

    def __del__(self) -> None:
        os.close(self.descriptor)

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Return at most `n_bytes` of the next bytes."""
        left = max(self._end - self._at, 0) if self._at >= self._start else 0
        if left == 0:
            return b""
        data = os.pread(self.descriptor, left if n_bytes < 0 else min(n_bytes, left), self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a buffer; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to another position; return it.

        Raises:
            OSError: the position is not in the file, and the reader is strict.
        """
        bases = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}
        at = bases[whence] + offset
        if self._is_strict and not self._start <= at <= self._end:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return self.tell()

    def tell(self) -> int:
        """Return the position."""
        return self._at - self._start


class _Sndfile:
    """A recording for libsndfile: a whole file by its descriptor, or a slice of a file.

    Whole files are opened by descriptor, so that libsndfile does not see the name: it reads the
    bytes of any file called x.vox or x.au as samples.
    """

    def __init__(self, path: Path, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.is_whole = start == 0 and end == path.stat().st_size
        self.handle = (
            os.open(path, os.O_RDONLY)
            if self.is_whole
            else Slice(path, start, end, is_strict=False)
        )
        self.descriptor = self.handle if isinstance(self.handle, int) else self.handle.descriptor

    def position(self) -> int:
        """Return how far the file was read, from its beginning."""
        if isinstance(self.handle, int):
            return os.lseek(self.handle, 0, os.SEEK_CUR)
        return self.start + self.handle.tell()


def _peek_of(descriptor: int) -> Peek:
    """Return a function that reads a file without moving its position."""
    return lambda at, n_bytes: os.pread(descriptor, n_bytes, at)


def _open_part(path: Path, start: int, decoding: Decoding, choice: Choice) -> Part:
    """Open the recording that begins at `start`."""
    with path.open("rb", buffering=0) as file:
        peek, size = _peek_of(file.fileno()), os.fstat(file.fileno()).st_size
        found = extent(peek, start, complete=True)
        part = _part_of(peek, start, size, found)
        end = size if part.following is None else part.following
        share = _promised_share(samples_of(peek, start), end)
        source = _open_libsndfile(path, start, end, decoding, part)
        if source is None and found.needle == b"fLaC":
            part.following = search(peek, found.needle, found.search_from, size)
            end = size if part.following is None else part.following
    if source is not None:
        check_track(choice.number or 0, 1)
        part.blocks = source
    else:
        part.blocks = open_tracks(_source(path, start, end), decoding, choice)
        part.promised_share = share
        if found.end is None:
            part.find_next = _finder(path, start, end, part)
    if found.needle == b"FORM":
        decoding.promised_seconds = None  # an aiff from a pipe counts too many frames
    return part


def _finder(path: Path, start: int, end: int, part: Part) -> Callable[[int, bool], None]:
    """Return a function that looks behind the last packet for a recording of another kind."""

    def find_next(last: int, is_damaged: bool) -> None:
        with path.open("rb", buffering=0) as file:
            part.following = search(_peek_of(file.fileno()), b"", start + last + 1, end)
        if is_damaged and part.following is not None:
            part.n_left = part.following - start - last

    return find_next


def _part_of(peek: Peek, start: int, size: int, found: Extent) -> Part:
    """Find out where the recording ends and what follows it.

    A FLAC is not searched for another one: libsndfile will tell where its frames end.
    """
    if found.end is not None:
        end = min(found.end, size)
        following, tags_end = next_recording(peek, start, end, size)
        n_left = max(size if following is None else following, tags_end) - tags_end
        return Part(following=following, n_bytes=tags_end - start, n_left=n_left)
    following = None
    if found.needle is not None and found.needle != b"fLaC":
        following = search(peek, found.needle, found.search_from, size)
    return Part(following=following, n_bytes=(following or size) - start)


def _source(path: Path, start: int, end: int) -> Source:
    """Return what FFmpeg reads. It reads whole files by itself, which is faster."""
    # Without "file:" FFmpeg would take the "12" of a file called "12:30.m4a" for a protocol.
    name = f"file:{path}"
    if start == 0 and end == path.stat().st_size:
        return Source(lambda: name, name, {})
    return Source(lambda: Slice(path, start, end, is_strict=True), name, {})


# --- libsndfile ---------------------------------------------------------------------------------


def _open_libsndfile(
    path: Path, start: int, end: int, decoding: Decoding, part: Part
) -> RatedBlocks | None:
    """Return the blocks, or None if libsndfile does not know the format or the length."""
    source = _Sndfile(path, start, end)
    try:
        file = soundfile.SoundFile(source.handle, closefd=True)
    except soundfile.LibsndfileError:
        return None
    peek = _peek_of(source.descriptor)
    is_known = 0 < file.frames < _UNKNOWN_FRAMES  # else the header was written before the audio
    # libsndfile would assume one bitrate and end too early, or read the first track of an Ogg only.
    is_whole = file.format != "MP3" or is_counted(peek, start, end)
    if not is_known or not is_whole or has_more_streams(peek, start):
        file.close()
        return None
    check_layout(file.samplerate, file.channels)
    n_promised = file.frames * _promised_share(samples_of(peek, start), end)
    decoding.promised_seconds = n_promised / file.samplerate
    decoding.is_promise_of_audio = True
    decoding.is_promise_exact = file.format == "FLAC"
    return _libsndfile_blocks(file, source, path, decoding, part)


def _libsndfile_blocks(
    file: soundfile.SoundFile, source: _Sndfile, path: Path, decoding: Decoding, part: Part
) -> RatedBlocks:
    n_frames, has_failed = 0, False
    with file:
        while True:
            try:
                block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                check_readable(source.descriptor)
                if file.format != "FLAC":
                    raise damaged(n_frames / file.samplerate, error) from error
                has_failed = True  # FFmpeg will tell damage from a wrong header
                break
            if len(block) == 0:
                break
            n_frames += len(block)
            yield file.samplerate, block
        is_short = _find_rest(file.format, source, part)
    if is_short and not has_failed:
        decoding.promised_seconds = None
    if is_short or has_failed:
        yield from _rest_of_flac(path, source, n_frames, part, decoding)


def _find_rest(kind: str, source: _Sndfile, part: Part) -> bool:
    """Look behind the frames of a FLAC or mp3 whose header does not state its bytes.

    Returns:
        Whether the file has more frames of a FLAC than its header states.
    """
    if part.following is not None or part.n_left:
        return False
    peek, end = _peek_of(source.descriptor), source.end
    at = source.position()
    if kind == "FLAC":
        part.following = search(peek, b"", max(at - _FLAC_BUFFER, source.start + 4), end)
        part.n_bytes = at - source.start
        part.n_left = end - at if part.following is None else 0
        return part.n_left > MAX_TRAILER_BYTES
    if kind == "MP3":
        part.following, tags_end = next_recording(peek, source.start, at, end)
        part.n_bytes = at - source.start
        part.n_left = (part.following or end) - tags_end
    return False


def _rest_of_flac(
    path: Path, source: _Sndfile, n_frames: int, part: Part, decoding: Decoding
) -> RatedBlocks:
    """Let FFmpeg decode what libsndfile did not. It skips damaged packets, with a warning.

    FLAC has no loss, so the rest follows exactly.
    """
    rest = Decoding()
    end = source.end if part.following is None else part.following
    part.n_left = 0
    yield from _after(open_tracks(_source(path, source.start, end), rest, Choice()), n_frames)
    decoding.warnings += rest.warnings
    decoding.last, decoding.is_damaged = rest.last, rest.is_damaged


def _after(blocks: RatedBlocks, n_frames: int) -> RatedBlocks:
    """Return the blocks after the first `n_frames` frames."""
    for rate, block in blocks:
        if len(block) > n_frames:
            yield rate, block[n_frames:]
        n_frames = max(0, n_frames - len(block))


def _promised_share(samples: Samples | None, end: int) -> float:
    """Return the audio bytes that the header states, divided by those in the file; at least 1.

    libsndfile counts only the frames that the file holds. Multiply its count by this number to get
    the count in the header.
    """
    if samples is None or samples.size is None:
        return 1.0
    n_there = end - samples.start
    return samples.size / n_there if 0 < n_there < samples.size else 1.0
