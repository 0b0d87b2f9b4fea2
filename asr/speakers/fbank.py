"""Log-mel features as Kaldi computes them, on which speaker models are trained.

25 ms frames every 10 ms, without a mean, with pre-emphasis, Povey's window and 80 mel bands from
20 Hz to 8 kHz. There is no dither, so the same samples give the same features.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from asr.types import SAMPLE_RATE

FRAME: Final = 400
HOP: Final = 160
"""Samples."""
N_FFT: Final = 512
N_MELS: Final = 80
LOWEST_HZ: Final = 20.0
PREEMPHASIS: Final = 0.97
FLOOR: Final = float(np.finfo(np.float32).eps)
"""Kaldi's least energy of a band."""
FRAMES_PER_SECOND: Final = SAMPLE_RATE // HOP


def fbank(samples: np.ndarray) -> np.ndarray:
    """The features of samples in [-1, 1]: float32 of shape (n_frames, 80).

    Only whole frames count; samples shorter than one frame are padded with zeros.
    """
    if len(samples) < FRAME:
        samples = np.pad(samples, (0, FRAME - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), FRAME)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    # The first sample of a frame has no predecessor; Kaldi takes the sample itself.
    before = np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    emphasised = (frames - PREEMPHASIS * before) * _povey()
    power = np.abs(np.fft.rfft(emphasised, N_FFT)) ** 2
    bands = power.astype(np.float32) @ _mel_weights()
    features: np.ndarray = np.log(np.maximum(bands, FLOOR), dtype=np.float32)
    return features


@cache
def _povey() -> np.ndarray:
    return (np.hanning(FRAME) ** 0.85).astype(np.float32)


@cache
def _mel_weights() -> np.ndarray:
    """Triangles that are equally wide in mels: shape (257, 80). Kaldi leaves out the last bin."""
    low, high = _mels(np.array([LOWEST_HZ, SAMPLE_RATE / 2]))
    width = (high - low) / (N_MELS + 1)
    centres = low + width * np.arange(1, N_MELS + 1)
    bins = _mels(np.arange(N_FFT // 2) * SAMPLE_RATE / N_FFT)
    triangles = np.maximum(0, 1 - np.abs(bins[:, None] - centres) / width)
    return np.pad(triangles, ((0, 1), (0, 0))).astype(np.float32)


def _mels(hz: np.ndarray) -> np.ndarray:
    mels: np.ndarray = 1127 * np.log(1 + hz / 700)
    return mels
