"""Decode a recording while it arrives.

The receiver writes two files. One holds the bytes as they arrive. The other is a small JSON file
with the final number of bytes, or ``{"length": null}`` while that is unknown. The recording is
complete when the first file has that length. If one of the files is gone, the upload was abandoned.

Most formats can be decoded from front to back. Others, such as an MP4 with its index at the end,
and all unknown formats are decoded only when they are complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.audio.chain import Part, chained
from asr.audio.concatenated import HEAD_BYTES, STARTS, extent, find, goes_on, next_recording, search
from asr.audio.containers import Extent, box_end
from asr.audio.readers import open_file
from asr.audio.resample import decode, decode_blocks
from asr.audio.tracks import Source, open_tracks
from asr.errors import AudioIncomplete, AudioTooLong, UnsupportedAudio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from asr.audio.decoding import Decoding, RatedBlocks
    from asr.audio.tracks import Choice
    from asr.config import AudioLimits

MIN_POLL: Final = 0.02
MAX_POLL: Final = 0.25
"""Seconds between two checks for new bytes. A file that does not grow costs 0.25% of a core."""

PROBE_BYTES: Final = 5_000_000
"""FFmpeg's default for detecting the format. It mostly stops after a few kilobytes."""
WAV_PROBE_BYTES: Final = 65_536
"""FFmpeg reads this much of any wav before it decodes, because not every wav holds PCM. 5 MB would
be minutes of speech."""

_STREAMABLE: Final = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3")
"""First bytes of wav (RIFF, RF64), flac, ogg and opus, mp3 and aac with ID3, matroska and webm."""
_ENDED: Final = "the upload ended before the recording had arrived"
_BOX: Final = struct.Struct(">I4s")


@dataclass(frozen=True, slots=True)
class GrowingFile:
    """The two files of a recording that is still arriving."""

    path: Path
    info: Path

    def begin(self) -> None:
        """Create both files, empty and of unknown length."""
        self.path.touch()
        self._write(None)

    def complete(self, length: int) -> None:
        """State that all `length` bytes are written."""
        self._write(length)

    def abandon(self) -> None:
        """State that no more bytes will arrive."""
        self.info.unlink(missing_ok=True)

    def length(self) -> int | None:
        """Return the final number of bytes, or None while it is unknown.

        Raises:
            AudioIncomplete: the recording was abandoned.
        """
        try:
            length: int | None = json.loads(self.info.read_bytes())["length"]
            self.path.stat()  # raises if it is gone: an expired upload leaves only its JSON
        except FileNotFoundError:
            raise AudioIncomplete(_ENDED) from None
        return length

    def _write(self, length: int | None) -> None:
        draft = self.info.with_suffix(".draft")
        draft.write_text(json.dumps({"length": length}), encoding="ascii")
        draft.rename(self.info)  # atomic, so that no reader sees half a file


class _Reader:
    """Reads a growing file, and waits at its end.

    Args:
        source: the file.
        max_bytes: largest size of the file.
        on_wait: called before each wait for more bytes.
    """

    def __init__(self, source: GrowingFile, max_bytes: int, on_wait: Callable[[], None]) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._on_wait = on_wait
        self._file = source.path.open("rb", buffering=0)
        self._length: int | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start: int, n_bytes: int) -> bytes:
        """Return up to `n_bytes` from any position, at least one unless the recording has ended.

        Raises:
            AudioIncomplete: the recording was abandoned.
            AudioTooLong: the file is larger than allowed.
        """
        self._wait_for(start + 1)
        return os.pread(self._file.fileno(), n_bytes, start)

    def peek(self, start: int, n_bytes: int) -> bytes:
        """Return bytes from any position; fewer than `n_bytes` only at the end of the recording."""
        self._wait_for(start + n_bytes)
        return os.pread(self._file.fileno(), n_bytes, start)

    def wait_complete(self) -> int:
        """Wait for the last byte; return the number of bytes."""
        self._wait_for(None)
        return os.fstat(self._file.fileno()).st_size

    def _wait_for(self, n_bytes: int | None) -> None:
        """Wait for `n_bytes` bytes or for the end of the recording; None waits for the end."""
        delay = MIN_POLL
        while not self._has_arrived(n_bytes):
            self._on_wait()
            time.sleep(delay)
            delay = min(2 * delay, MAX_POLL)

    def _has_arrived(self, n_bytes: int | None) -> bool:
        size = os.fstat(self._file.fileno()).st_size
        if size > self._max_bytes:
            raise AudioTooLong(f"the file has {size} bytes; {self._max_bytes} are allowed")
        if size == self._length or (n_bytes is not None and size >= n_bytes):
            return True
        self._length = self._source.length()
        return size == self._length


