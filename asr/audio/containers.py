"""Where a recording ends in its file, according to the structure of its container.

Programs concatenate recordings (``cat a.wav b.wav``). Decoders read the first one and stop, so
`asr.audio.concatenated` opens one after the other. It learns here how far the first one goes:

- wav, aiff, au, caf, w64, avi, mp4, matroska and asf state their size, unless they were written to
  a pipe.
- A recording of unknown size goes on until another one of its kind begins.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

Peek = Callable[[int, int], bytes]
"""Returns bytes of a file, given their position and number; fewer only at the end of the file."""

# Key: the first bytes of the file. Value: format of a chunk header, offset of the first chunk,
# header bytes that a chunk's size includes, and the alignment of chunks.
CHUNKS: Final = {
    b"RIFF": ("<4sI", 12, 0, 2),
    b"RIFX": (">4sI", 12, 0, 2),
    b"RF64": ("<4sI", 12, 0, 2),
    b"FORM": (">4sI", 12, 0, 2),
    b"riff": ("<16sQ", 40, 24, 8),  # w64
    b"caff": (">4sQ", 8, 0, 1),
}
_LONG: Final = (b"RF64", b"riff", b"caff")
_MAX_CHUNKS: Final = 1_000
_NO_SIZE: Final = 0x7EFF_0000
"""Sizes from here on mean "unknown". Programs that write to a pipe leave them: sox 0x7FFFF000 and
(aiff) 0x7F000000, others all bits set."""
_NO_LONG_SIZE: Final = 2**62
_MAX_BOXES: Final = 100_000
"""A fragmented mp4 has two boxes for each fragment."""
_EBML: Final = b"\x1a\x45\xdf\xa3"
_ASF: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid")
_OGG_HEADER_BYTES: Final = 27
_OGG_BEGINS: Final = 2


class Samples(NamedTuple):
    """The place of the samples of a wav, rf64, w64, aiff, au or caf.

    Attributes:
        start: offset in the file.
        size: number of bytes according to the header, or None if unknown.
    """

    start: int
    size: int | None


class Extent(NamedTuple):
    """How far a recording goes.

    Attributes:
        end: offset of the first byte after the samples. Tags and metadata may follow.
        needle: if `end` is None: the first bytes of another recording of the same kind, which would
            end this one; empty for a recording of any kind. None if the decoder itself continues
            with the next recording.
        search_from: where to begin to look for `needle`.
    """

    end: int | None = None
    needle: bytes | None = None
    search_from: int = 0


def samples_of(peek: Peek, start: int = 0) -> Samples | None:
    """Return the place of the samples, or None for another format."""
    magic = peek(start, 4)
    if magic == b".snd":
        offset, size = struct.unpack(">II", peek(start + 4, 8).ljust(8, b"\0"))
        return Samples(start + offset, size if size < _NO_SIZE else None)
    if magic not in CHUNKS:
        return None
    form, first, own_bytes, align = CHUNKS[magic]
    at, long_size = start + first, None
    for _ in range(_MAX_CHUNKS):
        header = peek(at, struct.calcsize(form))
        if len(header) < struct.calcsize(form):
            break
        name, size = struct.unpack(form, header)
        size -= own_bytes
        at += len(header)
        if name[:4] == b"ds64":  # only in rf64, for sizes over 32 bits
            long_size = int.from_bytes(peek(at + 8, 8), "little")
        if name[:4] in (b"data", b"SSND"):
            size = size if long_size is None else long_size
            limit = _NO_LONG_SIZE if magic in _LONG else _NO_SIZE
            return Samples(at, size if size < limit else None)
        if not 0 <= size < _NO_LONG_SIZE:
            break
        at += size + -size % align
    return None


def extent_of(peek: Peek, start: int, *, complete: bool) -> Extent:
    """Return how far the recording that begins at `start` goes.

    Args:
        peek: reads the file.
        start: where the recording begins.
        complete: the whole file is there. Otherwise only its beginning is read, because a read
            further ahead would wait for it.
    """
    head = peek(start, 16)
    is_avi = head.startswith(b"RIFF") and head[8:12] == b"AVI "
    if (head[:4] in CHUNKS and not is_avi) or head.startswith(b".snd"):
        return _of_samples(peek, start)
    if head[4:8] in _BOXES:
        return _of_boxes(peek, start) if complete else Extent(box_end(peek, start))
    if head.startswith((b"OggS", _EBML)):
        is_ogg = head.startswith(b"OggS")
        return _of_ogg(peek, start, complete=complete) if is_ogg else _of_matroska(peek, start)
    if is_avi or head == _ASF:
        end = _avi_end if is_avi else _asf_end
        return Extent(end(peek, start) if complete else None)
    return _of_frames(head, start)


def _of_frames(head: bytes, start: int) -> Extent:
    """Return the extent of a format without a structure."""
    if head.startswith(b"#!AMR"):
        return Extent(None, b"", start + 4)
    needle = next((name for name in (b"fLaC", b"FLV\x01") if head.startswith(name)), None)
    return Extent(None, needle, start + 4) if needle else Extent()


def skip_chunks(peek: Peek, magic: bytes, at: int, size: int) -> int:
    """Return where the chunks of metadata end that begin at `at`.

    Args:
        peek: reads the file.
        magic: the first bytes of the recording.
        at: the end of its samples.
        size: the size of the file.
    """
    if magic not in CHUNKS:
        return at
    form, _, own_bytes, align = CHUNKS[magic]
    at += -at % 2 if align == 2 and not _is_chunk_name(peek(at, 4)) else 0
    for _ in range(_MAX_CHUNKS):
        header = peek(at, struct.calcsize(form))
        if len(header) < struct.calcsize(form) or header[:4] in CHUNKS:
            break
        name, n_bytes = struct.unpack(form, header)
        n_bytes -= own_bytes
        end = at + len(header) + n_bytes + -n_bytes % align
        if not _is_chunk_name(name[:4]) or n_bytes < 0 or end > size + 1:
            break
        at = end
    return at


def _is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _of_samples(peek: Peek, start: int) -> Extent:
    samples = samples_of(peek, start)
    if samples is None:
        return Extent()
    if samples.size is None or samples.size <= 0:
        magic = peek(start, 8 if peek(start, 4) == b"caff" else 4)
        return Extent(None, magic, samples.start)
    return Extent(samples.start + samples.size)


def _avi_end(peek: Peek, start: int) -> int | None:
    """A long avi goes on in further RIFF chunks."""
    at = start
    while True:
        magic, size, kind = struct.unpack("<4sI4s", peek(at, 12).ljust(12, b"\0"))
        if magic != b"RIFF" or (at > start and kind != b"AVIX"):
            return at
        if not 0 < size < _NO_SIZE:
            return None
        at += 8 + size + size % 2


def box_end(peek: Peek, at: int) -> int | None:
    """Return the end of a box of an mp4, or None if no box begins here."""
    header = peek(at, 16)
    size, kind = int.from_bytes(header[:4]), header[4:8]
    if not _is_chunk_name(kind.replace(b"\xa9", b"c")):
        return None
    size = int.from_bytes(header[8:16]) if size == 1 else size
    return at + size if size >= 8 else None


def _of_boxes(peek: Peek, start: int) -> Extent:
    """Walk the boxes of an mp4. A second ``ftyp`` begins another one."""
    at, seen = start, set[bytes]()
    for _ in range(_MAX_BOXES):
        kind, end = peek(at, 8)[4:8], box_end(peek, at)
        if end is None or (kind == b"ftyp" and seen):
            break
        seen.add(kind)
        at = end
    return Extent(at) if seen & {b"moov", b"mdat"} else Extent()


def _of_matroska(peek: Peek, start: int) -> Extent:
    at = start
    for name in (_EBML, b"\x18\x53\x80\x67"):  # the header, the segment
        if peek(at, 4) != name:
            return Extent()
        first = int.from_bytes(peek(at + 4, 1))
        n_bytes = 9 - first.bit_length()
        value = int.from_bytes(peek(at + 4, n_bytes)) & ((1 << 7 * n_bytes) - 1)
        at += 4 + n_bytes
        if value == (1 << 7 * n_bytes) - 1:  # written to a pipe
            return Extent(None, _EBML, at)
        at += value
    return Extent(at)


def _asf_end(peek: Peek, start: int) -> int | None:
    at = start
    for _ in range(_MAX_CHUNKS):
        header = peek(at, 24)
        size = int.from_bytes(header[16:24], "little")
        if len(header) < 24 or (at > start and header[:16] == _ASF):
            break
        if not 24 <= size < _NO_LONG_SIZE:
            return None if at == start or size == 0 else at
        at += size
    return at


def _of_ogg(peek: Peek, start: int, *, complete: bool) -> Extent:
    """An Ogg file begins with a page for each of its streams. Later such pages are another file."""
    at, goes_on = start, False
    while True:
        header = peek(at, _OGG_HEADER_BYTES)
        if len(header) < _OGG_HEADER_BYTES or not header.startswith(b"OggS"):
            return Extent(at)
        begins = header[5] & _OGG_BEGINS
        if begins and goes_on:
            return Extent(at)
        if not begins and not complete:
            return Extent(None, b"OggS\0\x02", at)
        goes_on = goes_on or not begins
        at += _OGG_HEADER_BYTES + header[26] + sum(peek(at + _OGG_HEADER_BYTES, header[26]))


def has_more_streams(peek: Peek, start: int) -> bool:
    """Return whether an Ogg file begins with the pages of several streams, such as two tracks."""
    header = peek(start, _OGG_HEADER_BYTES)
    if len(header) < _OGG_HEADER_BYTES or not header.startswith(b"OggS"):
        return False
    n_bytes = header[26] + sum(peek(start + _OGG_HEADER_BYTES, header[26]))
    second = peek(start + _OGG_HEADER_BYTES + n_bytes, 6)
    return second.startswith(b"OggS") and len(second) > 5 and bool(second[5] & _OGG_BEGINS)
