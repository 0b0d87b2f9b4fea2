"""Who is at fault when work fails: the recording, perhaps one of its chunks, or the server.

This is the only table from errors to blame. Jobs use it to decide whether they try again. HTTP uses
it to answer 503 with Retry-After where the server is at fault.

| fault       | a job                                       | a synchronous request                |
| ----------- | ------------------------------------------- | ------------------------------------ |
| RECORDING   | fails                                       | 4xx                                  |
| CHUNK       | returns to the queue; if one chunk fails    | 5xx                                  |
|             | again and again while others succeed, it    |                                      |
|             | becomes a gap, or the job fails             |                                      |
| SERVER      | returns to the queue, however often         | 503 with Retry-After                 |
"""

from __future__ import annotations

import enum
import errno
from typing import Final

from asr.errors import (
    AudioError,
    EngineError,
    EngineUnavailable,
    InvalidOption,
    StoreUnavailable,
    TooMuchMissing,
    WorkerDied,
    WorkerLost,
    lacks_threads,
)
from asr.service.errors import Refused, ShuttingDown
from asr.workers.call import KILLS

Place = tuple[int, int]
"""The number of a channel and the index of one of its chunks."""


class Fault(enum.Enum):
    """Who is at fault."""

    RECORDING = "recording"
    CHUNK = "chunk"
    SERVER = "server"


_FAULTS: Final[tuple[tuple[type[Exception], Fault], ...]] = (
    # most specific first
    (AudioError, Fault.RECORDING),
    (TooMuchMissing, Fault.RECORDING),  # each missing chunk was tried again and again
    (InvalidOption, Fault.RECORDING),
    (ShuttingDown, Fault.SERVER),
    (Refused, Fault.RECORDING),
    (EngineUnavailable, Fault.SERVER),
    (StoreUnavailable, Fault.SERVER),
    (EngineError, Fault.CHUNK),  # no answer in time, or a refusal of this chunk
    (WorkerDied, Fault.CHUNK),
    (OSError, Fault.SERVER),  # what the decoders read is checked in `asr.audio`
    (MemoryError, Fault.SERVER),
    (EOFError, Fault.SERVER),  # a broken queue between two processes
    (Exception, Fault.CHUNK),  # a bug, which the recording may trigger
)

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
SCARCE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOBUFS)


def fault_of(error: Exception) -> Fault:
    """Return who is at fault."""
    if errno_of(error) is not None or _is_killed_decoder(error):
        return Fault.SERVER
    return next(fault for kind, fault in _FAULTS if isinstance(error, kind))


def errno_of(error: Exception) -> int | None:
    """The errno of an OSError in this process or in a helper process. A lack of memory has one."""
    match error:
        case MemoryError():
            return errno.ENOMEM
        case OSError() | WorkerDied():
            return error.errno
        case _ if lacks_threads(error):
            return errno.EAGAIN
    return None


def chunk_of(error: Exception) -> int | None:
    """The index of the chunk that failed, or None if that is unknown."""
    found: int | None = getattr(error, "chunk_index", None)
    return found


def place_of(error: Exception) -> Place | None:
    """The channel and the index of the chunk that failed, or None if that is unknown."""
    index = chunk_of(error)
    return None if index is None else (getattr(error, "channel", None) or 0, index)


def explain(number: int) -> tuple[str, str, int]:
    """Message, code and seconds to wait for a client whose request failed with this errno."""
    if number in FULL:
        return "the server's disk is full", "disk_full", 30
    if number in SCARCE:
        return "the server lacks memory, descriptors or threads", "out_of_resources", 10
    return "the server's storage failed", "storage_failed", 10


def _is_killed_decoder(error: Exception) -> bool:
    """Whether somebody killed the decoder. Its own limits end it with other errors."""
    return (
        isinstance(error, WorkerDied)
        and not isinstance(error, WorkerLost)
        and error.signal in KILLS
        and error.chunk_index is None
    )
