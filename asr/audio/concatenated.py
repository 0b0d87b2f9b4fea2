"""Detect files with several recordings (``cat a.mp3 b.mp3``), and mp3s of unknown length.

Players play all recordings in such a file. libsndfile decodes the first one and stops. The headers
show whether there are more: the Xing or Info tag of an mp3 gives the number of frames and bytes of
its recording, and each Ogg page says whether a stream begins there.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

_FRAME_BYTES: Final = 1_500
"""The tag is in the first frame, which has at most 1,441 bytes."""
_HAS_FRAMES, _HAS_BYTES = 1, 2
_ID3_HEADER_BYTES: Final = 10
_ID3V1_BYTES: Final = 128
_APE_HEADER_BYTES: Final = 32
_MAX_TAGS: Final = 4
"""No recording is followed by more tags than this."""
_OGG_HEADER_BYTES: Final = 27
_OGG_BEGINS: Final = 2


def is_concatenated(path: Path) -> bool:
    """Return whether a second recording follows the one that the first header describes."""
    with path.open("rb") as file:
        head = file.read(_ID3_HEADER_BYTES)
        if head.startswith(b"OggS"):
            return _begins_again(file)
        start = _id3_bytes(head)
        _, n_bytes = _promise(file, start)
        if n_bytes is None:
            return False
        behind = _behind_tags(file, start + n_bytes)
    return behind.startswith(b"ID3") or _is_frame(behind)


def is_counted(path: Path) -> bool:
    """Return whether an mp3 states its number of frames. One made in a pipe does not."""
    with path.open("rb") as file:
        n_frames, _ = _promise(file, _id3_bytes(file.read(_ID3_HEADER_BYTES)))
    return bool(n_frames)  # an encoder that was interrupted leaves 0


def _begins_again(file: BinaryIO) -> bool:
    """Return whether an Ogg stream begins after pages of another one. Reads page headers only."""
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
    """Return the length of an ID3 tag; each byte of the size field holds seven bits."""
    if not head.startswith(b"ID3"):
        return 0
    length = 0
    for byte in head[6:_ID3_HEADER_BYTES]:
        length = length << 7 | byte & 0x7F
    return _ID3_HEADER_BYTES + length


def _promise(file: BinaryIO, start: int) -> tuple[int | None, int | None]:
    """Return the numbers of frames and bytes in the first frame's tag, None for a missing one."""
    file.seek(start)
    frame = file.read(_FRAME_BYTES)
    for name in (b"Xing", b"Info") if _is_frame(frame) else ():
        place = frame.find(name)
        if place > 0:
            flags = int.from_bytes(frame[place + 4 : place + 8])
            at = place + 8
            n_frames = _number(frame, at) if flags & _HAS_FRAMES else None
            at += 4 if flags & _HAS_FRAMES else 0
            return n_frames, _number(frame, at) if flags & _HAS_BYTES else None
    return None, None


def _number(data: bytes, at: int) -> int | None:
    return int.from_bytes(data[at : at + 4]) if len(data) >= at + 4 else None


def _behind_tags(file: BinaryIO, at: int) -> bytes:
    """Return the bytes after the tags (ID3v1, APEv2) at the end of a recording."""
    head = b""
    for _ in range(_MAX_TAGS):
        file.seek(at)
        head = file.read(_APE_HEADER_BYTES)
        if head.startswith(b"TAG"):
            at += _ID3V1_BYTES
        elif head.startswith(b"APETAGEX"):
            at += _APE_HEADER_BYTES + int.from_bytes(head[12:16], "little")
        else:
            break
    return head


def _is_frame(data: bytes) -> bool:
    """Return whether an mp3 frame begins here: its first eleven bits are set."""
    return data[:1] == b"\xff" and data[1:2] >= b"\xe0"
