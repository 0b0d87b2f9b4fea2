"""HEAD: the headers of a GET without its body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import MutableHeaders

from asr.service.http.proxy import route_path

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Send

    Scope = MutableMapping[str, Any]

OWN_HEAD: Final = "/v1/uploads/"
"""tus defines another HEAD for these paths."""
_FLAG: Final = "wants_head"


def wants_head(scope: Scope) -> bool:
    """Whether only the headers are wanted. An endless answer must then not begin."""
    return bool(scope.get(_FLAG))


class HeadAsGet:
    """Answers HEAD like GET wherever GET works, without the body.

    The server, which knows the real method, sends no body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] != "HEAD" or route_path(scope).startswith(OWN_HEAD):
            await self._app(scope, receive, _allowing_head(send))
            return
        got = {**scope, "method": "GET", _FLAG: True}
        try:
            await self._app(got, receive, _without_body(send))
        finally:
            scope["route"] = got.get("route")


def _allowing_head(send: Send) -> Send:
    async def send_allowing(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 405:
            headers = MutableHeaders(scope=message)
            allowed = [name.strip() for name in headers.get("allow", "").split(",")]
            if "GET" in allowed and "HEAD" not in allowed:
                headers["allow"] = ", ".join([*allowed, "HEAD"])
        await send(message)

    return send_allowing


def _without_body(send: Send) -> Send:
    async def send_empty(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_empty
