"""Choose the audio of the next interim request. No input or output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.service.live.turns import OpenTurn

SHORT_SECONDS: Final = 0.8
"""A shorter window is not recognised: it hardly contains a whole word."""
TRAIL_SECONDS: Final = 0.8
"""The window ends at most this long after the last voiced frame, so that silence costs nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """Samples [start, end) of the session.

    Attributes:
        start: first sample.
        end: sample after the last one.
        is_complete: whether a pause follows. Then the window will not grow.
    """

    start: int
    end: int
    is_complete: bool = False

    @property
    def seconds(self) -> float:
        """The duration."""
        return (self.end - self.start) / SAMPLE_RATE


class Windows:
    """The windows of one speech region, or of one turn that the client commits."""

    def __init__(self) -> None:
        self._turn: OpenTurn | None = None
        self._session_end = 0
        self._start: int | None = None  # None: the window starts with the region
        self._recognised_until = 0
        self._n_complete = 0  # regions of the turn that are recognised to their end

    def grow(self, turn: OpenTurn, end_sample: int) -> None:
        """Take the unfinished turn and the end of the session so far."""
        self._turn, self._session_end = turn, end_sample

    def next(self, cadence: float) -> Window | None:
        """The window to recognise next; None if it has less than `cadence` seconds of new audio."""
        if self._turn is None:
            return None
        if self._n_complete < len(self._turn.ended):
            ended = self._turn.ended[self._n_complete]
            return Window(self._start_in(ended.start_sample), ended.end_sample, is_complete=True)
        region = self._turn.current
        if region is None:
            return None
        start = self._start_in(region.start_sample)
        end = min(self._session_end, region.end_sample + round(TRAIL_SECONDS * SAMPLE_RATE))
        is_due = end - max(start, self._recognised_until) >= cadence * SAMPLE_RATE
        is_long_enough = end - start >= SHORT_SECONDS * SAMPLE_RATE
        return Window(start, end) if is_due and is_long_enough else None

    def _start_in(self, region_start: int) -> int:
        return region_start if self._start is None else self._start

    def recognised(self, window: Window) -> None:
        """The window was recognised. Later windows start where it starts."""
        self._start, self._recognised_until = window.start, window.end

    def complete(self) -> None:
        """The complete window was recognised. The next window starts with the next region."""
        self._n_complete, self._start = self._n_complete + 1, None

    def cut(self, sample: int) -> None:
        """Later windows start at this sample."""
        self._start = self._recognised_until = sample
