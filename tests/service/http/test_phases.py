"""Each phase of a connection has a limit on its time and its size; docs/security.md has the table.

Tests of a time limit set all limits to half a second. The others keep them, so that a busy machine
does not change their results.
"""

import contextlib
import json
import socket
import threading
import time

import pytest

from asr.service.http import budget, connections, sockets
from tests.support.asgi_server import hosting
from tests.support.serving import wait_for

PATIENCE = 0.5
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.fixture
def impatience(monkeypatch):
    """Short time limits."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", PATIENCE)
    monkeypatch.setattr(connections, "STALL_SECONDS", PATIENCE)
    monkeypatch.setattr(sockets, "HANDSHAKE_SECONDS", PATIENCE)
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", PATIENCE)
    monkeypatch.setattr(budget, "HOLD_SECONDS", PATIENCE)


class App:
    """Answers requests with `size` bytes, and echoes the length of each WebSocket message."""

    def __init__(self):
        self.size = 2
        self.n_running = self.most_running = self.n_done = 0
        self.received = []
        self.owner = ""
        self.is_waiting = False

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await self.talk(scope, receive, send)
            return
        self.n_running += 1
        self.most_running = max(self.most_running, self.n_running)
        try:
            if scope["path"] == "/wait":
                while (await receive())["type"] != "http.disconnect":
                    self.is_waiting = True
                self.is_waiting = False
            headers = [(b"content-length", str(self.size).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": bytes(self.size)})
        finally:
            self.n_running -= 1
            self.n_done += 1

    async def talk(self, scope, receive, send):
        scope["state"]["owner"] = scope["path"].strip("/")
        await receive()
        if scope["path"] == "/hang":
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        await send({"type": "websocket.accept"})
        if scope["path"] == "/close":
            await send({"type": "websocket.close"})
            return
        while (message := await receive())["type"] == "websocket.receive":
            content = message.get("text") or message.get("bytes") or ""
            self.received.append(len(content))
            await send({"type": "websocket.send", "text": str(len(content))})


@pytest.fixture(scope="module")
def app():
    return App()


@pytest.fixture(scope="module")
def host(app):
    with hosting(app) as host:
        yield host
        host.wait_closed()


def to_the_end(connection):
    """All bytes until the server closes, which it must do within the timeout of the socket."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 16):
            answer += data
    return answer


def problem_in(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def open_socket(host, path="/"):
    connection = host.connect()
    connection.sendall(UPGRADE.replace(b"GET /", b"GET " + path.encode(), 1) + b"\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 101")
    return connection


def live(host):
    """The open WebSocket connections. Connections of earlier tests may still be closing."""
    return [it for it in host.connections if isinstance(it, sockets.LiveConnection)]


def exactly(connection, n_bytes):
    """So many bytes, which may arrive in pieces."""
    return connection.recv(n_bytes, socket.MSG_WAITALL)


def frame(data, head=0x81):
    """A frame with a mask of zeros."""
    n = len(data)
    if n < 126:
        length = bytes([0x80 | n])
    elif n < 1 << 16:
        length = b"\xfe" + n.to_bytes(2, "big")
    else:
        length = b"\xff" + n.to_bytes(8, "big")
    return bytes([head]) + length + bytes(4) + data


def text_of(connection):
    """The text of the next short frame."""
    head = exactly(connection, 2)
    return exactly(connection, head[1]).decode()


# --- before the head is complete ------------------------------------------------------------------


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /hea", b"GET / HTTP/1.1\r\nX: y"])
def test_an_incomplete_head_is_closed(host, sent):
    with host.connect() as connection:
        connection.sendall(sent)
        assert to_the_end(connection) == b""


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100, b"SSH-2.0-x\r\n"]
)
def test_garbage_is_refused_at_once(host, sent):
    with host.connect() as connection:
        connection.sendall(sent)
        status, error = problem_in(to_the_end(connection))
    assert (status, error["code"]) == (400, "malformed_request")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * (65 << 10) + b"\r\n\r\n",
        UPGRADE + b"a: b\r\n" * 129 + b"\r\n",
        UPGRADE + b"a: " + b"b" * (65 << 10) + b"\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_is_refused(host, head):
    with host.connect() as connection:
        connection.sendall(head)
        status, error = problem_in(to_the_end(connection))
    assert (status, error["code"]) == (431, "head_too_large")
    assert error["message"]


