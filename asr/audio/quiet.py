"""Quiet speech for a VAD whose thresholds are absolute.

webrtcvad and silero hear nothing in clean speech that peaks at -50 dBFS. `QuietSpeech` therefore
runs a second classifier, which gets the frames amplified. The gain comes from the noise floor: the
quieter the pauses, the higher the gain. A frame is speech if the first classifier says so, or if
the second one does and the frame is clearly louder than the noise floor.

So speech that was found without amplification is still found, and a recording with an ordinary
noise floor has a gain of 1 and does not need the second classifier.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LAG: Final = 4
"""Samples. The level of a frame is that of x[n] - x[n - LAG]. This filter blocks a DC offset,
attenuates hum at 50 Hz by 22 dB and passes speech."""
FLOOR_FRAMES: Final = 333
"""About 10 s. The noise floor is the quietest place in so many frames."""
SMOOTHING_FRAMES: Final = 4
"""A place is so many frames long (0.12 s), so that one frame of noise does not set the floor."""
FLOOR_TARGET: Final = 45.0
"""Steps of int16 (-57 dBFS). The gain raises the noise floor to half of this at least. An ordinary
microphone in a quiet room is already there."""
MAX_GAIN: Final = 128.0
"""42 dB."""
MIN_STEPS: Final = 0.29
"""The least noise floor in steps of int16: the noise that rounding alone makes."""
MIN_SNR: Final = 6.3
"""8 dB as a ratio of powers: how far an amplified frame must be above the noise floor."""


class FrameClassifier(Protocol):
    """Decide whether frames of a fixed length are voiced."""

    frame_samples: int

    def is_speech(self, frame: np.ndarray) -> bool:
        """Classify int16 samples of shape (frame_samples,)."""
        ...


class NoiseFloor:
    """The power of the quietest place in the last frames, in steps of int16 squared."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SMOOTHING_FRAMES)
        self._minima: deque[tuple[int, float]] = deque()  # rising; the first one is the floor
        self._n_frames = 0

    def add(self, power: float) -> float:
        """Take the power of the next frame; return the floor, which may be that of this frame.

        Digital silence (a power of 0) says nothing about the noise of the microphone, so it does
        not count. Without any other frame the floor is infinite.
        """
        if power > 0:
            self._n_frames += 1
            self._recent.append(power)
            if len(self._recent) == SMOOTHING_FRAMES or not self._minima:
                self._take(max(sum(self._recent) / len(self._recent), MIN_STEPS**2))
            if self._minima[0][0] < self._n_frames - FLOOR_FRAMES:
                self._minima.popleft()
        return self._minima[0][1] if self._minima else np.inf

    def _take(self, power: float) -> None:
        while self._minima and self._minima[-1][1] >= power:
            self._minima.pop()
        self._minima.append((self._n_frames, power))


class QuietSpeech:
    """A classifier that also finds quiet speech.

    Args:
        make: makes the classifier, and a second one when the first frame is amplified. Each of
            them adapts to what it hears.
    """

    def __init__(self, make: Callable[[], FrameClassifier]) -> None:
        self._make = make
        self._plain = make()
        self._amplified: FrameClassifier | None = None
        self._floor = NoiseFloor()
        self.frame_samples: int = self._plain.frame_samples

    def is_speech(self, frame: np.ndarray) -> bool:
        """Classify one frame."""
        return self.are_speech(frame[np.newaxis])[0]

    def are_speech(self, frames: np.ndarray) -> list[bool]:
        """Classify int16 samples of shape (n_frames, frame_samples); same flags as one by one."""
        powers = _powers(frames)
        floors = [self._floor.add(power) for power in powers.tolist()]
        gains = _gains(np.array(floors))
        loud = powers >= MIN_SNR * np.array(floors)
        flags = [self._plain.is_speech(frame) for frame in frames]
        amplified = np.flatnonzero(gains > 1)
        for number, frame in zip(
            amplified.tolist(), _amplify(frames, gains, amplified), strict=True
        ):
            is_voiced = self._second().is_speech(frame)
            flags[number] = flags[number] or (is_voiced and bool(loud[number]))
        return flags

    def _second(self) -> FrameClassifier:
        if self._amplified is None:
            self._amplified = self._make()
        return self._amplified


def _powers(frames: np.ndarray) -> np.ndarray:
    """Return the power of each frame. The sums of integers are exact in any order."""
    steps = frames[:, LAG:].astype(np.float64) - frames[:, :-LAG]
    powers: np.ndarray = np.einsum("ij,ij->i", steps, steps) / (2 * steps.shape[1])
    return powers


def _gains(floors: np.ndarray) -> np.ndarray:
    """Return powers of two, so that a small change of the floor seldom changes the gain."""
    wanted = np.clip(FLOOR_TARGET / np.sqrt(floors), 1.0, MAX_GAIN)
    gains: np.ndarray = np.exp2(np.floor(np.log2(wanted)))
    return gains


def _amplify(frames: np.ndarray, gains: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return some of the frames, without DC offset, times their gains, clipped."""
    some = frames[which].astype(np.float64)
    centred = some - some.mean(axis=1, keepdims=True)
    louder: np.ndarray = np.rint(centred * gains[which, np.newaxis])
    return louder.clip(-32768, 32767).astype(np.int16)
