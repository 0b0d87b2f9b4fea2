"""The clock of a container: where its timestamps jump ahead, silence keeps the times true."""

from __future__ import annotations

from typing import Final

MAX_GAP_SECONDS: Final = 0.1
"""Seconds. Larger jumps of a container's timestamps become silence, so times stay true."""
MAX_SILENCE_SECONDS: Final = 3600.0
"""Seconds. A longer jump ahead is not a pause but another clock: the audio continues at once. An
hour is longer than a muted microphone usually stays muted."""
MAX_BACK_SECONDS: Final = 1.0
"""Seconds. A longer jump back is another clock. A shorter one is jitter, and the samples count."""
MAX_LEAD_SECONDS: Final = 0.01
"""Seconds. The limit for the gap before the first sound, if the audio begins after the video. This
gap has no jitter. Without silence in its place every word would come too early."""
_WRAP: Final = 2**33 / 90_000
"""Seconds after which the clock of mpeg begins again. FFmpeg takes a jump back for that, and so
returns a jump ahead that is shorter than this by the jump back."""


class Clock:
    """Compares the timestamps of a container with the audio so far.

    Args:
        origin: the timestamp of second 0.
        late: seconds from there to the first sound, according to the header.

    Attributes:
        n_jumps: how often the clock jumped far ahead. Jumps back are normal where recordings were
            joined.
        first_jump: seconds of audio before the first jump.
        jumps_back: FFmpeg took a jump back for an overflow of the clock. So the length in the
            header is wrong.
    """

    def __init__(self, origin: float, late: float) -> None:
        self._origin = origin
        self._late = late
        self._expected: float | None = None  # the end of the previous frame by its timestamp
        self._seconds = 0.0  # of audio, with the gaps
        self.n_jumps = 0
        self.jumps_back = False
        self.first_jump = 0.0

    def gap(self, time: float | None, seconds: float) -> float:
        """Return the seconds of silence before a frame.

        Args:
            time: the timestamp of the frame, if it has one.
            seconds: its length.
        """
        gap = 0.0
        if time is not None:
            gap = self._lead(time) if self._expected is None else self._gap(time, self._expected)
            self._expected = time
        if self._expected is not None:
            self._expected += seconds
        self._seconds += gap + seconds
        return gap

    def _lead(self, time: float) -> float:
        """Return the silence before the first frame.

        FFmpeg takes the least timestamp for the first one. In a recording whose clock jumps back,
        that one is later in the file, and only the header tells when the sound starts.
        """
        if time - self._origin - self._late > MAX_BACK_SECONDS:
            self._origin = time - self._late
        lead = time - self._origin - self._seconds
        least = MAX_LEAD_SECONDS if self._late > MAX_LEAD_SECONDS else MAX_GAP_SECONDS
        if lead > MAX_SILENCE_SECONDS:
            return self._gap(time, self._origin)
        return lead if lead > least else 0.0

    def _gap(self, time: float, expected: float) -> float:
        ahead = time - expected
        self.jumps_back = self.jumps_back or 0 < _WRAP - ahead < _WRAP / 2
        if ahead > MAX_SILENCE_SECONDS and not 0 < _WRAP - ahead < _WRAP / 2:
            self.first_jump = self.first_jump if self.n_jumps else self._seconds
            self.n_jumps += 1
        if not -MAX_BACK_SECONDS <= ahead <= MAX_SILENCE_SECONDS:
            self._origin = time - self._seconds
        gap = time - self._origin - self._seconds
        return gap if gap > MAX_GAP_SECONDS else 0.0