def test_a_head_within_the_limits_is_accepted(host):
    with host.connect() as connection:
        head = b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 60_000 + b"\r\n" + b"a: b\r\n" * 126
        connection.sendall(head + b"connection: close\r\n\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 200")


# --- the handshake of a WebSocket -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (UPGRADE + b"X: " + b"x" * 9000, 431),
        (UPGRADE.replace(b"GET /", b"GET /" + b"x" * 9000), 414),
        (UPGRADE + b"Content-Length: 5", 400),
        (UPGRADE + b"Content-Length: 5\r\nX: x", 400),
        (UPGRADE + b"Transfer-Encoding: chunked", 400),
        (UPGRADE.replace(b"GET", b"POST"), None),
        (UPGRADE.replace(b"Version: 13", b"Version: 7"), None),
        (UPGRADE.replace(b"AAAA", b"????"), 400),
        (UPGRADE.replace(b"Sec-WebSocket-Key", b"X"), 400),
        (UPGRADE + b"Sec-WebSocket-Protocol: \xff", None),
    ],
)
def test_a_handshake_that_is_wrong_is_answered_and_closed(host, head, status):
    with host.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        if status is None and b"\xff" in head:
            assert connection.recv(4096).startswith(b"HTTP/1.1 ")
            return
        answer = to_the_end(connection)
    given = int(answer.split()[1])
    assert given == status if status else 400 <= given < 500, answer


def test_many_handshakes_with_a_large_header_leave_nothing_open(host):
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(host.connect()) for _ in range(50)]
        for connection in many:
            connection.sendall(UPGRADE + b"X: " + b"x" * 9000 + b"\r\n\r\n")
        assert all(to_the_end(connection).startswith(b"HTTP/1.1 431") for connection in many)
    host.wait_closed()


@pytest.mark.usefixtures("impatience")
def test_a_handshake_that_the_application_does_not_answer_is_closed(host):
    with host.connect() as connection:
        connection.sendall(UPGRADE.replace(b"GET /", b"GET /hang", 1) + b"\r\n")
        assert to_the_end(connection) == b""


def test_an_upgrade_during_an_answer_is_closed(host, app):
    """Both protocols would write to the socket, and nobody would tell the request that it ended."""
    n_done = app.n_done
    with host.connect() as connection:
        connection.sendall(GET.replace(b" / ", b" /wait ") + UPGRADE + b"\r\n")
        assert b"101" not in to_the_end(connection)
    wait_for(lambda: app.n_done == n_done + 1, 60, "the end of the request")


# --- pipelined requests ---------------------------------------------------------------------------


