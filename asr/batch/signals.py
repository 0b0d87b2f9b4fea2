"""Ctrl-C and its relatives end a run in order."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENT: Final = 2
"""The second signal is ignored, because the run already ends; a further one ends it at once."""


class _Handler:
    def __init__(self) -> None:
        self._n_received = 0

    def __call__(self, _: int, __: FrameType | None) -> None:
        self._n_received += 1
        if self._n_received == PATIENT:
            with contextlib.suppress(OSError, RuntimeError):
                sys.stderr.write("asr: ending the run; once more ends it at once\n")
            return
        raise KeyboardInterrupt


@contextlib.contextmanager
def terminable() -> Generator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once.

    A signal that is ignored, as by nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may receive signals
        return
    handler = _Handler()
    heeded = [it for it in ENDING if signal.getsignal(it) != signal.SIG_IGN]
    before = {it: signal.signal(it, handler) for it in heeded}
    try:
        yield
    finally:
        for it, old in before.items():
            signal.signal(it, old)
