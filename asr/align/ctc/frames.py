"""Where in the samples a model's output frames lie, measured on the model and not assumed.

For a stack of convolutions every frame is `hop` samples after the one before, and the shortest
input with n frames has ``n * hop + margin`` samples. Two of these lengths give both numbers. Half
of the margin lies before the first frame (wav2vec2: 40 samples; where an encoder pads its input,
as Parakeet's does, the margin is negative). To divide the length of the audio by the number of
frames instead would be late by up to a frame at the end of a chunk.
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
    """The frames of a model.

    Attributes:
        hop: samples from frame to frame.
        margin: samples that the shortest input has beyond those of its frames.
    """

    hop: int
    margin: int

    def seconds(self, frame: int) -> float:
        """Where a frame begins, from the start of the audio; the first may begin before it."""
        return (frame * self.hop + self.margin / 2) / SAMPLE_RATE

    def n_frames(self, n_samples: int) -> int:
        """Frames whose middle lies in the audio; a padded batch has more."""
        complete = (n_samples - self.margin) // self.hop
        inside = -((self.margin / 2 + self.hop / 2 - n_samples) // self.hop)
        return max(0, min(complete, int(inside)))


def measure_grid(count: Callable[[int], int]) -> FrameGrid:
    """Find the grid of a model.

    Args:
        count: how many frames the model makes of so many samples.
    """
    first, n_frames = _next_step(count, PROBE_SAMPLES)
    second, _ = _next_step(count, first)
    hop = second - first
    return FrameGrid(hop, first - n_frames * hop)


def _next_step(count: Callable[[int], int], n_samples: int) -> tuple[int, int]:
    """The smallest length with more frames than `n_samples` has, and how many it has."""
    n_frames = count(n_samples)
    low, high = n_samples, n_samples + MAX_HOP
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) > n_frames:
            high = middle
        else:
            low = middle
    return high, count(high)
