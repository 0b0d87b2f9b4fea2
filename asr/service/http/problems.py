"""Errors as HTTP answers: the only table from errors to statuses.

The body has OpenAI's shape:

    {"error": {"message", "type", "param", "code"}}

OpenAI's clients retry 408, 409, 429 and 5xx unless ``x-should-retry`` is false. It is false when a
retry would fail in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from asr.errors import (
    AsrError,
    AudioError,
    AudioIncomplete,
    AudioTooLong,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    InvalidOption,
    StoreUnavailable,
    TooMuchMissing,
    UnsupportedAudio,
    WorkerDied,
    without_places,
)
from asr.service import errors
from asr.service.faults import errno_of, explain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

MAX_RETRY_SECONDS = 120
"""OpenAI's clients wait at most this long. An answer with a longer wait tells them not to retry."""


@dataclass(eq=False)  # not frozen: contextlib sets __traceback__
class Problem(Exception):
    """An HTTP answer that reports an error. Only code that knows HTTP raises it.

    Attributes:
        status: the HTTP status.
        message: one sentence for people.
        code: the reason, for programs.
        param: the field that caused it, or None.
        retry_after: seconds after which the same request may succeed, or None if it cannot.
        headers: further headers, such as Allow with status 405.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kinds = {
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            429: "rate_limit_error",
        }
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": kinds.get(self.status, default),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> Response:
        """The HTTP answer."""
        soon = self.retry_after is not None and self.retry_after <= MAX_RETRY_SECONDS
        retry = "true" if soon else "false"
        headers = {**self.headers, "x-should-retry": retry}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


_ERRORS: list[tuple[type[Exception], int, str, str | None, int | None]] = [
    # most specific first: error, status, code, param, retry after
    (UnsupportedAudio, 400, "unsupported_audio", "file", None),  # as OpenAI answers
    (AudioTooLong, 413, "audio_too_long", "file", None),
    (AudioIncomplete, 410, "upload_ended", "upload_id", None),
    (AudioError, 400, "invalid_audio", "file", None),
    (TooMuchMissing, 500, "too_much_missing", None, None),
    (EngineTimeout, 504, "engine_timeout", None, None),
    (EngineUnavailable, 503, "engine_unavailable", None, 5),
    (EngineError, 500, "engine_failed", None, None),
    (StoreUnavailable, 503, "database_unavailable", None, 5),
    (WorkerDied, 503, "worker_died", None, 2),
    (AsrError, 500, "internal_error", None, None),
]
_REFUSALS: dict[type[errors.Refused], int] = {
    errors.Malformed: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Expired: 410,
    errors.TooLarge: 413,
    errors.KeyReused: 422,
    errors.Locked: 423,
    errors.LimitReached: 429,
    errors.Damaged: 460,
    errors.GivenUp: 500,
    errors.ShuttingDown: 503,
}


NO_ID: Final = "must be an id that the service answered with: 32 digits and letters a to f"


def problem_of(error: Exception) -> Problem:
    """The answer to an error. The message of an unexpected error is hidden from the client.

    The messages of the server's own failures name no address and no path.
    """
    match error:
        case Problem():
            return error
        case InvalidOption(name=name):
            return _invalid(name, str(error))
        case RequestValidationError():
            first = error.errors()[0]
            is_id = first["type"] == "string_pattern_mismatch"  # nothing else has a pattern
            return _invalid(str(first["loc"][-1]), NO_ID if is_id else first["msg"])
        case HTTPException(status_code=status, detail=detail, headers=headers):
            known = _no_route(status, headers or {}) if detail == HTTPStatus(status).phrase else ""
            return Problem(status, known or str(detail), "http_error", headers=headers or {})
    return _look_up(error)


def _no_route(status: int, headers: Mapping[str, str]) -> str:
    """What to tell a client whose path or method no route has; empty for other errors.

    A base URL without ``/v1`` is the usual mistake.
    """
    if status == HTTPStatus.NOT_FOUND:
        return "there is no such route; most begin with /v1, and /docs lists all"
    if status == HTTPStatus.METHOD_NOT_ALLOWED and "Allow" in headers:
        return f"this route accepts {headers['Allow']}"
    return ""


def _invalid(name: str, message: str) -> Problem:
    return Problem(400, f"{name}: {message}", "invalid_value", name)


def _look_up(error: Exception) -> Problem:
    if isinstance(error, errors.Refused):
        status = _REFUSALS[type(error)]
        return Problem(status, str(error), error.code, error.param, error.retry_after)
    if (failure := errno_of(error)) is not None:
        message, code, wait = explain(failure)
        return Problem(503, message, code, None, wait)
    found = next((row for row in _ERRORS if isinstance(error, row[0])), None)
    if found is None:
        return Problem(500, "the server failed on this request", "internal_error")
    _, status, code, param, retry_after = found
    if isinstance(error, TooMuchMissing) and error.is_damaged:
        status, param = 400, "file"
    message = str(error) if status < 500 else without_places(str(error))
    return Problem(status, message, code, param, retry_after)