class _Portion:
    """One recording of a growing file. It has no seek(), so FFmpeg does not seek.

    Its end is found while it is read. Several readers may read the same portion, each its own
    track.

    Args:
        reader: reads the file.
        start: where the recording begins.
    """

    def __init__(self, reader: _Reader, start: int) -> None:
        self.start = start
        self.end: int | None = None
        self._reader = reader
        self._extent = extent(reader.peek, start, complete=False)

    def read(self, at: int, n_bytes: int) -> bytes:
        """Return up to `n_bytes` from a position; none at the end of the recording."""
        if self.end is None and at == self._extent.end:
            self._settle(at)
        limit = self.end if self.end is not None else self._extent.end
        n_bytes = n_bytes if limit is None else min(n_bytes, limit - at)
        if n_bytes <= 0:
            return b""
        data = self._reader.read(at, n_bytes)
        return data if self._extent.needle is None else self._before_next(at, data)

    def _settle(self, at: int) -> None:
        """Decide at the end that the header states whether the recording really ends there."""
        is_box = self._reader.peek(self.start + 4, 4) == b"ftyp"
        if is_box and self._reader.peek(at + 4, 4) != b"ftyp":
            self._extent = Extent(box_end(self._reader.peek, at))
            self.end = at if self._extent.end is None else None
        elif not is_box and goes_on(self._reader.peek, at):
            self._extent = Extent()
        else:
            self.end = at

    def _before_next(self, at: int, data: bytes) -> bytes:
        """Return the bytes before the next recording, if it begins among them.

        If only its first bytes have arrived yet, wait for more.
        """
        needle = self._extent.needle or b""
        first = max(0, self._extent.search_from - at)
        tail = max(first, len(data) - HEAD_BYTES)
        may_begin = (
            (data.find(needle[:1], tail) >= 0) if needle else bool(STARTS & set(data[tail:]))
        )
        seen = self._reader.peek(at, len(data) + HEAD_BYTES) if may_begin else data
        found = find(seen, needle, first)
        if found is None or found >= len(data):
            return data
        self.end = at + found
        return data[:found]

    def following(self, last: int) -> tuple[int | None, int]:
        """Return where the next recording begins, and how many bytes before it were not decoded.

        Args:
            last: offset of the last packet that was decoded, from the beginning of this recording.
        """
        size = self._reader.wait_complete()
        if self.end is None:
            return search(self._reader.peek, b"", self.start + last + 1, size), 0
        following, tags_end = next_recording(self._reader.peek, self.start, self.end, size)
        return following, max((size if following is None else following) - tags_end, 0)

    def promised_share(self) -> float:
        """Return the bytes that the header states, divided by those in the file; at least 1."""
        end = self._extent.end
        n_there = self._reader.wait_complete() - self.start
        if end is None or self.end is not None or self._reader.peek(self.start + 4, 4) == b"ftyp":
            return 1.0
        return max((end - self.start) / n_there, 1.0)


