"""The path under which a proxy publishes the service.

The proxy may remove its prefix from the path of a request, or leave it there. Afterwards the scope
is the same in both cases, as ASGI defines it: ``root_path`` is the prefix, and ``path`` begins with
it. So redirects, the pages of the documentation and `public_path` lead back through the proxy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.routing import Match
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from asr.settings import is_prefix

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Send

    Scope = MutableMapping[str, Any]

TRUSTED_VARIABLE: Final = "FORWARDED_ALLOW_IPS"
"""uvicorn's variable with the addresses of trusted proxies, separated by commas, or ``*``."""


def route_path(scope: Scope) -> str:
    """The path of a request without the prefix of the proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def public_path(connection: HTTPConnection, path: str) -> str:
    """The path under which a client of the proxy finds our `path`."""
    return f"{connection.scope.get('root_path', '')}{path}"


class Proxies:
    """Applies the headers of trusted proxies: X-Forwarded-Prefix, -For and -Proto.

    uvicorn's own middleware handles the last two. It replaces the address of the client, by which
    we know a trusted proxy, so it is called from here and not by uvicorn.

    Args:
        app: the application.
        prefix: where the service is published if the proxy does not say so, such as ``/speech``.
        trusted: addresses of trusted proxies; by default those that uvicorn trusts.
    """

    def __init__(self, app: ASGIApp, prefix: str = "", trusted: str | None = None) -> None:
        if trusted is None:
            trusted = os.environ.get(TRUSTED_VARIABLE, "127.0.0.1")
        self._app: Any = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type]
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the prefix of one request, and pass it on."""
        if scope["type"] != "lifespan":
            prefix = self._forwarded(scope) or self._prefix
            scope["path"] = prefix + _own_path(scope, prefix)
            scope["root_path"] = prefix
        await self._app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> str:
        """The prefix that trusted proxies sent, or "". Each proxy may have added its own."""
        client = scope.get("client")
        if (client[0] if client else None) not in self._app.trusted_hosts:
            return ""
        values = ",".join(Headers(scope=scope).getlist("x-forwarded-prefix")).split(",")
        prefix = "".join("/" + value.strip().strip("/") for value in values if value.strip(" /"))
        return prefix if is_prefix(prefix) else ""


def _own_path(scope: Scope, prefix: str) -> str:
    """The path of a request without the prefix, which the proxy may have removed already."""
    path: str = scope["path"]
    rest = path.removeprefix(prefix)
    if rest == path or not rest.startswith("/"):
        return path
    # A prefix such as /v1 may also begin one of our own paths.
    return path if _has_route(scope, path) and not _has_route(scope, rest) else rest


def _has_route(scope: Scope, path: str) -> bool:
    asked = {**scope, "path": path, "root_path": ""}
    return any(route.matches(asked)[0] is not Match.NONE for route in scope["app"].router.routes)
