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

from asr.audio.resample import decode, decode_stream
from asr.errors import AudioIncomplete, AudioTooLong, UnsupportedAudio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np

    from asr.audio.readers import Decoding
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
    """Reads a growing file, and waits at its end. It has no seek(), so FFmpeg does not seek.

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
        self._n_read = 0
        self._length: int | None = None
        self._has_failed = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes`, at least one unless the recording has ended.

        Raises:
            AudioIncomplete: the recording was abandoned.
            AudioTooLong: the file is larger than allowed.
        """
        if self._has_failed:
            return b""  # FFmpeg reads again before PyAV raises our error
        self._has_failed = True
        self._wait_for(self._n_read + 1)
        self._has_failed = False
        data = self._file.read(n_bytes)
        self._n_read += len(data)
        return data

    def peek(self, start: int, n_bytes: int) -> bytes:
        """Return bytes from any position; fewer than `n_bytes` only at the end of the recording."""
        self._wait_for(start + n_bytes)
        return os.pread(self._file.fileno(), n_bytes, start)

    def wait_complete(self) -> None:
        """Wait for the last byte."""
        self._wait_for(None)

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


def decode_growing(
    source: GrowingFile, limits: AudioLimits, on_wait: Callable[[], None], *, split: bool = False
) -> Decoding:
    """Open a recording that is still arriving. Block until enough bytes are there to open it.

    Args:
        source: the recording.
        limits: limits of size and duration.
        on_wait: called before each wait for more bytes.
        split: keep the channels separate instead of mixing them.

    Raises:
        AudioIncomplete: the upload was abandoned (also while iterating).
        AudioError: as `asr.audio.resample.decode`.
    """
    reader = _Reader(source, limits.max_bytes, on_wait)
    try:
        decoding = _open(source, limits, reader, split=split)
    except BaseException:
        reader.close()
        raise
    decoding.blocks = _closing(decoding.blocks, reader)
    return decoding


def _open(source: GrowingFile, limits: AudioLimits, reader: _Reader, *, split: bool) -> Decoding:
    head = reader.peek(0, 16)
    if _can_stream(head, reader):
        n_probe = WAV_PROBE_BYTES if head[:4] in (b"RIFF", b"RF64") else PROBE_BYTES
        try:
            return decode_stream(reader, limits, n_probe, split=split)
        except UnsupportedAudio:
            pass  # not a stream after all: try again with the complete file
    reader.wait_complete()
    try:
        return decode(source.path, limits, split=split)
    except FileNotFoundError:
        raise AudioIncomplete(_ENDED) from None


def _closing(blocks: Iterator[np.ndarray], reader: _Reader) -> Iterator[np.ndarray]:
    with contextlib.closing(reader):
        yield from blocks


def _can_stream(head: bytes, reader: _Reader) -> bool:
    if head.startswith(_STREAMABLE):
        return True
    if head[4:8] == b"ftyp":
        return _has_index_first(reader)
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0"  # first bits of an mp3 or aac frame


def _has_index_first(reader: _Reader) -> bool:
    """Return whether the index of an MP4 (moov) comes before its samples (mdat)."""
    position = 0
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
