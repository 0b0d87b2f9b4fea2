"""Why the service refuses a request, as errors without HTTP.

Stores, limits and queues raise these; `asr.service.http.problems` maps each class to a status.

    Refused
      Malformed         the message cannot be read
      NotFound          no such thing, or none of this owner
      Expired           it existed
      Conflict          its state does not allow this
      Locked            another request works on it; may be retried
      TooLarge          more bytes than allowed
      Damaged           the bytes differ from their checksum
      KeyReused         an Idempotency-Key came with another request before
      LimitReached      a limit of the key, or the queue is full; may be retried later
      ShuttingDown      the service ends; may be retried elsewhere
      GivenUp           the service accepted the work and cannot finish it
"""

from __future__ import annotations

from asr.errors import AsrError


class Refused(AsrError):
    """A request that is not carried out. The message is one sentence for the reader.

    Attributes:
        code: for programs, as in OpenAI's error object.
        param: the field or header to blame, or None.
        retry_after: seconds after which the same request may succeed, or None.
    """

    def __init__(
        self,
        message: str,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.retry_after = retry_after


class Malformed(Refused):
    """The message cannot be read. For one bad field raise `asr.errors.InvalidOption`."""


class NotFound(Refused):
    """There is no such thing, or none that belongs to this owner."""


class Expired(Refused):
    """It existed and is gone."""


class Conflict(Refused):
    """Its state does not allow this."""


class Locked(Refused):
    """Another request works on it."""


class TooLarge(Refused):
    """More bytes than allowed."""


class Damaged(Refused):
    """The bytes differ from their checksum."""


class KeyReused(Refused):
    """An Idempotency-Key came with another request before."""


class LimitReached(Refused):
    """A limit of the key is reached, or the queue is full."""


class ShuttingDown(Refused):
    """The service ends and takes no more work."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down", "shutting_down", retry_after=5)


class GivenUp(Refused):
    """The service accepted the work and cannot finish it."""