def test_pipelined_requests_are_answered_one_after_the_other(host, app):
    n_requests, app.most_running = 1000, 0
    longest = 0
    with host.connect() as connection:
        connection.sendall(
            GET * n_requests + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
            longest = max(
                [
                    longest,
                    *(
                        len(it.pipeline)
                        for it in host.connections
                        if not isinstance(it, sockets.LiveConnection)
                    ),
                ]
            )
    assert answer.count(b"HTTP/1.1 200 ") == n_requests + 1
    assert app.most_running == 1
    assert longest <= connections.HEAD_PIECE // len(GET) + 1


@pytest.mark.usefixtures("impatience")
def test_pipelined_requests_behind_a_long_one_do_not_fill_memory(host, app):
    """The connection is closed, and the long request learns it."""
    with host.connect() as connection:
        connection.sendall(GET.replace(b" / ", b" /wait "))
        wait_for(lambda: app.n_running == 1, 60, "the first request")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(GET * 10_000)
        host.wait_closed()
    wait_for(lambda: app.n_running == 0, 60, "its end")


def test_every_pipelined_request_learns_that_its_client_has_left(host, app):
    n_done = app.n_done
    with host.connect() as connection:
        connection.sendall(GET.replace(b" / ", b" /wait ") + GET * 3)
        wait_for(lambda: app.n_running == 1, 60, "the first request")
    wait_for(lambda: app.n_running == 0, 60, "its end")
    assert app.n_done == n_done + 1  # the others were never started


def test_a_request_behind_a_waiting_one_does_not_hide_that_the_client_leaves(host, app):
    with host.connect() as connection:
        connection.sendall(GET.replace(b" / ", b" /wait "))
        wait_for(lambda: app.is_waiting, 60, "the first request")
        connection.sendall(GET)
        wait_for(lambda: any(it.pipeline for it in host.connections), 60, "the second request")
    wait_for(lambda: app.n_running == 0, 60, "the end of the first one")


@pytest.mark.parametrize("garbage", [b"\0\0\0\0", b"GET /x HTTP/1.1\r\n" + b"a: b\r\n" * 200])
def test_garbage_behind_a_request_is_not_its_answer(host, app, garbage):
    with host.connect() as connection:
        connection.sendall(GET.replace(b" / ", b" /wait ") + garbage)
        assert to_the_end(connection) == b""
    wait_for(lambda: app.n_running == 0, 60, "the end of the request")


# --- clients that do not read ---------------------------------------------------------------------


@pytest.mark.usefixtures("impatience")
@pytest.mark.parametrize("size", [50_000, 100_000, 20_000_000])
def test_a_client_that_does_not_read_its_answer_is_closed(host, app, size):
    """Also if what it leaves unread is less than uvicorn's buffer, and the answer is complete."""
    app.size = size
    try:
        with host.connect(receive_buffer=4096) as connection:
            request = GET * (1 if size > 1e6 else 200)
            connection.sendall(request)
            wait_for(lambda: host.connections, 60, "the connection")
            host.wait_closed()
    finally:
        app.size = 2


@pytest.mark.usefixtures("impatience")
def test_the_unread_end_of_an_answer_is_not_kept_for_ever(host, app):
    """The answer fits the buffers, except for its last bytes."""
    app.size = 1 << 20
    try:
        with host.connect(receive_buffer=4096) as connection:
            connection.sendall(GET)
            wait_for(lambda: host.connections, 60, "the connection")
            (held,) = host.connections
            wait_for(lambda: host.connections == [] or not app.n_running, 60, "the answer")
            host.wait_closed()
        assert held.transport.is_closing()
    finally:
        app.size = 2


def test_a_client_that_reads_slowly_but_steadily_gets_its_answer(host, app, monkeypatch):
    monkeypatch.setattr(connections, "STALL_SECONDS", 1.0)
    app.size = 3_000_000
    try:
        with host.connect(receive_buffer=1 << 16) as connection:
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            n_bytes, until = 0, time.monotonic() + 2.5
            while data := connection.recv(50_000):
                n_bytes += len(data)
                time.sleep(0.02 if time.monotonic() < until else 0)
        assert n_bytes > app.size
    finally:
        app.size = 2


@pytest.mark.usefixtures("impatience")
def test_a_close_frame_that_is_not_answered_ends_the_socket(host):
    with host.connect() as connection:
        connection.sendall(UPGRADE.replace(b"GET /", b"GET /close", 1) + b"\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 101")
    host.wait_closed()


@pytest.mark.usefixtures("impatience")
def test_data_after_the_close_frame_does_not_fill_memory(host):
    with host.connect() as connection:
        connection.sendall(UPGRADE.replace(b"GET /", b"GET /close", 1) + b"\r\n")
        connection.recv(4096)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"\x82\xff" + (20 << 20).to_bytes(8, "big") + bytes(4 << 20))
            connection.sendall(bytes(4 << 20))
        host.wait_closed()


# --- messages -------------------------------------------------------------------------------------


def test_fragments_are_joined(host, app):
    """A list of empty fragments would grow without a limit."""
    with open_socket(host) as connection:
        pieces = frame(b"ab", 0x01) + frame(b"", 0x00) * 3000 + frame(b"c", 0x00) * 10
        connection.sendall(pieces)
        wait_for(lambda: any(it._message == b"ab" + b"c" * 10 for it in live(host)), 60)
        assert all(it.frames == [] for it in live(host))
        connection.sendall(frame(b"d", 0x80))
        assert text_of(connection) == "13"


def test_small_messages_are_read_one_after_the_other(host, app):
    with open_socket(host) as connection:
        connection.sendall(frame(b"x") * 3000)
        most = 0
        for _ in range(3000):
            assert text_of(connection) == "1"
            most = max([most, *(it.queue.qsize() for it in live(host))])
    assert most <= sockets.PIECE // 7 + 1


