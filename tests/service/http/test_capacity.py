"""Connections are capped below the limit on descriptors, and idle ones make room."""

import resource
import socket
import time

import pytest

from asr.service.http import capacity
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav, wait_for


@pytest.fixture
def limit(monkeypatch):
    """Set the limit on descriptors that the module sees."""

    def choose(soft, hard=1 << 20):
        capacity.reserve.cache_clear()
        capacity.max_connections.cache_clear()
        monkeypatch.setattr(capacity.resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(capacity.resource, "setrlimit", lambda *given: chosen.append(given))

    chosen = []
    choose.chosen = chosen
    yield choose
    capacity.reserve.cache_clear()
    capacity.max_connections.cache_clear()


@pytest.mark.parametrize(
    ("soft", "connections"),
    [(64, 16), (256, 16), (1024, 768), (65_536, 49_152), (resource.RLIM_INFINITY, 49_152)],
)
def test_a_part_of_the_descriptors_is_reserved(limit, soft, connections):
    limit(soft)
    assert capacity.max_connections() == connections
    assert capacity.backlog() < capacity.reserve()


@pytest.mark.parametrize(
    ("soft", "hard", "chosen"),
    [
        (1024, 4096, (4096, 4096)),
        (1024, 1 << 20, (1 << 16, 1 << 20)),
        (1024, resource.RLIM_INFINITY, (1 << 16, resource.RLIM_INFINITY)),
        (1024, 1024, None),
        (1 << 18, 1 << 20, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_limit_is_raised(limit, soft, hard, chosen):
    limit(soft, hard)
    capacity.raise_limit()
    assert limit.chosen == ([] if chosen is None else [(resource.RLIMIT_NOFILE, chosen)])


def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 5)


def is_closed(connection):
    connection.settimeout(0.01)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False


def test_idle_connections_make_room(limit):
    with serving() as server:
        limit(64)
        idle = []
        for _ in range(capacity.max_connections() + 8):
            idle.append(connect(server))
            time.sleep(0.005)
        wav, headers = make_wav(), {"content-type": "audio/wav"}
        assert HTTP.post(server.url + PATH, content=wav, headers=headers).status_code == 200
        wait_for(lambda: sum(map(is_closed, idle)) >= 8, 60, "closed connections")
        assert is_closed(idle[0]), "the longest idle first"
        assert not is_closed(idle[-1])
        for connection in idle:
            connection.close()


def test_connections_are_refused_while_all_are_in_use(limit):
    """A request that is being received or answered is never cut off."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    wav = make_wav()
    with serving() as server:
        limit(64)
        busy = []
        for _ in range(capacity.max_connections() + 1):
            busy.append(connect(server))
            busy[-1].sendall(f"{head}Content-Length: {len(wav)}\r\n\r\n".encode() + wav[:100])
            time.sleep(0.005)
        with connect(server) as refused:
            answer = refused.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in answer
        for connection in busy:
            connection.sendall(wav[100:])
        for connection in busy:
            connection.settimeout(20)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            connection.close()
