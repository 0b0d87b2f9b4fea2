"""The times of a model's output frames, measured on the model.

In a stack of convolutions each frame is `hop` samples after the previous one, and the shortest
input with n frames has ``n * hop + margin`` samples. We measure the shortest inputs for two
consecutive numbers of frames and compute `hop` and `margin` from them. Half of the margin lies
before the first frame. For wav2vec2 this half is 40 samples. The margin is negative if the encoder
pads its input, as Parakeet's does. The simpler formula, audio length divided by number of frames,
would be wrong by up to a frame at the end of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_SAMPLES: Final = SAMPLE_RATE // 2
MAX_HOP: Final = SAMPLE_RATE // 2


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The positions of a model's frames.

    Attributes:
        hop: samples from frame to frame.
        margin: samples of the shortest input with n frames, less ``n * hop``.
    """

    hop: int
    margin: int

    def seconds(self, frame: int) -> float:
        """Return the start of a frame in seconds; negative if it starts before the audio."""
        return (frame * self.hop + self.margin / 2) / SAMPLE_RATE

    def n_frames(self, n_samples: int) -> int:
        """Count the frames whose middle lies in the audio.

        The model may return more frames, because the batch or the encoder pads the audio.
        """
        complete = (n_samples - self.margin) // self.hop
        inside = -((self.margin / 2 + self.hop / 2 - n_samples) // self.hop)
        return max(0, min(complete, int(inside)))


def measure_grid(count: Callable[[int], int]) -> FrameGrid:
    """Measure the grid of a model.

    Args:
        count: returns the model's number of frames for a number of samples.
    """
    first, n_frames = _next_step(count, PROBE_SAMPLES)
    second, _ = _next_step(count, first)
    hop = second - first
    return FrameGrid(hop, first - n_frames * hop)


def _next_step(count: Callable[[int], int], n_samples: int) -> tuple[int, int]:
    """Find the smallest length that gives more frames than `n_samples` does.

    Returns:
        That length in samples, and its number of frames.
    """
    n_frames = count(n_samples)
    low, high = n_samples, n_samples + MAX_HOP
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) > n_frames:
            high = middle
        else:
            low = middle
    return high, count(high)
