"""Python's collector of cyclic garbage, paused while many objects are made in a thread.

Rendering ten hours of speech makes some million objects that all live until the end. A full
collection looks at every one of them and holds the interpreter's lock meanwhile, so the event loop
stood still for a second. The objects have no cycles: they are freed without the collector.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SECONDS: Final = 20.0
"""Pauses that follow each other end then, so that a busy service collects its garbage too."""

_lock = threading.Lock()
_n_pauses = 0
_since = 0.0


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Pause the collector. Several threads may do so at once."""
    global _n_pauses, _since
    with _lock:
        if _n_pauses == 0:
            _since = time.monotonic()
            gc.disable()
        elif time.monotonic() - _since > MAX_SECONDS:
            gc.enable()
        _n_pauses += 1
    try:
        yield
    finally:
        with _lock:
            _n_pauses -= 1
            if _n_pauses == 0:
                gc.enable()
