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


class Signals:
    """The handler of the signals, and what they told."""

    def __init__(self) -> None:
        self._n_received = 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came.

        Python loses the one that the handler raises if it hits a finaliser or a callback.
        """
        if self._n_received:
            raise KeyboardInterrupt

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Take a signal."""
        self._n_received += 1
        if self._n_received == PATIENT:
            with contextlib.suppress(OSError, RuntimeError):
                sys.stderr.write("asr: ending the run; once more ends it at once\n")
            return
        raise KeyboardInterrupt


@contextlib.contextmanager
def terminable() -> Generator[Signals]:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once.

    A signal that is ignored, as by nohup, stays ignored. Within another such block, its handler
    goes on counting.
    """
    outer = signal.getsignal(signal.SIGINT)
    handler = outer if isinstance(outer, Signals) else Signals()
    if threading.current_thread() is not threading.main_thread():
        yield handler  # only the main thread may receive signals
        return
    heeded = [it for it in ENDING if signal.getsignal(it) != signal.SIG_IGN]
    before = {it: signal.signal(it, handler) for it in heeded}
    try:
        yield handler
    finally:
        for it, old in before.items():
            signal.signal(it, old)


@contextlib.contextmanager
def unchanged() -> Generator[None]:
    """Keep the handlers of signals. Ray sets one for SIGTERM that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {it: signal.getsignal(it) for it in ENDING}
    try:
        yield
    except SystemExit as error:  # Ray's handler was called
        raise KeyboardInterrupt from error
    finally:
        for it, handler in before.items():
            signal.signal(it, handler)
