"""uvicorn's WebSockets, with a limit on the time, the size and the memory of each phase.

uvicorn neither answers nor closes a handshake that `websockets` cannot parse. It keeps the
fragments of a message as a list, so that fragments of one byte take sixty bytes each, and empty
ones fill the memory. It parses at once whatever it receives, so that thousands of small frames stop
all other clients.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final, Literal

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode

from asr.service.http.budget import FREE_BYTES, Budget
from asr.service.http.connections import Stall, raw_answer
from asr.service.http.slices import slices_of

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame
    from websockets.http11 import Request

HANDSHAKE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 10.0
"""The client must answer the close frame within this time."""
PIECE: Final = 1 << 10
LARGE_PIECE: Final = 4 << 10
"""So many bytes are parsed at once; more, if they may belong to a large frame. A piece of 4 KiB can
hold 680 frames, which take 9 ms."""
MESSAGE_OVERHEAD: Final = 512
"""Bytes of memory that a small message takes in addition to its text."""
PROCESSED: Final = "message.processed"
"""An ASGI extension. Its function ``call`` tells that the last received message needs no more
memory. The next receive tells it, too."""

_budgets: weakref.WeakKeyDictionary[ServerState, Budget] = weakref.WeakKeyDictionary()


class LiveConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket. It reads nothing from a client while the client reads nothing.

    It also reads nothing while a message waits for the application, while a large message is being
    processed, and while a large message waits for its place in the budget of all connections.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.close_timeout = CLOSE_SECONDS
        if server_state not in _budgets:
            _budgets[server_state] = Budget(self.loop)
        self._budget = _budgets[server_state]
        self._unparsed = bytearray()
        self._message = bytearray()
        self._n_processing = 0
        self._sizes: list[int] = []  # of the messages in `queue`
        self._is_writing_paused = False
        self._stall: Stall | None = None
        self._slices = slices_of(server_state, self.loop)
        self._is_queued = False
        self._timer: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the handshake."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # see `Connection.connection_made`
        self._timer = self.loop.call_later(HANDSHAKE_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers and free the memory."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stall is not None:
            self._stall.end()
        self._unparsed.clear()
        self._message.clear()
        self._budget.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop reading, because each ping from the client would add a pong to the unsent data."""
        super().pause_writing()
        self._is_writing_paused = True
        self._stall = Stall(self.transport, self.loop)
        self._steer()

    def resume_writing(self) -> None:
        """Stop watching: the client has read the data."""
        if self._stall is not None:
            self._stall.end()
        self._is_writing_paused = False
        super().resume_writing()
        self._go_on()

    def _give_up(self) -> None:
        if not self.handshake_complete:
            self.transport.abort()

    # Parsing

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, or keep it until it is its turn."""
        self._unparsed += data
        if not self._is_queued and self._work():
            self._go_on()
        self._steer()

    def _go_on(self) -> None:
        """Parse in turn with the other connections."""
        if not self._is_queued:
            self._is_queued = True
            self._slices.add(self._work, self.transport.abort)

    def _work(self) -> bool:
        """Parse a piece; return whether more can be parsed now."""
        if self._can_parse():
            n_bytes = LARGE_PIECE if len(self.conn.reader.buffer) > PIECE else PIECE
            piece = bytes(self._unparsed[:n_bytes])
            del self._unparsed[:n_bytes]
            super().data_received(piece)
            self._check()
        can_go_on = self._can_parse()
        if not can_go_on:
            self._is_queued = False
            self._steer()
        return can_go_on

    def _can_parse(self) -> bool:
        is_open = not self.disconnected and not self.transport.is_closing()
        return is_open and bool(self._unparsed) and not self._must_wait()

    def _steer(self) -> None:
        """Read from the client only if the data can be parsed."""
        if self.transport.is_closing():
            return
        if self._unparsed or self._must_wait():
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _must_wait(self) -> bool:
        if self.close_sent:
            return False  # until the client answers the close frame, its messages are dropped
        if not self.handshake_complete:
            return self.handshake_initiated
        if self._is_writing_paused or self._sizes or self._n_processing > FREE_BYTES:
            return True
        return self._n_arrived() > FREE_BYTES and not self._budget.holds(self)

    def _n_arrived(self) -> int:
        """Bytes of the message that is arriving."""
        return len(self._message) + len(self.conn.reader.buffer)

    def _check(self) -> None:
        """Act on what a piece has brought."""
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_handshake()
        elif self._n_arrived() > FREE_BYTES:
            if self.close_sent:
                self.transport.abort()
            else:
                self._budget.ask(self)

    def _refuse_handshake(self) -> None:
        """Answer a handshake that cannot be parsed. Without this it would stay open for ever."""
        self.close_sent = self.handshake_complete = True
        message = f"the WebSocket handshake cannot be parsed: {self.conn.handshake_exc}"
        answer = b"".join(self.conn.data_to_send())
        self.transport.write(answer or raw_answer(400, message, "malformed_request"))
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Start the application, and give it the extension `PROCESSED`."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][PROCESSED] = {"call": self._processed}

    # Messages

    def handle_text(self, event: Frame) -> None:
        """Begin a text message."""
        self._begin("text", event)

    def handle_bytes(self, event: Frame) -> None:
        """Begin a binary message."""
        self._begin("bytes", event)

    def handle_cont(self, event: Frame) -> None:
        """Join fragments as they arrive, because a list of short ones takes much memory."""
        self._message += _taken(event)
        if event.fin:
            message, self._message = self._message, bytearray()
            self._deliver(message)

    def _begin(self, kind: Literal["text", "bytes"], event: Frame) -> None:
        self.curr_msg_data_type = kind
        if event.fin:
            self._deliver(_taken(event))
        else:
            self._message = bytearray(_taken(event))

    def _deliver(self, data: bytes | bytearray | memoryview) -> None:
        if self.close_sent:
            return  # the application has closed the socket
        size = len(data) + MESSAGE_OVERHEAD
        if self.curr_msg_data_type == "bytes":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": bytes(data)})
        else:
            try:
                text = str(data, "utf-8")
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "a text message is not UTF-8")
                return
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
        self._sizes.append(size)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message. Calling this tells that the message before has been processed."""
        self._processed()
        message = await self.queue.get()
        if self._sizes and message["type"] == "websocket.receive":
            self._n_processing = self._sizes.pop(0)
            if not self._sizes:
                self._go_on()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message. The handshake and the end of the session change what is read."""
        await super().send(message)
        if self.close_sent:  # also after a refusal, which uvicorn then logs as a missing handshake
            self.handshake_complete = True
        if message["type"] in ("websocket.accept", "websocket.close"):
            self._go_on()

    def _processed(self) -> None:
        if self._n_processing:
            self._n_processing = 0
            if not self._sizes and self._n_arrived() <= FREE_BYTES:
                self._budget.leave(self)
            self._go_on()

    # The budget

    @property
    def owner(self) -> str:
        """The name of the API key, as `KeyCheck` noted it."""
        return str(self.scope["state"].get("owner", ""))

    @property
    def is_arriving(self) -> bool:
        """Whether the server still waits for bytes of a message."""
        return self._n_arrived() > 0 and not self._sizes and not self._n_processing

    def grant(self) -> None:
        """Go on reading, now that there is memory."""
        self._go_on()

    def evict(self) -> None:
        """Close the socket, because its large message arrives slowly and others wait."""
        self._fail(CloseCode.TRY_AGAIN_LATER, "a large message arrived too slowly")


def _taken(frame: Frame) -> bytes | bytearray | memoryview:
    """The data of a frame. The parser keeps each frame until the next, so it must not hold it."""
    data, frame.data = frame.data, b""
    return data
