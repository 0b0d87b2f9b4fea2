"""uvicorn's connections with limits for slow clients.

The head of a request is its first line and its headers. uvicorn waits for ever in three cases: for
the head of a request, for the rest of a body after it has sent the answer, and for a client that
does not read its answer. httptools keeps a head of any length in memory.

Only a client with an API key can cause the third wait. Any client can cause the other two,
and can fill the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from asr.service.http.capacity import REFUSAL, make_room

if TYPE_CHECKING:
    import asyncio

HEAD_SECONDS: Final = 30.0
HEAD_BYTES: Final = 64 << 10
STALL_SECONDS: Final = 60.0
"""If data waits for a client, and the client reads none of it for this time, the client counts as
dead. A dead client may be using up one of the limited places for open requests."""

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _Stall:
    """Aborts a connection whose client does not read, while data waits for the client.

    Args:
        transport: the connection. It is aborted, because closing it would wait for the client.
        loop: the event loop of the transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._watch()

    def _watch(self) -> None:
        self._n_unread = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(STALL_SECONDS, self._check)

    def _check(self) -> None:
        if self._transport.get_write_buffer_size() < self._n_unread:
            self._watch()
        else:
            self._transport.abort()

    def end(self) -> None:
        """Stop watching, because the client has read or has left."""
        self._timer.cancel()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits on the time and the length of a head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_idle_bytes = 0
        self._stall: _Stall | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first head."""
        super().connection_made(transport)
        self._expect_head()
        if not make_room(self.connections - {self}):
            transport.write(REFUSAL)
            transport.close()

    @property
    def idle_deadline(self) -> float | None:
        """When the time limit for a head ends, or None while a request is received or answered."""
        if self._timer is None or self._is_answering():
            return None
        return self._timer.when()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Close the connection if more than `HEAD_BYTES` follow the last head or body piece."""
        self._n_idle_bytes += len(data)
        super().data_received(data)
        if self._n_idle_bytes > HEAD_BYTES and not self.transport.is_closing():
            if not self._is_answering():
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Start the time limit for a head."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Stop the time limit: the head is complete."""
        self._stop_timer()
        self._n_idle_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Reset the byte limit: the bytes belonged to a body."""
        self._n_idle_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Start the time limit for the next head, and for the rest of this body if any."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._expect_head()

    def pause_writing(self) -> None:
        """Start watching the client: it reads more slowly than we send."""
        super().pause_writing()
        self._stall = _Stall(self.transport, self.loop)

    def resume_writing(self) -> None:
        """Stop watching: the client has read most of the data."""
        if self._stall is not None:
            self._stall.end()
        super().resume_writing()

    def _is_answering(self) -> bool:
        # `cycle` is None before the first request.
        return not getattr(self.cycle, "response_complete", True)

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_answering():  # the previous request is still being answered
            self._expect_head()
        else:
            self.transport.close()


class LiveConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket. It reads nothing from a client while the client reads nothing."""

    _stall: _Stall | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop reading, because each ping from the client would add a pong to the unsent data."""
        super().pause_writing()
        self._stall = _Stall(self.transport, self.loop)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Stop watching: the client has read most of the data."""
        if self._stall is not None:
            self._stall.end()
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