def test_text_that_is_not_utf8_closes_its_socket(host):
    with open_socket(host) as connection:
        connection.sendall(frame(b"\xff"))
        assert to_the_end(connection)[2:4] == (1007).to_bytes(2, "big")


def test_pings_are_answered_between_messages(host):
    with open_socket(host) as connection:
        connection.sendall(frame(b"p", 0x89) * 2)
        assert exactly(connection, 6) == b"\x8a\x01p\x8a\x01p"


LARGE = frame(b"x" * (3 << 20))


HALF = len(LARGE) // 2


def size_of(connection):
    is_socket = isinstance(connection, sockets.LiveConnection)
    return connection._n_arrived() + connection._n_processing if is_socket else 0


@contextlib.contextmanager
def halves(host, n):
    """Sockets that have sent half of a large message."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_socket(host)) for _ in range(n)]
        for connection in opened:
            connection.sendall(LARGE[:HALF])
        wait_for(lambda: sum(size_of(it) > HALF - 100 for it in host.connections) == n, 60)
        yield opened


@pytest.mark.usefixtures("impatience")
def test_large_messages_that_arrive_slowly_give_way(host):
    with halves(host, budget.N_PLACES) as slow, open_socket(host) as other:
        other.sendall(LARGE)
        assert text_of(other) == str(3 << 20)
        for connection in slow:
            assert to_the_end(connection)[2:4] == (1013).to_bytes(2, "big")


@pytest.mark.usefixtures("impatience")
def test_a_large_message_may_be_slow_while_nobody_waits(host):
    with halves(host, 1) as (slow,):
        time.sleep(3 * PATIENCE)
        slow.sendall(LARGE[HALF:])
        assert text_of(slow) == str(3 << 20)


def test_large_messages_share_the_places(host):
    """All of them arrive. Never more than two are in memory."""
    answers, most = [], 0

    def send():
        with open_socket(host) as connection:
            connection.sendall(LARGE)
            answers.append(text_of(connection))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        large = [it for it in host.connections if size_of(it) > budget.FREE_BYTES + (8 << 10)]
        most = max(most, len(large))
        time.sleep(0.002)
    assert answers == [str(3 << 20)] * 6
    assert 0 < most <= budget.N_PLACES


def test_small_messages_need_no_place(host):
    with halves(host, budget.N_PLACES), open_socket(host) as other:
        other.sendall(frame(b"x" * 1000))
        assert text_of(other) == "1000"


def test_a_socket_that_leaves_frees_its_place(host):
    for _ in range(2):
        with halves(host, budget.N_PLACES):
            pass
    with open_socket(host) as other:
        other.sendall(LARGE)
        assert text_of(other) == str(3 << 20)


# --- the budget -----------------------------------------------------------------------------------


class Claimant:
    def __init__(self, owner, *, is_arriving=True):
        self.owner = owner
        self.is_arriving = is_arriving
        self.is_evicted = False

    def grant(self):
        pass

    def evict(self):
        self.is_evicted = True


class Loop:
    def call_soon(self, work):
        pass

    def call_later(self, seconds, work):
        self.later = work


def test_places_go_to_the_key_that_holds_the_fewest():
    places = budget.Budget(Loop())
    flood = [Claimant("flood") for _ in range(5)]
    for claimant in flood:
        places.ask(claimant)
    other = Claimant("other")
    places.ask(other)
    assert [places.holds(claimant) for claimant in flood] == [True, True, False, False, False]
    places.leave(flood[0])
    assert places.holds(other)
    places.leave(other)
    assert [places.holds(claimant) for claimant in flood[1:3]] == [True, True]


@pytest.mark.usefixtures("impatience")
def test_only_messages_that_still_arrive_are_evicted():
    loop = Loop()
    places = budget.Budget(loop)
    arriving, processed, waiting = Claimant("a"), Claimant("a", is_arriving=False), Claimant("b")
    for claimant in (arriving, processed, waiting):
        places.ask(claimant)
    time.sleep(PATIENCE)
    loop.later()
    assert [claimant.is_evicted for claimant in (arriving, processed, waiting)] == [
        True,
        False,
        False,
    ]
    assert places.holds(waiting)
