"""HTTP connections that end when the head of a request is too slow or too long.

uvicorn waits for ever for a head, and httptools keeps one of any length in memory. Both would be
open to whoever reaches the port, before any key is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

HEAD_SECONDS: Final = 30.0
HEAD_BYTES: Final = 64 << 10

_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Connection(HttpToolsProtocol):
    """uvicorn's, with a limit on what is neither a whole head nor a body."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_idle_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing."""
        self._stop_timer()
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
