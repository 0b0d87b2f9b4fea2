"""The client's WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocketDisconnect

from asr.service.http.sockets import PROCESSED

if TYPE_CHECKING:
    from starlette.websockets import WebSocket


class ClientSocket:
    """Sends and receives events. Raises `ConnectionError` when the client has left."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def processed(self) -> None:
        """Tell that the last message needs no more memory. The next `receive` tells it, too."""
        extension = self._websocket.scope.get("extensions", {}).get(PROCESSED)
        if extension is not None:
            extension["call"]()

    async def receive(self) -> str:
        """The next message as text."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionResetError("the client left")
        text: str | None = message.get("text")
        return message["bytes"].decode("utf-8", "replace") if text is None else text

    async def send(self, body: dict[str, Any]) -> None:
        """Send one event."""
        try:
            await self._websocket.send_text(json.dumps(body, ensure_ascii=False))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError("the client left") from error
