"""Connections that end when their client is too slow to be one.

uvicorn waits for ever for a head, for the rest of a body that was answered before it came, and for
a client to read; httptools keeps a head of any length in memory. All but the reading would be open
to whoever reaches the port, before any key is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    import asyncio

HEAD_SECONDS: Final = 30.0
HEAD_BYTES: Final = 64 << 10
STALL_SECONDS: Final = 60.0
"""A client that reads nothing of what waits for it in so long is dead, and may hold a place."""

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class _Stall:
    """Watches whether the client reads, while it has something to read.

    Args:
        transport: aborted when it does not; closing alone would wait for it.
        loop: of the transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._watch()

    def _watch(self) -> None:
        self._n_unread = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(STALL_SECONDS, self._look)

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._n_unread:
            self._watch()
        else:
            self._transport.abort()

    def end(self) -> None:
        """It has read."""
        self._timer.cancel()


class Connection(HttpToolsProtocol):
    """uvicorn's, with a limit on what is neither a whole head nor the body of a request in work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_idle_bytes = 0
        self._stall: _Stall | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        self._stop_timer()
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what brings neither the end of a head nor a piece of a body."""
        self._n_idle_bytes += len(data)
        super().data_received(data)
        if self._n_idle_bytes > HEAD_BYTES and not self.transport.is_closing():
            if not self._is_answering():
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head has begun."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """A head has come."""
        self._stop_timer()
        self._n_idle_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._n_idle_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Expect another head, also if the rest of an unwanted body comes first."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._expect_head()

    def pause_writing(self) -> None:
        """More is to be sent than the client has read."""
        super().pause_writing()
        self._stall = _Stall(self.transport, self.loop)

    def resume_writing(self) -> None:
        """It has read most of it."""
        if self._stall is not None:
            self._stall.end()
        super().resume_writing()

    def _is_answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)  # there is none at first

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_answering():  # a request before it, on the same connection
            self._expect_head()
        else:
            self.transport.close()


class LiveConnection(WebSocketsSansIOProtocol):
    """uvicorn's, read no further while its client does not read."""

    _stall: _Stall | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        if self._stall is not None:
            self._stall.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More is to be sent than the client has read. Each ping it sends would add a pong."""
        super().pause_writing()
        self._stall = _Stall(self.transport, self.loop)
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has read most of it."""
        if self._stall is not None:
            self._stall.end()
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
