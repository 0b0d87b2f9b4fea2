"""Reasons to refuse a request, as errors without HTTP.

Stores, limits and queues raise them. `asr.service.http.problems` maps each class to a status.

    Refused
      Malformed         the message cannot be read
      NotFound          the resource does not exist, or belongs to another API key
      Expired           the resource existed; it has ended or was removed
      Conflict          the state of the resource does not allow the request
      Locked            another request uses the resource; may be retried
      TooLarge          more bytes than allowed
      Damaged           the bytes differ from their checksum
      KeyReused         the Idempotency-Key was used for a different request
      LimitReached      a limit of the API key, or the queue is full; may be retried later
      ShuttingDown      the service is ending; may be retried elsewhere
      GivenUp           the service accepted the work and cannot finish it
"""

from __future__ import annotations

from asr.errors import AsrError


class Refused(AsrError):
    """A request that is not carried out. The message is one sentence for people.

    Attributes:
        code: the reason for programs, as in OpenAI's error object.
        param: the field or header that caused it, or None.
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
    """The resource does not exist, or it belongs to another API key."""


class Expired(Refused):
    """The resource existed; it has ended or was removed."""


class Conflict(Refused):
    """The state of the resource does not allow the request."""


class Locked(Refused):
    """Another request uses the resource."""


class TooLarge(Refused):
    """More bytes than allowed."""


class Damaged(Refused):
    """The bytes differ from their checksum."""


class KeyReused(Refused):
    """The Idempotency-Key was used for a different request."""


class LimitReached(Refused):
    """A limit of the API key is reached, or the queue is full."""


class ShuttingDown(Refused):
    """The service is ending and takes no more work."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down", "shutting_down", retry_after=5)


class GivenUp(Refused):
    """The service accepted the work and cannot finish it."""
