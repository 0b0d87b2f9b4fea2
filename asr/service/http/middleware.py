"""Middleware: a request id and a log line for each request, and the check of API keys.

It is plain ASGI, because Starlette's BaseHTTPMiddleware hides a client's disconnect from the route.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from asr import tracing
from asr.service.access.keys import ANONYMOUS
from asr.service.errors import Expired, LimitReached
from asr.service.http.body import drain
from asr.service.http.fields import check_query
from asr.service.http.problems import Problem, problem_of
from asr.service.http.proxy import route_path
from asr.service.observability.logs import is_well_formed, request_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, MutableMapping

    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Send

    from asr.service.access.client_secrets import ClientSecrets
    from asr.service.access.keys import Key, Keyring, Scope
    from asr.service.access.limits import Meter, Meters
    from asr.service.access.media_tokens import MediaTokens
    from asr.service.observability.metrics import ApiMetrics

    Scope_ = MutableMapping[str, Any]  # of ASGI

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/health", "/ready"})
"""Probes of orchestrators send no key. These paths reveal nothing."""
PAGE_PATH: Final = "/"
PAGE_FILES: Final = "/page/"
"""The web page and the paths of its files. Browsers load them without a key."""
_MEDIA: Final = re.compile(r"/v1/jobs/([0-9a-f]{32})/(?:audio|spectrogram\.png)")
"""What a media token in the query opens."""

SAFE: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer that has no own ones. No browser takes text of clients for a page."""

NOT_SENT: Final = 499
"""The status in the log if the client left before the answer; nginx uses the same number."""


def owner_of(connection: HTTPConnection) -> str:
    """The name of the API key of a request; "" in a service without keys."""
    return str(connection.scope.get("state", {}).get("owner", ANONYMOUS))


def origin_of(connection: HTTPConnection) -> dict[str, Any]:
    """The owner, id and trace of a request, as fields of `Transcribe`."""
    state = connection.scope.get("state", {})
    return {
        "owner": owner_of(connection),
        "weight": state.get("weight", 1.0),
        "request_id": state.get("request_id", ""),
        "trace": tracing.carrier(),
    }


