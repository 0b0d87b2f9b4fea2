"""Who is at fault when a task fails: the recording, its path, or the service.

Trouble of the service (an engine that cannot be reached, a full disk, a killed helper) is tried
again and never stored as a failure of the recording. Neither is trouble with a path, because the
same content may lie at another path, or come back.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from asr.errors import (
    AudioError,
    EngineUnavailable,
    InvalidOption,
    TooMuchMissing,
    WorkerDied,
    lacks_threads,
)
from asr.workers.call import KILLS

Fault = Literal["recording", "path", "service"]


class SourceError(Exception):
    """A recording cannot be read: it is missing, unreadable, too large, or it changed meanwhile."""


class HopelessRecording(Exception):
    """A recording that processes died of, or on which an earlier task failed."""


class SourceUnavailable(Exception):
    """A recording cannot be read now; a later attempt may succeed."""


class SourceAway(SourceUnavailable):
    """The server or disk of a recording does not answer now. Other servers and disks may."""


_RECORDING: Final = (AudioError, InvalidOption, TooMuchMissing, HopelessRecording)
_SERVICE: Final = (
    EngineUnavailable,
    SourceUnavailable,
    OSError,
    MemoryError,
    EOFError,
    asyncio.CancelledError,
)


def fault_of(error: BaseException) -> Fault:
    """Who is at fault. An unknown error may be caused by the recording, so it is blamed."""
    if isinstance(error, _RECORDING):
        return "recording"
    if isinstance(error, SourceError):
        return "path"
    if isinstance(error, _SERVICE) or (isinstance(error, Exception) and lacks_threads(error)):
        return "service"
    if isinstance(error, WorkerDied):
        is_outside = error.signal in KILLS or error.errno is not None or error.out_of_memory
        return "service" if is_outside else "recording"
    return "recording"


def message_of(error: BaseException) -> str:
    """One line for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    is_clear = isinstance(error, (*_RECORDING, *_SERVICE, SourceError))
    return text if is_clear else f"{type(error).__name__}: {text}"
