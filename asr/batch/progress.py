"""Progress of a run: hours done of hours found, RTFx, time left, failures.

The length of a recording is unknown until somebody decodes it. Until then it is estimated from its
size, with a rate for its suffix that each finished recording improves.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_RATES: Final = {".wav": 64_000, ".flac": 40_000, ".opus": 5_000, ".ogg": 10_000, ".amr": 1_600}
_OTHER: Final = 16_000
_WEIGHT: Final = 600.0
"""The assumed rate counts like this many seconds of finished recordings."""
LINE_SECONDS: Final = 30.0
"""Time between two lines if the output is no terminal."""
DRAW_SECONDS: Final = 0.5


class Rates:
    """Bytes in a second of audio, by suffix."""

    def __init__(self) -> None:
        self._bytes: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)

    def learn(self, path: str, size: int, seconds: float) -> None:
        """Take note of a recording whose length is known."""
        self._bytes[_suffix(path)] += size
        self._seconds[_suffix(path)] += seconds

    def seconds(self, path: str, size: int | None) -> float:
        """The estimated length of a recording."""
        suffix = _suffix(path)
        assumed = _RATES.get(suffix, _OTHER)
        n_bytes = self._bytes[suffix] + assumed * _WEIGHT
        return (size or 0) * (self._seconds[suffix] + _WEIGHT) / n_bytes


def _suffix(path: str) -> str:
    return PurePosixPath(path.partition("?")[0]).suffix.lower()


class Progress:
    """Draws one line that changes on a terminal, and a line now and then elsewhere.

    Args:
        hidden: draw nothing.
        stream: where to draw.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        hidden: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = self.found = 0.0
        self.n_done = self.n_found = self.n_failed = 0
        self._hidden = hidden
        self._stream = stream or sys.stderr
        self._clock = clock
        self._started = clock()
        self._drawn = -LINE_SECONDS
        self._kept = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def ticking(self) -> Generator[None]:
        """Draw from time to time until the block ends, because an answer may take an hour."""
        over = threading.Event()
        pause = DRAW_SECONDS if self._stream.isatty() else LINE_SECONDS

        def tick() -> None:
            while not over.wait(pause):
                if self.is_due:
                    self.draw()

        thread = threading.Thread(target=tick, daemon=True)
        if not self._hidden:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if not self._hidden or thread.is_alive():
                thread.join()

    def start(self, kept: float) -> None:
        """Begin to measure; `kept` seconds were done by earlier runs."""
        self._started, self._kept = self._clock(), kept

    @property
    def is_due(self) -> bool:
        """Whether the last drawing is old enough."""
        pause = DRAW_SECONDS if self._stream.isatty() else LINE_SECONDS
        return not self._hidden and self._clock() - self._drawn >= pause

    def draw(self, *, last: bool = False) -> None:
        """Draw the line; `last` ends it."""
        with self._lock:
            if self._hidden:
                return
            self._drawn = self._clock()
            is_terminal = self._stream.isatty()
            start, end = ("\r\x1b[K", "\n" if last else "") if is_terminal else ("", "\n")
            try:
                self._stream.write(f"{start}{self.text()}{end}")
                self._stream.flush()
            except OSError:  # the terminal was closed; the run goes on
                self._hidden = True

    def text(self) -> str:
        """The line."""
        elapsed = self._clock() - self._started
        speed = (self.done - self._kept) / elapsed if elapsed > 0 else 0.0
        left = (self.found - self.done) / speed if speed > 0 else None
        parts = [
            f"{self.done / 3600:.2f} of {self.found / 3600:.2f} h",
            f"{self.n_done} of {self.n_found} files",
            f"RTFx {speed:.1f}",
            "ETA unknown" if left is None else f"ETA {_clock_time(max(0.0, left))}",
            f"{self.n_failed} failed",
        ]
        return ", ".join(parts)


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
