"""Before a server ends, proxies get time to send new requests to other servers.

`GET /ready` says 503 meanwhile, and every request is still answered. Each answer closes its
connection. Otherwise a proxy could send a request on an idle connection at the moment at which the
ending server closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Send

    Scope = MutableMapping[str, Any]


class Drain:
    """Whether the server is about to end."""

    def __init__(self) -> None:
        self.is_on = False


class ClosingConnections:
    """Closes the connection of each answer while the server drains."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.is_on:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_closing if scope["type"] == "http" else send)