class _Track:
    """What FFmpeg reads: a portion from its beginning to its end."""

    def __init__(self, portion: _Portion) -> None:
        self._portion = portion
        self._at = portion.start
        self._has_failed = False

    def read(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes`, at least one unless the recording has ended."""
        if self._has_failed:
            return b""  # FFmpeg reads again before PyAV raises our error
        self._has_failed = True
        data = self._portion.read(self._at, n_bytes)
        self._has_failed = False
        self._at += len(data)
        return data


def decode_growing(
    source: GrowingFile,
    limits: AudioLimits,
    on_wait: Callable[[], None],
    *,
    split: bool = False,
    track: int | None = None,
) -> Decoding:
    """Open a recording that is still arriving. Block until enough bytes are there to open it.

    Args:
        source: the recording.
        limits: limits of size and duration.
        on_wait: called before each wait for more bytes.
        split: as for `asr.audio.resample.decode`.
        track: as for `asr.audio.resample.decode`.

    Raises:
        AudioIncomplete: the upload was abandoned (also while iterating).
        AudioError: as `asr.audio.resample.decode`.
    """
    reader = _Reader(source, limits.max_bytes, on_wait)
    try:
        decoding = _open(source, limits, reader, split=split, track=track)
    except BaseException:
        reader.close()
        raise
    decoding.blocks = _closing(decoding.blocks, reader)
    return decoding


def _open(
    source: GrowingFile, limits: AudioLimits, reader: _Reader, *, split: bool, track: int | None
) -> Decoding:
    if _can_stream(reader, 0):

        def open_it(decoding: Decoding, choice: Choice) -> RatedBlocks:
            return chained(lambda at: _open_part(source, reader, at, decoding, choice), 0, decoding)

        try:
            return decode_blocks(open_it, limits, split=split, track=track)
        except UnsupportedAudio:
            pass  # not a stream after all: try again with the complete file
    reader.wait_complete()
    try:
        return decode(source.path, limits, split=split, track=track)
    except FileNotFoundError:
        raise AudioIncomplete(_ENDED) from None


def _open_part(
    source: GrowingFile, reader: _Reader, start: int, decoding: Decoding, choice: Choice
) -> Part:
    """Open the recording that begins at `start`. If it cannot be streamed, wait for all bytes."""
    if start and not _can_stream(reader, start):
        reader.wait_complete()
        return Part(open_file(source.path, decoding, choice, start))
    is_wav = reader.peek(start, 4) in (b"RIFF", b"RF64")
    options = {"probesize": str(WAV_PROBE_BYTES if is_wav else PROBE_BYTES)}
    portion = _Portion(reader, start)
    tracks = Source(lambda: _Track(portion), "", options)
    part = Part(open_tracks(tracks, decoding, choice))

    def find_next(last: int, is_damaged: bool) -> None:
        part.following, part.n_left = portion.following(last)
        part.n_bytes = (portion.end or start) - start
        part.promised_share = portion.promised_share()
        if is_damaged and part.following is not None:
            part.n_left = part.following - start - last

    part.find_next = find_next
    return part


def _closing(blocks: Iterator[np.ndarray], reader: _Reader) -> Iterator[np.ndarray]:
    with contextlib.closing(reader):
        yield from blocks


def _can_stream(reader: _Reader, start: int) -> bool:
    head = reader.peek(start, 16)
    if head.startswith(_STREAMABLE):
        return head[8:12] != b"AVI "  # its end depends on chunks that have not arrived
    if head[4:8] == b"ftyp":
        return _has_index_first(reader, start)
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0"  # first bits of an mp3 or aac frame


def _has_index_first(reader: _Reader, start: int) -> bool:
    """Return whether the index of an MP4 (moov) comes before its samples (mdat)."""
    position = start
    while len(header := reader.peek(position, 16)) >= _BOX.size:
        size, kind = _BOX.unpack_from(header)
        if kind in (b"moov", b"mdat"):
            return bool(kind == b"moov")
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        if size < _BOX.size:
            break
        position += size
    return False
