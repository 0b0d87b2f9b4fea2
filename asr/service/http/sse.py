"""Server-sent events: their text, and a response that sends them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from asr.service.http.disconnect import unless
from asr.service.http.head import wants_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from starlette.types import Receive, Scope, Send

    from asr.service.http.disconnect import Interruption

KEEP_ALIVE: Final = ": keep-alive\n\n"
"""A comment, which clients ignore."""
KEEP_ALIVE_SECONDS: Final = 15.0
"""A stream without an event for this time sends `KEEP_ALIVE`, so that proxies do not close it."""


def encode_event(
    data: dict[str, Any] | str, *, name: str | None = None, number: int | None = None
) -> str:
    """The text of one event.

    Args:
        data: an object to encode as JSON, or one line of text.
        name: the type of the event; by default the ``type`` in the object. Clients treat an event
            without a type as ``message``.
        number: the id, which a client that reconnects sends as ``Last-Event-ID``.
    """
    if name is None and isinstance(data, dict):
        name = data.get("type")
    body = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    head = "" if number is None else f"id: {number}\n"
    head += "" if name is None else f"event: {name}\n"
    return f"{head}data: {body}\n\n"


class EventStream(StreamingResponse):
    """A response with server-sent events, until they end or the client leaves.

    Args:
        events: encoded events.
        resources: freed at the end, even if the response never begins.
        interruption: waits for the client to leave; nothing else may receive from the client.
    """

    def __init__(
        self, events: AsyncIterator[str], resources: AsyncExitStack, interruption: Interruption
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._resources = resources
        self._interruption = interruption

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events."""
        async with self._resources:
            if wants_head(scope):
                head = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **head})
                await send({"type": "http.response.body", "body": b""})
                return
            with contextlib.suppress(ClientDisconnect):
                await unless(self.stream_response(send), self._interruption)
