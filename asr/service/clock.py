"""The wall clock, without its steps ahead.

Times on disk and in the database are wall times, because they must outlive the process. If the wall
clock steps ahead, everything seems to have expired, and a sweep would delete it. So a sweep uses
this clock: it follows a step ahead only if the wall clock still shows it after `DOUBT_SECONDS`. By
then NTP or an administrator has usually corrected a wrong clock.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DOUBT_SECONDS: Final = 3600.0
"""How long a step ahead must last until it is believed. A service that was down for longer than
this doubts the clock after its start, too."""
TOLERANCE_SECONDS: Final = 60.0
"""The wall clock may gain this much on the steady one between two readings."""


def wall_time() -> float:
    """Seconds since 1970 by the wall clock."""
    return datetime.now(UTC).timestamp()


class CautiousClock:
    """Reads the wall clock and doubts its steps ahead. It follows steps back at once.

    Args:
        memory: a file for the last reading, so that a step while the service is down is seen, too.
        wall: reads the wall clock.
        steady: reads a clock that never steps.
    """

    def __init__(
        self,
        memory: Path,
        wall: Callable[[], float] = wall_time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._wall = wall
        self._steady = steady
        self._anchor: tuple[float, float] | None = None  # wall and steady time that are believed
        self._doubt_since: float | None = None
        self._stored = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since 1970; behind the wall clock while a step ahead is in doubt."""
        with self._lock:
            return self._now()

    @property
    def lag(self) -> float:
        """How many seconds this clock is behind the wall clock."""
        now = self.now()
        return max(0.0, self._wall() - now)

    def _now(self) -> float:
        wall, steady = self._wall(), self._steady()
        if self._anchor is None:
            self._anchor = (self._remembered(wall), steady)
        expected = self._anchor[0] + steady - self._anchor[1]
        if wall > expected + TOLERANCE_SECONDS and self._is_doubtful(steady):
            return expected
        self._doubt_since = None
        self._anchor = (wall, steady)
        self._remember(wall)
        return wall

    def _is_doubtful(self, steady: float) -> bool:
        if self._doubt_since is None:
            self._doubt_since = steady
        return steady - self._doubt_since < DOUBT_SECONDS

    def _remembered(self, wall: float) -> float:
        """The wall time; after a long stop the last reading, because the clock may have jumped."""
        try:
            last = float(self._memory.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return wall
        return last if last < wall - DOUBT_SECONDS else wall

    def _remember(self, wall: float) -> None:
        if abs(wall - self._stored) < TOLERANCE_SECONDS:
            return
        self._stored = wall
        with contextlib.suppress(OSError):  # without the file only a step during a stop is missed
            draft = self._memory.with_suffix(".draft")
            draft.write_text(f"{wall:.0f}", encoding="ascii")
            draft.rename(self._memory)


class SharedClock:
    """The time on which all servers of one database agree.

    It is the wall clock of this machine, corrected by what the database's clock shows. Without a
    correction it is the wall clock.

    Args:
        wall: reads the wall clock.
    """

    def __init__(self, wall: Callable[[], float] = wall_time) -> None:
        self._wall = wall
        self.offset = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return self._wall() + self.offset

    def set_to(self, theirs: float) -> None:
        """Show the time of the database, in seconds since 1970, from now on."""
        self.offset = theirs - self._wall()
