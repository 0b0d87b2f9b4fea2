"""A recording that is decoded while it arrives.

Whoever receives it writes two files: the bytes as they come, and a small JSON with their number,
``{"length": null}`` until that is known. The recording is complete when it is as long as it says.
When one of them is gone, the rest will never come.

Most formats can be decoded from front to back. Of those that cannot, such as an MP4 with its index
at the end, decoding begins when they are complete, and so it does for everything unknown.
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
"""Seconds between two looks: a quarter of a percent of a core for a file that stands still."""

PROBE_BYTES: Final = 5_000_000
"""FFmpeg's own limit. It stops as soon as it knows, which takes it a few kilobytes."""
WAV_PROBE_BYTES: Final = 65_536
"""In a wav it reads on, in case there is no PCM in it: 5 MB would be minutes of speech."""

_STREAMABLE: Final = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3")
"""How wav, flac, ogg (opus too), a tag before mp3 or aac, and matroska (webm too) begin."""
_ENDED: Final = "the upload ended before the recording had arrived"
_BOX: Final = struct.Struct(">I4s")


@dataclass(frozen=True, slots=True)
class GrowingFile:
    """The two files of a recording that arrives."""

    path: Path
    info: Path

    def begin(self) -> None:
        """Make both; nothing has arrived."""
        self.path.touch()
        self._write(None)

    def complete(self, length: int) -> None:
        """Say that all bytes are written."""
        self._write(length)

    def abandon(self) -> None:
        """Say that no more will come."""
        self.info.unlink(missing_ok=True)

    def length(self) -> int | None:
        """Bytes in all, or None while it is not known.

        Raises:
            AudioIncomplete: the recording was abandoned.
        """
        try:
            length: int | None = json.loads(self.info.read_bytes())["length"]
            self.path.stat()  # an upload that expires leaves its JSON
        except FileNotFoundError:
            raise AudioIncomplete(_ENDED) from None
        return length

    def _write(self, length: int | None) -> None:
        draft = self.info.with_suffix(".draft")
        draft.write_text(json.dumps({"length": length}), encoding="ascii")
        draft.rename(self.info)  # in one step: who reads it meanwhile never sees half


class _Reader:
    """Reads a growing file, and waits at its end. Cannot seek, so nobody tries.

    Args:
        source: the file.
        max_bytes: of it.
        on_wait: called before each time that nothing is there to be read.
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
        """Read no more."""
        self._file.close()

    def read(self, n_bytes: int, /) -> bytes:
        """What is there, at least one byte of it unless the recording is complete.

        Raises:
            AudioIncomplete: the recording was abandoned.
            AudioTooLong: it is larger than allowed.
        """
        if self._has_failed:
            return b""  # FFmpeg asks again before PyAV can raise what this raised
        self._has_failed = True
        self._wait_for(self._n_read + 1)
        self._has_failed = False
        data = self._file.read(n_bytes)
        self._n_read += len(data)
        return data

    def peek(self, start: int, n_bytes: int) -> bytes:
        """Bytes from anywhere, fewer only at the end of the complete recording."""
        self._wait_for(start + n_bytes)
        return os.pread(self._file.fileno(), n_bytes, start)

    def wait_complete(self) -> None:
        """Wait for the last byte."""
        self._wait_for(None)

    def _wait_for(self, n_bytes: int | None) -> None:
        """Wait until so many bytes are there, or all."""
        delay = MIN_POLL
        while not self._is_there(n_bytes):
            self._on_wait()
            time.sleep(delay)
            delay = min(2 * delay, MAX_POLL)

    def _is_there(self, n_bytes: int | None) -> bool:
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
    """Open a recording that arrives; wait for as much of it as that takes.

    Args:
        source: the recording.
        limits: of what it may cost.
        on_wait: called before each pause in which bytes are waited for.
        split: keep the channels apart instead of mixing them.

    Raises:
        AudioIncomplete: also while iterating, the rest will never come.
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
            pass  # only looked like it; the whole file will tell
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
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0"  # a frame of mp3 or aac


def _has_index_first(reader: _Reader) -> bool:
    """Whether an MP4 says where its samples are before they come."""
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
