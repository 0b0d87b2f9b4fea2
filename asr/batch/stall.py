"""End a process whose task hangs.

A library that never returns cannot be interrupted from Python. So the whole process ends, as if the
recording had crashed it, and what is known about crashes applies: its task is repeated, then runs
alone, and fails if it hangs again. Tasks beside it are repeated.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import wait as wait_for
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

STALL_SECONDS: Final = 3600.0
"""No step of a transcription takes longer. An answer of the slowest engine takes up to 15 minutes
of CPU time."""
POLL_SECONDS: Final = 10.0
STATUS: Final = 75
"""Exit status of a process whose task made no progress."""


class Beat:
    """When a task made its last step. Call it at each step."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def __call__(self, *_: object) -> None:
        """Take note of a step."""
        self.at = time.monotonic()


def wait(future: Future[T], beat: Beat) -> T:
    """The result of a future; ends the process if `beat` stops for `STALL_SECONDS`."""
    while not wait_for([future], POLL_SECONDS).done:
        if time.monotonic() - beat.at > STALL_SECONDS:
            os._exit(STATUS)
    return future.result()
