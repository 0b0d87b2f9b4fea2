"""Any recording -> blocks of 16 kHz mono float32, in memory that does not grow with its length.

`asr.audio.readers` opens the recording. Here its channels are mixed or kept apart, and soxr
resamples it to 16 kHz, as a stream.

Knows nothing of formats, nor of speech. Does not trust headers: seconds are counted as they are
decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import soxr

from asr.audio.readers import Decoding, open_file, open_stream
from asr.errors import AudioTooLong, EmptyAudio, UnsupportedAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asr.audio.readers import RatedBlocks, Readable
    from asr.config import AudioLimits

MAX_SPLIT_CHANNELS: Final = 8
"""Each costs as much as a recording of its own."""
MAX_PEAK: Final = 8.0
"""A float file whose samples go beyond this holds garbage, and is clipped before the filter."""

_HEADER_SLACK: Final = 1.0


def decode(path: Path, limits: AudioLimits, *, split: bool = False) -> Decoding:
    """Open a recording.

    Args:
        path: the file.
        limits: what decoding it may cost.
        split: keep the channels apart instead of mixing them.

    Returns:
        A `Decoding` whose blocks are float32 at 16 kHz: mono of shape (n_samples,), or of shape
        (n_samples, n_channels) when they are to be kept apart.

    Raises:
        UnsupportedAudio: not audio in an accepted format.
        EmptyAudio: the file has no bytes, or (while iterating) no samples.
        DamagedAudio: while iterating, decoding failed.
        AudioTooLong: the file or (while iterating) the audio exceeds `limits`.
    """
    size = path.stat().st_size
    if size == 0:
        raise EmptyAudio("the file is empty")
    if size > limits.max_bytes:
        raise AudioTooLong(f"the file has {size} bytes; {limits.max_bytes} are allowed")
    decoding = Decoding()
    return _decoding(open_file(path, decoding), decoding, limits, split=split)


def decode_stream(
    file: Readable, limits: AudioLimits, probe_bytes: int, *, split: bool = False
) -> Decoding:
    """Open a recording that cannot be sought in.

    Args:
        file: it. An error that reading raises is raised here, or while iterating.
        limits: all but `max_bytes`, which is the reader's.
        probe_bytes: to tell the format and the codec by.
        split: as of `decode`.

    Raises:
        AudioError: as `decode`.
    """
    decoding = Decoding()
    source = open_stream(file, decoding, probe_bytes)
    return _decoding(source, decoding, limits, split=split)


def _decoding(
    source: RatedBlocks, decoding: Decoding, limits: AudioLimits, *, split: bool
) -> Decoding:
    blocks = _apart(source) if split else ((rate, _to_mono(block)) for rate, block in source)
    decoding.blocks = _resampled(blocks, limits.max_seconds, decoding)
    return decoding


def _apart(source: RatedBlocks) -> RatedBlocks:
    """The same blocks, of which all have as many channels as the first.

    Raises:
        UnsupportedAudio: there are too many, or their number changes.
    """
    n_channels = 0
    for rate, block in source:
        n_channels = n_channels or block.shape[1]
        if n_channels > MAX_SPLIT_CHANNELS:
            message = f"the recording has {n_channels} channels, and {MAX_SPLIT_CHANNELS} at most"
            raise UnsupportedAudio(f"{message} can be kept apart. Send channels=mix.")
        if block.shape[1] != n_channels:
            message = f"the number of channels changes from {n_channels} to {block.shape[1]}"
            raise UnsupportedAudio(f"{message}. Send channels=mix.")
        yield rate, _sane(block)


def _resampled(source: RatedBlocks, max_seconds: float, decoding: Decoding) -> Iterator[np.ndarray]:
    """Bring blocks to 16 kHz and hold them to the limit."""
    n_samples = 0
    resampler = _Resampler()
    for rate, block in source:
        out = resampler.push(rate, block)
        n_samples += len(out)
        if n_samples > max_seconds * SAMPLE_RATE:
            raise AudioTooLong(f"the recording is longer than {max_seconds:g} seconds")
        if len(out):
            yield out
    tail = resampler.finish()
    n_samples += len(tail)
    if len(tail):
        yield tail
    if n_samples == 0:
        raise EmptyAudio("the recording holds no audio samples")
    promised, seconds = decoding.promised_seconds, n_samples / SAMPLE_RATE
    if promised is not None and promised > seconds + max(_HEADER_SLACK, 0.01 * seconds):
        message = f"the header promises {promised:.1f} s of audio, the file holds {seconds:.1f} s"
        decoding.warnings.append(message)


class _Resampler:
    """Blocks of any rate, which may change on the way, to 16 kHz."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._nothing = np.zeros(0, np.float32)  # in the shape of the blocks
        self._stream: soxr.ResampleStream | None = None

    def push(self, rate: int, block: np.ndarray) -> np.ndarray:
        if rate == self._rate:
            return self._convert(block)
        self._nothing = block[:0]
        head = self.finish()
        self._rate = rate
        if rate != SAMPLE_RATE:
            n_channels = block[0].size if len(block) else 1
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, n_channels, dtype="float32")
        return np.concatenate((head, self._convert(block)))

    def _convert(self, block: np.ndarray) -> np.ndarray:
        return block if self._stream is None else self._stream.resample_chunk(block)

    def finish(self) -> np.ndarray:
        """What the filter still holds."""
        if self._stream is None:
            return self._nothing
        tail: np.ndarray = self._stream.resample_chunk(self._nothing, last=True)
        self._stream = None
        return tail


def _to_mono(block: np.ndarray) -> np.ndarray:
    """Mean of the channels of a (n_frames, n_channels) float32 block; not a number becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):  # a float file may hold any float
        if block.shape[1] == 1:
            mono = block[:, 0]
        elif block.shape[1] == 2:
            mono = (block[:, 0] + block[:, 1]) * np.float32(0.5)  # far faster than mean()
        else:
            mono = block.mean(axis=1, dtype=np.float32)
    return _sane(mono)


def _sane(samples: np.ndarray) -> np.ndarray:
    """Samples as they are, or clipped where one is absurd: the filter would spread it."""
    with np.errstate(invalid="ignore"):
        is_sane = np.abs(samples).max(initial=0.0) <= MAX_PEAK  # false where there is a NaN
    if not is_sane:
        samples = np.clip(np.nan_to_num(samples, nan=0.0), -1.0, 1.0)
    return np.ascontiguousarray(samples)
