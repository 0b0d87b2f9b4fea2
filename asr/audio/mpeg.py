"""Headers of MPEG audio: mp3 frames, their Xing or Info tag, ADTS frames of aac, and ID3 tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asr.audio.containers import Peek

MAX_FRAME_BYTES: Final = 1_500
"""The tag is in the first frame, which has at most 1,441 bytes."""
_HAS_FRAMES, _HAS_BYTES = 1, 2
_ID3_HEADER_BYTES: Final = 10
_READ_BYTES: Final = 1 << 20
_TOLERANCE: Final = 0.01
"""A file may have this share of frames more than its header says: encoders count differently."""

# kbit/s by layer (1 to 3) and index: of MPEG 1, and of MPEG 2 and 2.5.
_BITRATES: Final = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = {
    0: (11_025, 12_000, 8_000),
    2: (22_050, 24_000, 16_000),
    3: (44_100, 48_000, 32_000),
}


def _lengths() -> dict[int, int]:
    """Return the length of an mp3 frame without padding, by the second and third header byte."""
    lengths = {}
    for second in range(0xE0, 0x100):
        version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
        for third in range(0x100):
            index, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
            if version == 1 or layer == 4 or not 0 < index < 15 or rate == 3:
                continue
            bits = _BITRATES[version == 3, layer][index] * 1000
            hertz = _RATES[version][rate]
            if layer == 1:
                length = (12 * bits // hertz + padding) * 4
            else:
                per_frame = 72 if layer == 3 and version != 3 else 144
                length = per_frame * bits // hertz + padding
            lengths[second << 8 | third] = length
    return lengths


_LENGTHS: Final = _lengths()


def frame_bytes(header: bytes) -> int:
    """Return the length of the mp3 or ADTS frame that begins with these 7 bytes, or 0."""
    if len(header) < 4 or header[0] != 0xFF:
        return 0
    if header[1] & 0xF6 == 0xF0 and len(header) >= 6:  # ADTS
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return length if length > 7 and header[2] >> 2 & 15 < 13 else 0
    return _LENGTHS.get(header[1] << 8 | header[2], 0)


def id3_bytes(head: bytes) -> int:
    """Return the length of an ID3 tag; each byte of the size field holds seven bits."""
    if not head.startswith(b"ID3"):
        return 0
    length = 0
    for byte in head[6:_ID3_HEADER_BYTES]:
        length = length << 7 | byte & 0x7F
    return _ID3_HEADER_BYTES + length


def promise(peek: Peek, start: int) -> tuple[int | None, int | None]:
    """Return the numbers of frames and bytes in the first frame's tag, None for a missing one."""
    frame = peek(start, MAX_FRAME_BYTES)
    for name in (b"Xing", b"Info") if _is_sync(frame) else ():
        place = frame.find(name)
        if place > 0:
            flags = int.from_bytes(frame[place + 4 : place + 8])
            at = place + 8
            n_frames = _number(frame, at) if flags & _HAS_FRAMES else None
            at += 4 if flags & _HAS_FRAMES else 0
            return n_frames, _number(frame, at) if flags & _HAS_BYTES else None
    return None, None


def is_counted(peek: Peek, start: int, end: int) -> bool:
    """Return whether an mp3 states its number of frames, and has not many more.

    One that was made in a pipe does not, and an encoder that was interrupted leaves 0.
    """
    first = start + id3_bytes(peek(start, _ID3_HEADER_BYTES))
    n_frames, _ = promise(peek, first)
    return bool(n_frames) and _count(peek, first, end) <= (n_frames or 0) * (1 + _TOLERANCE) + 2


def _count(peek: Peek, start: int, end: int) -> int:
    """Return the number of frames of an mp3, up to the first byte that begins no frame."""
    lengths, n_frames, at = _LENGTHS, 0, start
    while at < end:
        data = peek(at, min(_READ_BYTES, end - at))
        place, last = 0, len(data) - 3
        while place < last and data[place] == 0xFF:
            length = lengths.get(data[place + 1] << 8 | data[place + 2], 0)
            if not length:
                break
            place += length
            n_frames += 1
        at += place
        if place < last:
            break
        if not place:
            break
    return n_frames


def _number(data: bytes, at: int) -> int | None:
    return int.from_bytes(data[at : at + 4]) if len(data) >= at + 4 else None


def _is_sync(data: bytes) -> bool:
    """Return whether an mp3 frame begins here: its first eleven bits are set."""
    return data[:1] == b"\xff" and data[1:2] >= b"\xe0"
