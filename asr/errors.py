"""Every error that this project raises on purpose.

Each class is one kind of failure. Its message is one sentence, and its attributes hold the facts.
Callers usually catch the base classes. `asr.service.http.problems` maps the classes to HTTP
statuses, `asr.cli` maps them to exit codes.

    AsrError
      AudioError
        UnsupportedAudio     format, sample rate or channel count is not accepted
        DamagedAudio         decoding began and then failed
        EmptyAudio           there are no samples
        AudioIncomplete      the rest of an upload will never arrive
        AudioTooLong         more seconds, bytes or CPU time than allowed
      EngineError
        EngineUnavailable    not configured, still loading or unreachable; retry later
          SpeakersUnavailable  the speaker model is missing or does not load
        EngineTimeout        no answer within the deadline; retry later
        EngineFailed         the engine failed on a chunk
      TooMuchMissing         more than half of the recording could not be transcribed
      InvalidOption          a setting or request field with a wrong value
      StoreUnavailable       the database of jobs is unreachable or full; retry later
        StoreTooNew          a newer version of this service made its tables
      WorkerDied             a helper process ended without an answer
        WorkerLost           the worker process of the service died or is silent; retry later
"""

from __future__ import annotations

import re
from typing import Any, Final


class AsrError(Exception):
    """Base of all errors that this package raises on purpose.

    They pass between processes, so they can be rebuilt from a message and attributes.

    Attributes:
        chunk_index: index of the chunk whose work failed, or None if unknown.
        channel: number of the channel of that chunk, or None if unknown.
    """

    chunk_index: int | None = None
    channel: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self).__name__, str(self), vars(self))


def rebuild(kind: str, message: str, facts: dict[str, Any]) -> AsrError:
    """Rebuild an error from the name of its class, which must be in this module.

    Another name becomes `WorkerDied`, so that no process can make us create other objects.
    """
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
    """An upload was transcribed while it arrived, and the rest will never arrive."""


class AudioTooLong(AudioError):
    """The recording exceeds a limit of seconds, bytes, memory or CPU time."""


class EngineError(AsrError):
    """The recogniser failed."""


class EngineUnavailable(EngineError):
    """The engine is not configured, is loading, or cannot be reached."""


class SpeakersUnavailable(EngineUnavailable):
    """The speaker model is missing or does not load. The text does not need it."""


class EngineTimeout(EngineError):
    """The engine did not answer within the deadline of the chunk."""


class EngineFailed(EngineError):
    """The engine failed on a chunk."""

    def __init__(self, message: str, chunk_index: int | None = None) -> None:
        super().__init__(message)
        self.chunk_index = chunk_index


class TooMuchMissing(AsrError):
    """More than half of the recording could not be transcribed.

    Attributes:
        is_damaged: most of it is missing because the recording is damaged.
    """

    is_damaged: bool = False

    def __init__(self, message: str, *, is_damaged: bool = False) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged


class InvalidOption(AsrError):
    """A setting or a request field has a wrong value.

    Attributes:
        name: the setting or field, as the user wrote it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class StoreUnavailable(AsrError):
    """The database of jobs cannot be reached, is full or is damaged.

    Attributes:
        summary: the kind of trouble, without names of hosts or files. Anyone may see it.
        advice: what an administrator can do; empty if unknown.
    """

    # Defaults of the class: a rebuilt error may lack any of them.
    summary: str = "the database of jobs cannot be used now"
    advice: str = ""

    def __init__(self, message: str, summary: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.summary = summary or self.summary
        self.advice = advice


class StoreTooNew(StoreUnavailable):
    """A newer version of this service made the tables of jobs."""


class WorkerDied(AsrError):
    """A helper process ended without an answer.

    Attributes:
        signal: number of the signal that ended it, or None if it exited.
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


class WorkerLost(WorkerDied):
    """The worker process of the service died, or it does not answer."""


def lacks_threads(error: Exception) -> bool:
    """Whether the system refused a thread. Python raises a plain RuntimeError then."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


_PLACES: Final = re.compile(
    r"""\w+://[^\s,;'")]+ | \[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](:\d+)?     # URLs, IPv6
    | \b\d{1,3}(\.\d{1,3}){3}\b(:\d+)? | \b[\w-]*[a-zA-Z][\w.-]*:\d{2,5}\b  # IPv4, host:port
    | (?<=name\ )"[^"]+" | (?<=at\ )"[^"]+"                            # as Postgres names hosts
    | (?<![\w/.])(/[\w.@+-]+){2,}/?""",  # paths
    re.VERBOSE,
)


def without_places(message: str) -> str:
    """The message without addresses of servers and paths of files, for clients of the service."""
    return _PLACES.sub("(see the log)", message)
