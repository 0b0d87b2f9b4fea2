"""An in-process service with one request in progress and one waiting.

Further requests are refused, and a client that leaves frees its place.
"""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav, wait_for

WAV = make_wav()
RAW = {"content-type": "audio/wav"}
WORDS = "word0 word1 word2 word3"
ENGINE_SECONDS = 0.8


@pytest.fixture(scope="module")
def server():
    few = {"ASR_MAX_ACTIVE_REQUESTS": "1", "ASR_MAX_WAITING_REQUESTS": "1"}
    with serving(**few, FAKE_ENGINE_DELAY=str(ENGINE_SECONDS)) as server:
        yield server


@pytest.fixture(autouse=True)
def leaves_nothing(server):
    """After each test no files remain, the engine's work has ended, and no error was logged."""
    began = count(server, "began")
    yield
    wait_for(lambda: not server.request_folders(), 60, "an empty work directory")
    ended = count(server, "finished") + count(server, "cancelled")
    assert ended == count(server, "began") > began
    assert "Traceback" not in server.log


def count(server, what):
    return server.engine_did().count(what)


def post(server, **options):
    return HTTP.post(server.url + PATH, content=WAV, headers=RAW, timeout=30, **options)


def open_raw(server, query=""):
    """Send a request on a raw socket, which the test can close at any moment."""
    connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), 10)
    head = f"POST {PATH}{query} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    connection.sendall(f"{head}Content-Length: {len(WAV)}\r\n\r\n".encode() + WAV)
    return connection


def test_the_third_request_at_once_is_refused(server):
    began = count(server, "began")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(post, server)
        wait_for(lambda: count(server, "began") == began + 1, 60, "the first in work")
        second = threads.submit(post, server)
        wait_for(lambda: len(server.request_folders()) == 2, 60, "the second in wait")

        third = post(server)
        assert third.status_code == 429
        assert 1 <= int(third.headers["retry-after"]) <= 10
        assert third.headers["x-should-retry"] == "true"
        assert third.json()["error"]["type"] == "rate_limit_error"
        assert third.json()["error"]["code"] == "too_many_requests"
        assert HTTP.get(f"{server.url}/health").status_code == 200

        assert first.result().json()["text"] == second.result().json()["text"] == WORDS
    assert post(server).json()["text"] == WORDS


@pytest.mark.slow
def test_openais_client_retries_a_refused_request(server):
    """The client waits as long as Retry-After says, so the refused request succeeds later."""
    with ThreadPoolExecutor(2) as threads:
        others = [threads.submit(post, server) for _ in range(2)]
        wait_for(lambda: len(server.request_folders()) == 2, 60, "a full server")
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=5) as client:
            answer = client.audio.transcriptions.with_raw_response.create(model="m", file=WAV)
        assert answer.parse().text == WORDS
        assert answer.retries_taken >= 1
        assert [other.result().status_code for other in others] == [200, 200]


@pytest.mark.parametrize("query", ["", "?stream=true"], ids=["sync", "sse"])
def test_a_client_that_leaves_frees_its_place(server, query):
    began, cancelled = count(server, "began"), count(server, "cancelled")
    connection = open_raw(server, query)
    wait_for(lambda: count(server, "began") == began + 1, 60, "the request in work")
    connection.close()
    wait_for(lambda: count(server, "cancelled") == cancelled + 1, 1, "the cancelled work")

    started = time.monotonic()
    assert post(server).status_code == 200
    assert time.monotonic() - started < ENGINE_SECONDS + 1


def test_a_client_that_leaves_during_a_stream(server):
    """The client disconnects after the status line was sent."""
    began, cancelled = count(server, "began"), count(server, "cancelled")
    connection = open_raw(server, "?stream=true")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    wait_for(lambda: count(server, "began") == began + 1, 60, "the request in work")
    connection.close()
    wait_for(lambda: count(server, "cancelled") == cancelled + 1, 1, "the cancelled work")


def test_a_client_that_leaves_while_it_waits(server):
    began = count(server, "began")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(post, server)
        wait_for(lambda: count(server, "began") == began + 1, 60, "the first in work")
        waiting = open_raw(server)
        wait_for(lambda: len(server.request_folders()) == 2, 60, "the second in wait")
        waiting.close()
        wait_for(lambda: len(server.request_folders()) == 1, 1, "the place of the second")
        assert first.result().status_code == 200
    assert count(server, "began") == began + 1


def test_a_client_that_leaves_while_it_sends(server):
    connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), 10)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    connection.sendall(f"{head}Content-Length: {len(WAV)}\r\n\r\n".encode() + WAV[:1000])
    wait_for(server.request_folders, 60, "the beginning of the upload")
    connection.close()
    wait_for(lambda: not server.request_folders(), 60, "the end of the upload")
    assert post(server).status_code == 200


def test_many_at_once_are_all_answered(server):
    """Twelve clients for two places: each gets its transcript or a 429."""
    barrier = threading.Barrier(12)

    def one(_):
        barrier.wait()
        return post(server)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(one, range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 10
    bodies = [json.loads(answer.text) for answer in answers]
    assert all("error" in body or body["text"] == WORDS for body in bodies)
