"""Decode the recordings of a file one after the other, and warn of bytes that nothing decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asr.audio.concatenated import MAX_TRAILER_BYTES
from asr.errors import DamagedAudio, EmptyAudio, UnsupportedAudio

if TYPE_CHECKING:
    from collections.abc import Callable

    from asr.audio.decoding import Decoding, RatedBlocks


@dataclass(slots=True)
class Part:
    """One recording of a file. All but `blocks` may be set as late as at the end of the blocks.

    Attributes:
        blocks: its samples.
        following: where the next recording begins, or None.
        find_next: sets `following`, given the position of the last packet that was decoded and
            whether the next packets are damaged. None if `following` is final.
        n_bytes: its size.
        n_left: bytes after it that belong to no recording.
        promised_share: bytes that its header states, divided by those in the file; at least 1.
    """

    blocks: RatedBlocks = field(default_factory=lambda: iter(()))
    following: int | None = None
    n_bytes: int = 0
    n_left: int = 0
    find_next: Callable[[int, bool], None] | None = None
    promised_share: float = 1.0


def chained(open_part: Callable[[int], Part], start: int, decoding: Decoding) -> RatedBlocks:
    """Return the blocks of all recordings. The first one is opened at once.

    Args:
        open_part: opens the recording that begins at a place in the file.
        start: where the first one begins.
        decoding: receives warnings.

    Raises:
        AudioError: the first recording cannot be opened, or (while iterating) one is damaged.
    """
    return _blocks(open_part(start), open_part, decoding)


def _blocks(part: Part | None, open_part: Callable[[int], Part], decoding: Decoding) -> RatedBlocks:
    total = decoding.seconds_before
    while part is not None:
        seconds = 0.0
        try:
            for rate, block in part.blocks:
                seconds += len(block) / rate
                yield rate, block
            decoding.check_damage(seconds)
            _find_next(part, decoding, is_damaged=False)
        except DamagedAudio as error:
            _find_next(part, decoding, is_damaged=True)
            if part.find_next is None or part.following is None:
                raise _later(error, total) from error
        if part.promised_share > 1 and decoding.promised_seconds is None:
            decoding.promised_seconds = total + seconds * part.promised_share
            decoding.is_promise_of_audio = True
        total += seconds
        decoding.check_promise(total)
        _warn_of_rest(part, seconds, total, decoding)
        part = _next(part, open_part, decoding, total)


def _find_next(part: Part, decoding: Decoding, *, is_damaged: bool) -> None:
    if part.find_next is not None and part.following is None:
        part.find_next(decoding.position, is_damaged)


def _later(error: DamagedAudio, total: float) -> DamagedAudio:
    """Return the error for damage in a recording that begins after `total` seconds."""
    if not total:
        return error
    where = f"in the recording that begins at {total:.1f} s: {error}"
    return DamagedAudio(where, total + error.seconds)


def _next(
    part: Part, open_part: Callable[[int], Part], decoding: Decoding, total: float
) -> Part | None:
    """Open the recording after `part`. If that fails, warn."""
    if part.following is None:
        return None
    decoding.begin_next(total)
    try:
        following = open_part(part.following)
    except (UnsupportedAudio, EmptyAudio) as error:
        decoding.warnings.append(f"another recording begins at {total:.1f} s, but {error}")
        return None
    if decoding.promised_seconds is not None:
        decoding.promised_seconds += total
    return following


def _warn_of_rest(part: Part, seconds: float, total: float, decoding: Decoding) -> None:
    if part.n_left <= MAX_TRAILER_BYTES:
        return
    message = f"{part.n_left} bytes after the end of the recording at {total:.1f} s"
    about = f"at its bitrate, they would be {seconds * part.n_left / part.n_bytes:.1f} s of audio"
    details = f" ({about})" if part.n_bytes and seconds else ""
    decoding.warnings.append(f"{message} were not decoded{details}")