class RequestLog:
    """Gives each request an id, writes one log line about it, and counts it.

    The id is sent back as ``x-request-id``. A client can choose it by sending that header. The
    query and the headers are not logged, because they can contain a prompt.
    """

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        request_id.set(exchange.id)
        self._metrics.began()
        try:
            await self._traced(exchange)
        except (ClientDisconnect, WebSocketDisconnect, ClientDisconnected):
            pass  # the line below says so
        except Exception as error:  # the application has no handler for it
            logger.exception("request %s failed", exchange.id)
            if exchange.status == NOT_SENT:
                await problem_of(error).response()(scope, receive, exchange.send)
        finally:
            self._note(exchange)

    async def _traced(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        if route_path(scope) in OPEN_PATHS:
            await self._app(scope, exchange.receive, exchange.send)
            return
        with tracing.within(Headers(scope=scope)), tracing.span("request") as span:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                if span is not None:
                    span.set_attribute("http.route", exchange.route)
                    span.set_attribute("http.response.status_code", exchange.status)
                    span.set_attribute("request.id", exchange.id)

    def _note(self, exchange: _Exchange) -> None:
        scope, seconds = exchange.scope, time.perf_counter() - exchange.started
        method, owner = scope.get("method", "WEBSOCKET"), scope["state"].get("owner", ANONYMOUS)
        known = method if method in METHODS else "other"
        labels = (known, exchange.route, str(exchange.status), owner)
        self._metrics.ended(labels, seconds, exchange.n_bytes)
        level = logging.DEBUG if route_path(scope) in OPEN_PATHS else logging.INFO
        # The paths of stored voices hold names of people.
        is_personal = route_path(scope).startswith("/v1/speakers/")
        values = (
            method,
            exchange.route if is_personal else scope["path"],
            exchange.status,
            seconds,
            exchange.id,
        )
        names = ("method", "path", "status", "seconds", "request_id")
        fields = dict(zip(names, values, strict=True)) | {"key": owner or None}
        logger.log(level, "%s %s %d %.3f s %s", *values, extra={"fields": fields})


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.status = NOT_SENT
        self.n_bytes = 0
        self.started = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        self.id = given if is_well_formed(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.id
        self._receive = receive
        self._send = send

    @property
    def route(self) -> str:
        """The template of the path. The paths themselves are too many for a metric's label."""
        return getattr(self.scope.get("route"), "path", "other")

    async def receive(self) -> Message:
        message = await self._receive()
        self.n_bytes += len(message.get("body") or message.get("text") or b"")
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            for name, value in SAFE.items():
                headers.setdefault(name, value)
        elif kind == "websocket.accept":
            self.status = SWITCHING_PROTOCOLS
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self._send(message)


SWITCHING_PROTOCOLS: Final = 101
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"}
)
_SCOPES: Final[tuple[tuple[str, Scope], ...]] = (
    ("/v1/audio/", "transcribe"),
    ("/v1/align", "transcribe"),
    ("/asr", "transcribe"),
    ("/detect-language", "transcribe"),
    ("/inference", "transcribe"),
    ("/v1/jobs", "jobs"),
    ("/v1/speakers", "transcribe"),
    ("/v1/uploads", "uploads"),
    ("/v1/realtime", "realtime"),
    ("/metrics", "metrics"),
)
PROTOCOL_PREFIX: Final = "openai-insecure-api-key."
"""A browser cannot set headers on a WebSocket, so OpenAI takes the key as a subprotocol."""
MAX_OFFERED: Final = 4
"""Keys in one handshake. Each is compared with every valid key, and the client may have none."""


class QueryCheck:
    """Refuses requests and WebSockets with too many fields in the query, before they are parsed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        try:
            check_query(scope.get("query_string", b""))
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)


class RelativeRedirects:
    """Makes redirects relative: Starlette takes their host from the client's Host header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Pass one request on, and change the Location of its answer."""

        async def send_relative(message: Message) -> None:
            if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                headers = MutableHeaders(scope=message)
                if "location" in headers:
                    parts = urlsplit(headers["location"])
                    # Two slashes would begin with a host again.
                    path = "/" + parts.path.lstrip("/")
                    headers["location"] = urlunsplit(("", "", path, parts.query, ""))
            await send(message)

        await self._app(scope, receive, send_relative)


class KeyCheck:
    """Refuses requests and WebSockets without a valid API key, or beyond its scopes and limits.

    Probes need no key. In a service without keys, no request needs one.

    The key comes as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``, or on a WebSocket as the
    subprotocol ``openai-insecure-api-key.KEY``. The query is not read, since it
    ends up in logs.
    An ephemeral key opens live sessions only, and counts as the key of its owner.
    A media token in the query opens the recording of one job, and counts likewise.
    The name, the weight and the meter of the key go into the state of the request.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keyring,
        meters: Meters,
        secrets: ClientSecrets | None = None,
        tokens: MediaTokens | None = None,
    ) -> None:
        self._app = app
        self._keys = keys
        self._meters = meters
        self._secrets = secrets
        self._tokens = tokens

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] == "lifespan" or _is_open(route_path(scope)) or not self._keys:
            await self._app(scope, receive, send)
            return
        try:
            meter = self._meter(scope)
            async with self._place(scope, meter):
                await self._app(scope, meter.counting(receive), send)
        except _Refused as refused:
            await _refuse(refused.problem, scope, receive, send)

    def _meter(self, scope: Scope_) -> Meter:
        given = given_keys(scope)
        key = (
            self._keys.find(given)
            or self._owner_of_secret(scope, given)
            or self._owner_of_token(scope)
        )
        if key is None:
            message = "Incorrect or missing API key: send Authorization: Bearer KEY"
            raise _Refused(Problem(401, f"{message} or X-API-Key: KEY", "invalid_api_key"))
        path = route_path(scope)
        needed = next((name for start, name in _SCOPES if path.startswith(start)), None)
        if not key.may(needed):
            message = f"the key {key.name} lacks the scope {needed}"
            raise _Refused(Problem(403, message, "insufficient_scope"))
        meter = self._meters.of(key)
        scope.setdefault("state", {}).update(owner=key.name, weight=key.weight, meter=meter)
        return meter

    @contextlib.asynccontextmanager
    async def _place(self, scope: Scope_, meter: Meter) -> AsyncGenerator[None]:
        """During a POST or a live session, count one open request of the key.

        Raises:
            _Refused: a limit of the key is reached.
        """
        async with contextlib.AsyncExitStack() as stack:
            if scope["type"] == "websocket" or scope["method"] == "POST":
                try:
                    await stack.enter_async_context(self._meters.place(meter))
                except LimitReached as error:
                    raise _Refused(problem_of(error)) from error
            yield

    def _owner_of_secret(self, scope: Scope_, given: list[bytes]) -> Key | None:
        """The API key that asked for an ephemeral key among `given`, or None.

        Raises:
            _Refused: the ephemeral key has expired, or the request opens no live session.
        """
        try:
            grant = self._secrets and self._secrets.find(given)
        except Expired as error:
            raise _Refused(Problem(401, str(error), error.code)) from error
        if not grant:
            return None
        if scope["type"] != "websocket":
            message = "a client secret opens live sessions only; send an API key"
            raise _Refused(Problem(403, message, "insufficient_scope"))
        return self._keys.named(grant.owner)

    def _owner_of_token(self, scope: Scope_) -> Key | None:
        """The API key that asked for the media token in the query, or None.

        Raises:
            _Refused: the token has expired.
        """
        found = _MEDIA.fullmatch(route_path(scope))
        is_get = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if self._tokens is None or found is None or not is_get:
            return None
        token = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"))).get("token")
        try:
            owner = self._tokens.owner_of(token, found[1]) if token else None
        except Expired as error:
            raise _Refused(Problem(401, str(error), error.code)) from error
        return None if owner is None else self._keys.named(owner)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path == PAGE_PATH or path.startswith(PAGE_FILES)


class _Refused(Exception):
    """Raised by the key check only, so that it does not catch the errors of routes."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


async def _refuse(problem: Problem, scope: Scope_, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        try:
            await drain(Request(scope, receive))
        except ClientDisconnect:
            return
    elif "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return
    await problem.response()(scope, receive, send)


def given_keys(scope: Scope_) -> list[bytes]:
    """All keys in a request."""
    headers = Headers(scope=scope)
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    # OpenAI's client always sends a bearer token, even if the valid key is in another header.
    given = [bearer, headers.get("x-api-key", "")]
    offered = [name for name in scope.get("subprotocols", ()) if name.startswith(PROTOCOL_PREFIX)]
    given += [name.removeprefix(PROTOCOL_PREFIX) for name in offered[:MAX_OFFERED]]
    # Latin-1 restores the bytes as sent, which are UTF-8 for a key like "sésame".
    return [key.encode("latin-1", "replace") for key in given if key]
