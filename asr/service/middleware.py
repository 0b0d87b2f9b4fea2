"""What every request passes: a request id and a line in the log, and the key.

Plain ASGI, because Starlette's BaseHTTPMiddleware hides the client's disconnect from the route.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
import uuid
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request

from asr.service.intake import drain
from asr.service.problems import Problem, problem_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/health", "/ready"})
"""Probes of orchestrators carry no key, and learn nothing here."""

NOT_SENT: Final = 499
"""What the log says of a request whose client left before it was answered (nginx's number)."""


def owner_of(request: Request) -> str:
    """The name of the key that came with the request; "" where there are no keys."""
    return str(request.scope.get("state", {}).get("owner", ""))


class RequestLog:
    """Names each request in ``x-request-id``, and logs method, path, status and seconds.

    Neither the query nor any header is logged: a prompt may be in them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, named."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), NOT_SENT

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as error:  # nothing above this would answer
            logger.exception("request %s failed", request_id)
            if status == NOT_SENT:
                await problem_of(error).response()(scope, receive, send_named)
        finally:
            level = logging.DEBUG if scope["path"] in OPEN_PATHS else logging.INFO
            seconds = time.perf_counter() - started
            line = (scope["method"], scope["path"], status, seconds, request_id)
            logger.log(level, "%s %s %d %.3f s %s", *line)


class KeyCheck:
    """Asks every HTTP request and WebSocket for the key, but for the probes.

    Taken as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. The comparison takes the same
    time for every wrong key.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or self._allows(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "invalid API key"})
            return
        try:
            await drain(Request(scope, receive))
        except ClientDisconnect:
            return
        message = "Incorrect or missing API key: send Authorization: Bearer KEY or X-API-Key: KEY"
        response = Problem(401, message, "invalid_api_key").response()
        await response(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        # Either will do, since OpenAI's client sends a bearer whatever else it is told to send.
        # Latin-1 gives back the bytes that were sent, which for a key like "sésame" are UTF-8.
        given = [key.encode("latin-1") for key in (bearer, headers.get("x-api-key", ""))]
        return any(hmac.compare_digest(_digest(key), self._digest) for key in given)


def _digest(key: bytes) -> bytes:
    # Of equal length whatever the keys are, as a comparison in constant time demands.
    return hashlib.sha256(key).digest()
