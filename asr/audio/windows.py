"""Blocks of any length -> blocks of whole windows of 0.1 s.

Readers return blocks of different lengths: libsndfile 65,536 frames, FFmpeg one packet. Decisions
about the audio (`asr.audio.scale`, `asr.audio.mixing`) are made per window, so they do not depend
on the reader, and a file and the same bytes as a stream give the same samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from asr.audio.silence import is_silence

if TYPE_CHECKING:
    from asr.audio.decoding import RatedBlocks

WINDOWS_PER_SECOND: Final = 10


def window_frames(rate: int) -> int:
    """Return the number of frames in a window."""
    return rate // WINDOWS_PER_SECOND


def in_windows(source: RatedBlocks) -> RatedBlocks:
    """Regroup blocks so that they have whole windows. At most one window is held back.

    The last window is shorter if the audio ends, changes its rate or number of channels, or goes
    over into a `silence`. A `silence` is passed on unchanged.
    """
    held = np.zeros((0, 0), np.float32)
    held_rate = 0
    for rate, block in source:
        is_same = rate == held_rate and block.shape[1] == held.shape[1]
        if len(held) and (not is_same or is_silence(block)):
            yield held_rate, held
            held = held[:0]
        if is_silence(block):
            yield rate, block
            continue
        joined = np.concatenate((held, block)) if len(held) else block
        n_whole = len(joined) // window_frames(rate) * window_frames(rate)
        if n_whole:
            yield rate, joined[:n_whole]
        held, held_rate = joined[n_whole:], rate
    if len(held):
        yield held_rate, held


def bounds(n_frames: int, rate: int) -> list[tuple[int, int]]:
    """Return (start, end) of each window of a block; the last one may be shorter."""
    size = window_frames(rate)
    return [(start, min(start + size, n_frames)) for start in range(0, n_frames, size)]
