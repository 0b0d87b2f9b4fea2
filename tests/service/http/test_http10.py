"""Clients that speak HTTP/1.0, such as ``ab``, old libraries and nginx as a proxy by default.

HTTP/1.0 has no ``Transfer-Encoding``: an answer has a length, or it ends with the connection.
"""

import json
import socket

import pytest

from tests.support.serving import PATH, make_wav


def exchange(server, request):
    """Send bytes; return the head in lower case and the body, up to the end of the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(request)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().lower(), body


def post(path, body, version="1.0", headers=""):
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    return f"{head}Content-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@pytest.mark.parametrize("headers", ["", "Connection: keep-alive\r\n"])
def test_a_stream_ends_with_the_connection(server, headers):
    head, body = exchange(server, post(f"{PATH}?stream=true", make_wav(2.0), headers=headers))
    assert head.startswith("http/1.1 200")
    assert "content-type: text/event-stream" in head
    assert "transfer-encoding" not in head
    assert "connection: close" in head
    events = body.decode().strip().split("\n\n")
    lines = [line for event in events for line in event.split("\n")]
    assert lines[-1] == "data: [DONE]"
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    assert json.loads(data[-1])["text"] == "word0 word1 word2 word3"


def test_a_body_with_a_length_keeps_it(server):
    head, body = exchange(server, post(PATH, make_wav(1.0)))
    assert json.loads(body)["text"] == "word0 word1"
    assert f"content-length: {len(body)}" in head
    assert "transfer-encoding" not in head


@pytest.mark.parametrize("path", ["/health", "/metrics", "/openapi.json", "/docs", "/nothing"])
def test_no_route_answers_in_chunks(server, path):
    head, body = exchange(server, f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    assert "transfer-encoding" not in head
    assert body


def test_http11_streams_are_still_chunked(server):
    request = post(f"{PATH}?stream=true", make_wav(1.0), "1.1", "Connection: close\r\n")
    head, body = exchange(server, request)
    assert "transfer-encoding: chunked" in head
    assert body.endswith(b"0\r\n\r\n")
