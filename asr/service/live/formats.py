"""Converts a stream of 16-bit PCM at several rates, or of G.711, to 16 kHz PCM16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import soxr

from asr import pcm
from asr.types import SAMPLE_RATE

Encoding = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
TELEPHONE_RATE: Final = 8_000


def _mu_law() -> np.ndarray:
    """G.711 mu-law: sign, 3 bits of exponent, 4 of mantissa, all inverted."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 0x07)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law() -> np.ndarray:
    """G.711 A-law: the same fields with every second bit inverted, and a linear first segment."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code >> 4) & 0x07, (code & 0x0F) << 4
    curved = (mantissa + 0x108) << np.maximum(exponent - 1, 0)
    magnitude = np.where(exponent == 0, mantissa + 8, curved)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES: Final = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of the client's bytes: mono, `rate` in Hz."""

    encoding: Encoding = "audio/pcm"
    rate: int = 24_000

    @property
    def bytes_per_second(self) -> int:
        """Bytes of this format per second of audio."""
        return self.rate * (2 if self.encoding == "audio/pcm" else 1)


class Converter:
    """Converts bytes of one format to int16 samples at 16 kHz.

    The result does not depend on how the bytes are split into pushes.
    """

    def __init__(self, form: AudioFormat) -> None:
        self._table = _TABLES.get(form.encoding)
        self._rate = form.rate
        self._odd = b""  # half a sample; the other half comes with the next push
        self._stream = self._new_stream()

    def _new_stream(self) -> soxr.ResampleStream | None:
        if self._rate == SAMPLE_RATE:
            return None
        return soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32")

    def push(self, data: bytes) -> np.ndarray:
        """Convert the next bytes. The filter holds back some milliseconds."""
        return self._resample(self._samples(data), last=False)

    def finish(self) -> np.ndarray:
        """The samples that the filter holds back. A later push starts a new stream."""
        tail = self._resample(np.zeros(0, np.int16), last=True)
        self._stream = self._new_stream()
        return tail

    def _samples(self, data: bytes) -> np.ndarray:
        if self._table is not None:
            decoded: np.ndarray = self._table[np.frombuffer(data, np.uint8)]
            return decoded
        data = self._odd + data
        n_whole = len(data) // 2 * 2
        self._odd = data[n_whole:]
        return pcm.from_bytes(data[:n_whole])

    def _resample(self, samples: np.ndarray, *, last: bool) -> np.ndarray:
        if self._stream is None:
            return samples
        resampled = self._stream.resample_chunk(pcm.to_float32(samples), last=last)
        return pcm.to_int16(resampled)
