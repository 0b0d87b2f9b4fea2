"""uvicorn's HTTP connections, with a limit on the time and the size of each phase.

docs/security.md has the table of phases. Without these limits uvicorn waits for ever for the head
of a request, for the rest of a body after it has sent the answer, and for a client that does not
read its answer. It keeps a head of any length in memory, and parses at once whatever it receives,
so thousands of pipelined requests stop all other clients.

The head of a request is its first line and its headers. `asr.service.http.sockets` has the
connections of WebSockets.
"""

from __future__ import annotations

import fcntl
import json
import struct
import termios
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from asr.service.http.capacity import REFUSAL, make_room
from asr.service.http.problems import Problem
from asr.service.http.slices import slices_of

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEAD_SECONDS: Final = 30.0
HEAD_BYTES: Final = 64 << 10
MAX_HEADERS: Final = 128
AHEAD_BYTES: Final = 64 << 10
"""A client may send so much behind a request that waits for the answers to earlier ones."""
STALL_SECONDS: Final = 60.0
"""If data waits for a client, and the client reads less than `READ_RATE` during this time, the
client counts as dead. A dead client may be using up one of the limited places for requests."""
READ_RATE: Final = 100
"""Bytes per second."""
HEAD_PIECE: Final = 1 << 10
"""So many bytes are parsed at once outside of a body. Each small request in them takes 3 KB."""
BODY_PIECE: Final = 16 << 10


def raw_answer(status: int, message: str, code: str) -> bytes:
    """An error as bytes, for a request that never reaches the application."""
    body = json.dumps(Problem(status, message, code).body).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\nx-should-retry: false\r\nconnection: close\r\n\r\n"
    return head.encode() + body


class Stall:
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
        self._n_unread = _n_unread(self._transport)
        self._timer = self._loop.call_later(STALL_SECONDS, self._check)

    def _check(self) -> None:
        if self._n_unread - _n_unread(self._transport) >= READ_RATE * STALL_SECONDS:
            self._watch()
        else:
            self._transport.abort()

    def end(self) -> None:
        """Stop watching, because the client has read or has left."""
        self._timer.cancel()


def _n_unread(transport: asyncio.Transport) -> int:
    """Bytes that the client has not received: in our buffer, and on Linux in the kernel's, too."""
    n_bytes = transport.get_write_buffer_size()
    try:
        number = transport.get_extra_info("socket").fileno()
        unsent = fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):
        return n_bytes
    return n_bytes + int(struct.unpack("i", unsent)[0])


def without_chunks(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """Make an application answer without ``Transfer-Encoding``, which HTTP/1.0 does not know.

    The end of the connection ends the answer. uvicorn closes it, because `cycle.keep_alive` is
    false for HTTP/1.0.
    """

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def send_plainly(message: ASGISendEvent) -> None:
            cycle.chunked_encoding = False
            if message["type"] == "http.response.body":
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plainly)

    return answer


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits on the time and the length of a head.

    Requests that a client pipelines are parsed one after the other, each when the one before it has
    been answered.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unparsed = bytearray()
        self._n_idle_bytes = 0
        self._is_in_body = False
        self._is_upgraded = False
        self._running: RequestResponseCycle | None = None
        self._slices = slices_of(self.server_state, self.loop)
        self._is_queued = False
        self._stall: Stall | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first head."""
        super().connection_made(transport)
        # `pause_writing` is then called for each byte that the client leaves unread, which also
        # finds a client that never reads the end of its last answer.
        transport.set_write_buffer_limits(high=0)
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
        """Stop the timers, and tell the request in progress that its client has left.

        uvicorn tells only the last request that was parsed, which may still wait for its turn.
        """
        if self._running is not None and self._is_running():
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        self._stop_timer()
        if self._stall is not None:
            self._stall.end()
        self._unparsed.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, or keep it until the requests before it have been answered."""
        self._unset_keepalive_if_required()
        self._unparsed += data
        if not self._is_queued and self._work():
            self._go_on()
        if self.pipeline and len(self._unparsed) > AHEAD_BYTES:
            self.transport.close()  # pausing would hide that the client has left

    def _go_on(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._slices.add(self._work, self.transport.abort)

    def _work(self) -> bool:
        """Do one piece of work; return whether more can be done now."""
        if not self.transport.is_closing():
            if self.pipeline:
                if not self._is_running():
                    self._start_asgi_task(*self.pipeline.pop())
                    self._slices.end()
            elif self._unparsed:
                self._parse_piece()
        can_go_on = not self.pipeline and bool(self._unparsed) and not self.transport.is_closing()
        if not can_go_on:
            self._is_queued = False
        return can_go_on

    def _parse_piece(self) -> None:
        """Parse, and close the connection if `HEAD_BYTES` follow the last head or body piece."""
        n_bytes = BODY_PIECE if self._is_in_body else HEAD_PIECE
        piece = bytes(self._unparsed[:n_bytes])
        del self._unparsed[:n_bytes]
        self._n_idle_bytes += len(piece)
        super().data_received(piece)
        if self._is_upgraded:
            self._unparsed.clear()
        elif self._n_idle_bytes > HEAD_BYTES and not self.transport.is_closing():
            if not self._is_answering():
                message = f"the head of a request may have {HEAD_BYTES} bytes"
                self.transport.write(raw_answer(431, message, "head_too_large"))
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, unless the client would take it for another answer."""
        # Outside of a body, the request that is being answered is an earlier one.
        if self._is_answering() and (not self._is_in_body or self.cycle.response_started):
            self.transport.close()
            return
        if len(self.headers or ()) > MAX_HEADERS:
            answer = raw_answer(431, f"a request may have {MAX_HEADERS} headers", "head_too_large")
        else:
            answer = raw_answer(400, msg, "malformed_request")
        self.transport.write(answer)
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless it still answers an earlier request."""
        self._is_upgraded = True
        if self._is_answering():
            self.transport.close()  # both would write to the connection
            return
        if self._stall is not None:
            self._stall.end()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0":
            app = without_chunks(cycle, app)
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        """Start the time limit for a head."""
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse a head with too many headers."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")  # ends the parser, see `send_400_response`

    def on_headers_complete(self) -> None:
        """Stop the time limit: the head is complete."""
        self._stop_timer()
        self._n_idle_bytes = 0
        super().on_headers_complete()
        self._is_in_body = True
        if self.pipeline:  # uvicorn has paused reading, which would hide that the client leaves
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Reset the byte limit: the bytes belonged to a body."""
        self._n_idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a head follows."""
        self._is_in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the time limit for the next head, and for the rest of this body if any.

        Requests that wait in the pipeline are started in turn with those of other connections.
        """
        pipeline, self.pipeline = self.pipeline, deque()
        super().on_response_complete()
        self.pipeline = pipeline
        if not self.transport.is_closing():
            self._expect_head()
            if self.pipeline or self._unparsed:
                self._unset_keepalive_if_required()
                self._go_on()

    def pause_writing(self) -> None:
        """Start watching the client: it reads more slowly than we send."""
        super().pause_writing()
        self._stall = Stall(self.transport, self.loop)

    def resume_writing(self) -> None:
        """Stop watching: the client has read the data."""
        if self._stall is not None:
            self._stall.end()
        super().resume_writing()

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.response_complete

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
