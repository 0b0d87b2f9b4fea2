"""Any recording -> blocks of 16 kHz float32 samples, in constant memory.

`asr.audio.readers` opens the recording, `asr.audio.scale` scales samples above full scale, and
`asr.audio.mixing` mixes the channels. This module keeps channels separate if asked, and resamples
to 16 kHz with soxr, as a stream.

It knows nothing of formats or speech. It does not trust headers: the limit on seconds applies to
decoded samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import soxr

from asr.audio.mixing import mixed
from asr.audio.readers import Decoding, open_file, open_stream
from asr.audio.scale import scaled
from asr.audio.silence import is_silence, silence
from asr.audio.windows import in_windows
from asr.errors import AudioTooLong, EmptyAudio, UnsupportedAudio
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asr.audio.readers import RatedBlocks, Readable
    from asr.config import AudioLimits

MAX_SPLIT_CHANNELS: Final = 8
"""Each separate channel costs as much as a whole recording."""

_HEADER_SLACK: Final = 1.0


def decode(path: Path, limits: AudioLimits, *, split: bool = False) -> Decoding:
    """Open a recording.

    Args:
        path: the file.
        limits: limits of size and duration.
        split: keep the channels separate instead of mixing them.

    Returns:
        A `Decoding` whose blocks are float32 at 16 kHz: mono of shape (n_samples,), or of shape
        (n_samples, n_channels) with `split`.

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
    """Open a recording that cannot seek.

    Args:
        file: the recording. Errors of its read() are raised here or while iterating.
        limits: limits of duration; `file` itself must enforce `max_bytes`.
        probe_bytes: bytes that may be read to detect the format and the codec.
        split: as for `decode`.

    Raises:
        AudioError: as for `decode`.
    """
    decoding = Decoding()
    source = open_stream(file, decoding, probe_bytes)
    return _decoding(source, decoding, limits, split=split)


def _decoding(
    source: RatedBlocks, decoding: Decoding, limits: AudioLimits, *, split: bool
) -> Decoding:
    sane = scaled(in_windows(source), decoding)
    blocks = _separate(sane) if split else mixed(sane, decoding)
    decoding.blocks = _resampled(blocks, limits.max_seconds, decoding)
    return decoding


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


def _resampled(source: RatedBlocks, max_seconds: float, decoding: Decoding) -> Iterator[np.ndarray]:
    """Resample blocks to 16 kHz, and enforce the limit on seconds."""
    n_samples = 0
    resampler = _Resampler()
    for out in (out for rate, block in source for out in resampler.push(rate, block)):
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
