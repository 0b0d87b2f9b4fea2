"""Any recording -> blocks of 16 kHz float32 samples, in constant memory.

`asr.audio.readers` opens the recording, `asr.audio.scale` scales samples above full scale, and
`asr.audio.mixing` mixes the channels. This module keeps channels separate if asked, and resamples
to 16 kHz with soxr, as a stream.

It knows nothing of formats or speech. It does not trust headers: the limit on seconds applies to
decoded samples.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import soxr

from asr.audio.decoding import Decoding
from asr.audio.mixing import mixed
from asr.audio.readers import open_file
from asr.audio.scale import scaled
from asr.audio.silence import is_silence, silence
from asr.audio.tracks import Choice
from asr.audio.windows import in_windows
from asr.errors import AudioTooLong, EmptyAudio, UnsupportedAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asr.audio.decoding import RatedBlocks
    from asr.config import AudioLimits

MAX_SPLIT_CHANNELS: Final = 8
"""Each separate channel costs as much as a whole recording."""


def decode(
    path: Path, limits: AudioLimits, *, split: bool = False, track: int | None = None
) -> Decoding:
    """Open a recording.

    Args:
        path: the file.
        limits: limits of size and duration.
        split: keep the channels separate instead of mixing them. If there are several audio
            tracks, each is a channel.
        track: the audio track to decode, counted from 0; None lets the program choose.

    Returns:
        A `Decoding` whose blocks are float32 at 16 kHz: mono of shape (n_samples,), or of shape
        (n_samples, n_channels) with `split`.

    Raises:
        UnsupportedAudio: not audio in an accepted format.
        InvalidOption: there is no such track.
        EmptyAudio: the file has no bytes, or (while iterating) no samples.
        DamagedAudio: while iterating, decoding failed.
        AudioTooLong: the file or (while iterating) the audio exceeds `limits`.
    """
    size = path.stat().st_size
    if size == 0:
        raise EmptyAudio("the file is empty")
    if size > limits.max_bytes:
        raise AudioTooLong(f"the file has {size} bytes; {limits.max_bytes} are allowed")

    def open_it(decoding: Decoding, choice: Choice) -> RatedBlocks:
        return open_file(path, decoding, choice)

    return decode_blocks(open_it, limits, split=split, track=track)


def decode_blocks(
    open_it: Callable[[Decoding, Choice], RatedBlocks],
    limits: AudioLimits,
    *,
    split: bool = False,
    track: int | None = None,
) -> Decoding:
    """Mix or separate the channels of blocks, and resample them.

    Args:
        open_it: returns the blocks, given the `Decoding` that receives warnings and the choice of
            audio tracks.
        limits: limits of duration.
        split: as for `decode`.
        track: as for `decode`.

    Raises:
        AudioError: as for `decode`.
    """
    decoding = Decoding()
    join = partial(_side_by_side, decoding=decoding) if split and track is None else None
    source = scaled(in_windows(open_it(decoding, Choice(track, join))), decoding)
    blocks = _separate(source) if split else mixed(source, decoding)
    decoding.blocks = _resampled(blocks, limits.max_seconds)
    return decoding


def _side_by_side(tracks: list[RatedBlocks], decoding: Decoding) -> RatedBlocks:
    """Make one channel of each track; mix the channels inside a track.

    All tracks are read at the same pace, so that memory does not grow. The shorter ones end in
    silence.
    """
    sane = [scaled(in_windows(track), decoding) for track in tracks]
    mono = [_Ahead(_at_16_khz(mixed(track, decoding))) for track in sane]
    while n_samples := min((n for n in (it.available() for it in mono) if n), default=0):
        columns = [it.take(n_samples) for it in mono]
        if all(is_silence(column) for column in columns):
            yield SAMPLE_RATE, silence(n_samples, len(columns))
        else:
            yield SAMPLE_RATE, np.stack(columns, axis=1)


class _Ahead:
    """The rest of the newest block of a track."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)

    def available(self) -> int:
        """Read a block if there is none; return its number of samples, 0 at the end."""
        while len(self._rest) == 0:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = block
        return len(self._rest)

    def take(self, n_samples: int) -> np.ndarray:
        """Return the next samples, which are silence after the end."""
        if len(self._rest) == 0:
            return silence(n_samples)
        taken, self._rest = self._rest[:n_samples], self._rest[n_samples:]
        return taken


def _separate(source: RatedBlocks) -> RatedBlocks:
    """Yield the blocks, and check that their number of channels does not change.

    Raises:
        UnsupportedAudio: there are too many channels, or their number changes.
    """
    n_channels = 0
    for rate, block in source:
        n_channels = n_channels or block.shape[1]
        if n_channels > MAX_SPLIT_CHANNELS:
            message = f"the recording has {n_channels} channels; at most {MAX_SPLIT_CHANNELS}"
            raise UnsupportedAudio(f"{message} can be kept separate. Send channels=mix.")
        if block.shape[1] != n_channels:
            message = f"the number of channels changes from {n_channels} to {block.shape[1]}"
            raise UnsupportedAudio(f"{message}. Send channels=mix.")
        yield rate, block if is_silence(block) else np.ascontiguousarray(block)


def _resampled(source: RatedBlocks, max_seconds: float) -> Iterator[np.ndarray]:
    """Resample blocks to 16 kHz, and enforce the limit on seconds."""
    n_samples = 0
    for out in _at_16_khz(source):
        n_samples += len(out)
        if n_samples > max_seconds * SAMPLE_RATE:
            raise AudioTooLong(f"the recording is longer than {max_seconds:g} seconds")
        yield out
    if n_samples == 0:
        raise EmptyAudio("the recording holds no audio samples")


def _at_16_khz(source: RatedBlocks) -> Iterator[np.ndarray]:
    resampler = _Resampler()
    for rate, block in source:
        yield from (out for out in resampler.push(rate, block) if len(out))
    tail = resampler.finish()
    if len(tail):
        yield tail


class _Resampler:
    """Resamples blocks to 16 kHz. The rate may change between blocks."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._empty = np.zeros(0, np.float32)  # with the channels of the blocks
        self._stream: soxr.ResampleStream | None = None

    def push(self, rate: int, block: np.ndarray) -> Iterator[np.ndarray]:
        if rate != self._rate:
            self._empty = block[:0]
            yield self.finish()
            self._rate = rate
            if rate != SAMPLE_RATE:
                n_channels = block[0].size if len(block) else 1
                self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, n_channels, dtype="float32")
        if self._stream is None:
            yield block
        elif is_silence(block):
            yield from self._silence(self._stream, block)
        else:
            yield self._stream.resample_chunk(block)

    def _silence(self, stream: soxr.ResampleStream, block: np.ndarray) -> Iterator[np.ndarray]:
        """Resample silence. After a second the filter holds only zeros, so whole seconds pass by.

        A whole second has a whole number of samples at both rates, so the phase stays the same.
        """
        n_skipped = max(0, len(block) // self._rate - 1)
        first = len(block) - n_skipped * self._rate
        yield stream.resample_chunk(np.zeros((first, *block.shape[1:]), np.float32))
        if n_skipped:
            yield silence(n_skipped * SAMPLE_RATE, *block.shape[1:])

    def finish(self) -> np.ndarray:
        """Return the samples that the filter still holds."""
        if self._stream is None:
            return self._empty
        tail: np.ndarray = self._stream.resample_chunk(self._empty, last=True)
        self._stream = None
        return tail
