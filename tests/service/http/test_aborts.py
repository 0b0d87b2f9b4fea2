"""Clients that leave at every moment: no traceback, and no line above INFO."""

import contextlib
import json
import re
import socket
import struct

import pytest

from asr.workers.template import Channel, _report_error
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav, wait_for

WAV = make_wav(1.0)


@pytest.fixture(scope="module")
def server():
    with serving(FAKE_ENGINE_DELAY="0.2") as server:
        yield server


def request(method, path, body=b"", kind="audio/wav", length=None):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    length = len(body) if length is None else length
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body


UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
FORM = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
TUS = b"Tus-Resumable: 1.0.0\r\nUpload-Length: 100\r\n"
UPLOAD = request("POST", "/v1/uploads", b"x" * 10, "application/offset+octet-stream", 100)
MOMENTS = {
    "at once": (b"", 0),
    "in the head": (b"POST /v1/jobs HTTP/1.1\r\nX: ", 0),
    "in the body": (request("POST", PATH, WAV[:100], length=1000), 0),
    "in a form": (request("POST", PATH, FORM, "multipart/form-data; boundary=b", 1000), 0),
    "in a form of a job": (
        request("POST", "/v1/jobs", FORM, "multipart/form-data; boundary=b", 1000),
        0,
    ),
    "in JSON": (request("POST", "/v1/align", b"{", "application/json", 1000), 0),
    "in a refused body": (request("POST", PATH, b"x", "text/plain", 1000), 0),
    "in an upload": (UPLOAD.replace(b"\r\n\r\n", b"\r\n" + TUS + b"\r\n", 1), 0),
    "in a body that streams": (request("POST", f"{PATH}?stream=true", WAV[:9000], length=10**6), 0),
    "while it waits": (request("POST", PATH, WAV), 0),
    "before the stream": (request("POST", f"{PATH}?stream=true", WAV), 0),
    "in the stream": (request("POST", f"{PATH}?stream=true", WAV), 1),
    "before an answer": (request("GET", "/openapi.json"), 0),
    "in an answer": (request("GET", "/openapi.json"), 1),
    "with pipelined requests": (
        request("POST", PATH, WAV) + request("GET", "/openapi.json") * 9,
        0,
    ),
    "with pipelined answers": (request("GET", "/openapi.json") * 50, 1),
    "in trailers": (b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", 0),
    "in the handshake": (UPGRADE, 0),
    "in a refused handshake": (UPGRADE.replace(b"/realtime", b"/realtime?intent=x"), 0),
    "in a session": (UPGRADE, 1),
    "in a frame": (UPGRADE + b"", b"\x81\xfe\xff\xff"),
    "after an event": (UPGRADE, b"\x81\x82\0\0\0\0{}"),
    "after text that is not UTF-8": (UPGRADE, b"\x81\x82\0\0\0\0\xff\xff"),
    "after a close frame": (UPGRADE, b"\x88\x80\0\0\0\0"),
}


@pytest.mark.parametrize("is_abrupt", [False, True], ids=["closed", "reset"])
def test_clients_that_leave_cause_no_traceback(server, is_abrupt):
    """Each leaves twice: with a FIN, and with a reset."""
    before = len(server.log)
    made = HTTP.post(
        f"{server.url}/v1/jobs?prompt=30", content=WAV, headers={"content-type": "audio/wav"}
    )
    job = f"/v1/jobs/{made.json()['id']}"
    of_job = [(request("GET", f"{job}/events"), n) for n in (0, 1)]
    host, port = server.url.removeprefix("http://").split(":")
    for sent, then in [*MOMENTS.values(), *of_job]:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            if is_abrupt:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
                if then:
                    connection.recv(100)
                if isinstance(then, bytes):
                    connection.sendall(then)
    assert HTTP.delete(server.url + job).status_code == 200
    answer = HTTP.post(server.url + PATH, content=WAV, headers={"content-type": "audio/wav"})
    assert answer.status_code == 200
    wait_for(lambda: in_flight(server) == 1, 60, "the end of all requests")
    log = server.log[before:]
    assert "Traceback" not in log, log
    assert not re.search(r" (WARNING|ERROR|CRITICAL) ", log), log
    assert log.count(" 499 ") >= 8, log


def test_a_child_whose_files_are_gone_writes_no_traceback(capfd):
    """The files of a request are removed when its client leaves. The parent gets the error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _report_error(FileNotFoundError(2, "No such file"), Channel(theirs))
        assert Channel(ours).receive()[0]["error"] == "WorkerDied"
        assert capfd.readouterr().err == ""
        try:
            int("a bug")
        except ValueError as error:
            _report_error(error, Channel(theirs))
        assert "Traceback" in capfd.readouterr().err


def in_flight(server):
    """The number of open requests, including the one that asks."""
    text = HTTP.get(f"{server.url}/metrics").text
    return float(re.search(r"^asr_http_requests_in_flight (\S+)$", text, re.MULTILINE)[1])


def test_the_service_still_works(server):
    assert json.loads(HTTP.get(f"{server.url}/health").content) == {"status": "ok"}
