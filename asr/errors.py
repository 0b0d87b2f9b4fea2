"""Every error this project raises on purpose.

Each class stands for one failure, carries the facts as attributes and says one sentence. Catch
the base classes. The service maps them to HTTP in one table (``asr.service.http.problems``), the
command line to exit codes in another (``asr.cli``).

    AsrError
      AudioError
        UnsupportedAudio     not a format, rate or channel count that is accepted
        DamagedAudio         starts like audio and stops decoding
        EmptyAudio           no sample came out
        AudioIncomplete      the rest will never arrive
        AudioTooLong         more seconds, bytes or CPU time than allowed
      EngineError
        EngineUnavailable    not configured, still loading, or gone; may be retried
        EngineTimeout        no answer within its deadline; may be retried
        EngineFailed         the engine broke on this chunk
      InvalidOption          a setting or request field with a wrong value
      StoreUnavailable       the database of jobs is away or full; may be retried
        StoreTooNew          its tables were made by a newer version of this service
      WorkerDied             a helper process ended without an answer
"""

from __future__ import annotations

from typing import Any


class AsrError(Exception):
    """Base of all errors raised on purpose by this package.

    They travel between processes, so they are rebuilt from a message and attributes alone.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self).__name__, str(self), vars(self))


def rebuild(kind: str, message: str, facts: dict[str, Any]) -> AsrError:
    """An error of this module from its class's name; of no other, whoever sent it."""
    found = globals().get(kind)
    if not (isinstance(found, type) and issubclass(found, AsrError)):
        return WorkerDied(f"a helper process failed: {kind}: {message}")
    error = found.__new__(found)
    error.args = (message,)
    vars(error).update(facts)
    return error


class AudioError(AsrError):
    """The recording cannot be used."""


class UnsupportedAudio(AudioError):
    """The bytes are not audio in an accepted format, sample rate or channel count."""


class DamagedAudio(AudioError):
    """Decoding began and then failed.

    Attributes:
        seconds: audio seconds that were decoded before the damage.
    """

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class EmptyAudio(AudioError):
    """The recording holds no samples."""


class AudioIncomplete(AudioError):
    """The recording was transcribed while it arrived, and what is missing will never come."""


class AudioTooLong(AudioError):
    """The recording exceeds a limit of seconds, bytes, memory or CPU time."""


class EngineError(AsrError):
    """The recogniser failed."""


class EngineUnavailable(EngineError):
    """The engine is not configured, is loading, or cannot be reached."""


class EngineTimeout(EngineError):
    """The engine did not answer within the deadline of the chunk."""


class EngineFailed(EngineError):
    """The engine broke on a chunk.

    Attributes:
        chunk_index: which chunk, or None when it is not known.
    """

    def __init__(self, message: str, chunk_index: int | None = None) -> None:
        super().__init__(message)
        self.chunk_index = chunk_index


class InvalidOption(AsrError):
    """A setting or a request field has a wrong value.

    Attributes:
        name: the setting or field, as its user wrote it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class StoreUnavailable(AsrError):
    """The database of jobs cannot be reached, or cannot take more."""


class StoreTooNew(StoreUnavailable):
    """The tables of jobs are of a version that this service does not know."""


class WorkerDied(AsrError):
    """A helper process ended without an answer.

    Attributes:
        signal: the signal that ended it, or None when it exited by itself.
        errno: of the OSError that ended its work, or None when there was no such error.
        out_of_memory: its work ended with a MemoryError.
    """

    # Defaults of the class: an error that a child sends may lack any of them.
    signal: int | None = None
    errno: int | None = None
    out_of_memory: bool = False

    def __init__(
        self,
        message: str,
        signal: int | None = None,
        errno: int | None = None,
        *,
        out_of_memory: bool = False,
    ) -> None:
        super().__init__(message)
        self.signal = signal
        self.errno = errno
        self.out_of_memory = out_of_memory
