"""Find the recordings that were concatenated in one file (``cat a.wav b.wav``).

Players play all of them, but a decoder reads the first one and stops. `asr.audio.containers` tells
how far a recording goes. This module looks at the bytes after it: tags, or another recording?
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from asr.audio.containers import Extent, extent_of, skip_chunks
from asr.audio.mpeg import MAX_FRAME_BYTES, frame_bytes, id3_bytes, promise

if TYPE_CHECKING:
    from asr.audio.containers import Peek

HEAD_BYTES: Final = 64
"""Enough of a recording to recognise it."""
MAX_TRAILER_BYTES: Final = 16_384
"""More bytes than this after the audio are not a tag, but may be a recording."""
STARTS: Final = frozenset(b"RF.rcfO#I\x1a\x30\x00")
"""The first byte of any recording that `find` finds."""
_SEARCH_BYTES: Final = 1 << 20
_ID3V1_BYTES: Final = 128
_APE_HEADER_BYTES: Final = 32
_MAX_TAGS: Final = 4
"""No recording is followed by more tags than this."""

# The bytes at the beginning of a recording. They are long enough not to occur in audio by chance.
_BEGINS: Final = re.compile(
    rb"RIFF.{4}(?:WAVE|AVI )|RIFX.{4}WAVE|RF64.{4}WAVE|FORM.{4}AIF[FC]"
    rb"|\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1b]"
    rb"|riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb|caff\x00\x01\x00\x00desc"
    rb"|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02\x00{8}|#!AMR(?:-WB)?\n"
    rb"|\x1a\x45\xdf\xa3.{1,50}?(?:webm|matroska)|FLV\x01[\x01\x04\x05]\x00\x00\x00\x09"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa|\x00\x00..ftyp",
    re.DOTALL,
)
_TAG: Final = rb"ID3[\x02-\x04][\x00-\x0f][\x00\x10\x20\x40\x80\xc0][\x00-\x7f]{4}"
_BEGINS_OR_TAG: Final = re.compile(_BEGINS.pattern + b"|" + _TAG, re.DOTALL)


def extent(peek: Peek, start: int, *, complete: bool) -> Extent:
    """Return how far the recording at `start` goes; see `asr.audio.containers.extent_of`."""
    found = extent_of(peek, start, complete=complete)
    if found.end is not None and found.end <= start:
        return Extent()  # cut off in its header
    if found != Extent():
        return found
    first = start + id3_bytes(peek(start, 10))
    _, n_bytes = promise(peek, first)
    if n_bytes and complete and goes_on(peek, first + n_bytes):
        return Extent()
    return Extent(first + n_bytes) if n_bytes else Extent()


def goes_on(peek: Peek, end: int) -> bool:
    """Return whether an mp3 goes on after the end that its header states.

    The next recording has a tag or a header of its own, and one that goes on has neither. The end
    may be in the middle of a frame.
    """
    if _BEGINS_OR_TAG.match(peek(end, HEAD_BYTES)):
        return False
    data = peek(end, MAX_FRAME_BYTES)
    syncs = (end + at for at, byte in enumerate(data) if byte == 0xFF)
    at = next((at for at in syncs if _is_frame(peek, at)), None)
    return at is not None and promise(peek, at) == (None, None)


def begins_at(peek: Peek, at: int) -> bool:
    """Return whether a recording begins exactly here, after another one or after its tags."""
    head = peek(at, HEAD_BYTES)
    return bool(_BEGINS_OR_TAG.match(head)) or _is_frame(peek, at)


def next_recording(peek: Peek, start: int, end: int, size: int) -> tuple[int | None, int]:
    """Find the recording that follows another one.

    Args:
        peek: reads the file.
        start: where the earlier one begins.
        end: where its samples end.
        size: the size of the file.

    Returns:
        Where the next recording begins, or None; and where the tags of the earlier one end.
    """
    if begins_at(peek, end):
        return end, end
    at = _skip_tags(peek, skip_chunks(peek, peek(start, 4), end, size))
    at += _n_zeros(peek, at)
    if at >= size or begins_at(peek, at):
        return (at if at < size else None), at
    return search(peek, b"", at, size), at


def search(peek: Peek, needle: bytes, start: int, end: int) -> int | None:
    """Return where the first recording begins in [start, end).

    Args:
        peek: reads the file.
        needle: its first bytes; with none, a recording of any kind is found.
        start: where to begin.
        end: where to end.
    """
    for at in range(start, end, _SEARCH_BYTES):
        data = peek(at, min(_SEARCH_BYTES + HEAD_BYTES, end - at))
        found = find(data, needle)
        if found is not None:
            return at + found
    return None


def find(data: bytes, needle: bytes, start: int = 0) -> int | None:
    """Return where a recording begins in some bytes; see `search`."""
    if not needle:
        match = _BEGINS_OR_TAG.search(data, start)
        return match and match.start()
    place = data.find(needle, start)
    while place >= 0 and not _BEGINS.match(data, place):
        place = data.find(needle, place + 1)
    return place if place >= 0 else None


def _skip_tags(peek: Peek, at: int) -> int:
    """Return where the tags (ID3v1, APEv2) end that follow a recording."""
    for _ in range(_MAX_TAGS):
        head = peek(at, _APE_HEADER_BYTES)
        if head.startswith(b"TAG"):
            at += _ID3V1_BYTES
        elif head.startswith(b"APETAGEX"):
            at += _APE_HEADER_BYTES + int.from_bytes(head[12:16], "little")
        else:
            break
    return at


def _n_zeros(peek: Peek, at: int) -> int:
    """Return the number of zeros here; some recorders pad a file."""
    n_zeros = 0
    while data := peek(at + n_zeros, _SEARCH_BYTES):
        rest = len(data.lstrip(b"\0"))
        n_zeros += len(data) - rest
        if rest:
            break
    return n_zeros


def _is_frame(peek: Peek, at: int) -> bool:
    """Return whether two frames of an mp3 or aac begin here, one after the other."""
    length = frame_bytes(peek(at, 7))
    following = peek(at + length, 7) if length else b""
    return bool(length) and (not following or bool(frame_bytes(following)))
