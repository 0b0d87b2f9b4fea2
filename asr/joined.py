"""Recordings that were joined end to end, as by ``cat a.mp3 b.mp3``.

Players play all of them; libsndfile decodes the first and stops. The headers tell: an mp3's says
how many bytes it speaks for (the Xing or Info tag), and Ogg's pages say where a stream begins.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

_FRAME_BYTES: Final = 1_500
"""The tag is in the first frame, of at most 1,441 bytes."""
_HAS_FRAMES, _HAS_BYTES = 1, 2
_ID3_HEADER_BYTES: Final = 10
_OGG_HEADER_BYTES: Final = 27
_OGG_BEGINS: Final = 2


def is_joined(path: Path) -> bool:
    """Whether a file holds more recordings than the one that its beginning speaks of."""
    with path.open("rb") as file:
        head = file.read(_ID3_HEADER_BYTES)
        if head.startswith(b"OggS"):
            return _begins_again(file)
        start = _id3_bytes(head)
        n_bytes = _mp3_bytes(file, start)
        if n_bytes is None:
            return False
        file.seek(start + n_bytes)
        behind = file.read(3)
    return behind == b"ID3" or _is_frame(behind)


def _begins_again(file: BinaryIO) -> bool:
    """Whether a stream of an Ogg file begins behind pages that go on. Reads the pages' headers."""
    file.seek(0)
    goes_on = False
    while len(header := file.read(_OGG_HEADER_BYTES)) == _OGG_HEADER_BYTES:
        if not header.startswith(b"OggS"):
            break
        begins = header[5] & _OGG_BEGINS
        if begins and goes_on:
            return True
        goes_on = not begins
        file.seek(sum(file.read(header[-1])), io.SEEK_CUR)
    return False


def _id3_bytes(head: bytes) -> int:
    """The length of the tag before the audio; seven bits of it are in each byte."""
    if not head.startswith(b"ID3"):
        return 0
    length = 0
    for byte in head[6:_ID3_HEADER_BYTES]:
        length = length << 7 | byte & 0x7F
    return _ID3_HEADER_BYTES + length


def _mp3_bytes(file: BinaryIO, start: int) -> int | None:
    """How many bytes the first frame promises, or None if it does not."""
    file.seek(start)
    frame = file.read(_FRAME_BYTES)
    for name in (b"Xing", b"Info") if _is_frame(frame) else ():
        place = frame.find(name)
        if place > 0:
            flags = int.from_bytes(frame[place + 4 : place + 8])
            at = place + 8 + (4 if flags & _HAS_FRAMES else 0)
            is_told = flags & _HAS_BYTES and len(frame) >= at + 4
            return int.from_bytes(frame[at : at + 4]) if is_told else None
    return None


def _is_frame(data: bytes) -> bool:
    """Whether an mp3's frame begins there: with eleven bits that are set."""
    return data[:1] == b"\xff" and data[1:2] >= b"\xe0"
