"""Transcription of finished uploads, and of uploads and bodies that are still arriving.

Over HTTP with an in-process service.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service.uploads.test_routes import PART, PATH as UPLOADS, TUS, create, patch
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav, wait_for

SECONDS = 65
SETTINGS = {"ASR_MAX_FOLLOWED": "2", "ASR_MAX_UPLOAD_BYTES": str(20 << 20)}


@pytest.fixture(scope="module")
def server():
    with serving(**SETTINGS) as server:
        yield server


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def recording():
    return make_wav(SECONDS)


class Following:
    """A streamed answer that is read in its own thread."""

    def __init__(self, server, **request):
        self.status = None
        self.events = []
        self._server = server
        self._request = request
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        url = self._server.url + PATH
        with HTTP.stream("POST", url, timeout=30, **self._request) as answer:
            self.status = answer.status_code
            if answer.status_code != 200:
                self.events.append(json.loads(answer.read()))
                return
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.events.append(json.loads(line[6:]))

    def segments(self):
        return [e for e in self.events if e.get("type") == "transcript.text.segment"]

    def wait_segments(self, n):
        wait_for(lambda: len(self.segments()) >= n, 60, f"segment {n}")

    def end(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.events


def follow(server, upload_id, **fields):
    return Following(server, data={"upload_id": upload_id, "stream": "true"} | fields)


def upload_id_of(location):
    return Path(location).name


def plain_text(http, recording):
    return http.post(PATH, files={"file": recording}).json()["text"]


# --- finished uploads ---------------------------------------------------------------------------


def uploaded(http, data):
    location = create(http, len(data))
    assert patch(http, location, data).status_code == 204
    return upload_id_of(location)


@pytest.mark.parametrize("how", ["multipart", "form", "json"])
def test_a_finished_upload(http, recording, how):
    fields = {"upload_id": uploaded(http, recording), "response_format": "verbose_json"}
    bodies = {
        "multipart": {"files": {name: (None, value) for name, value in fields.items()}},
        "form": {"data": fields},
        "json": {"json": fields | {"timestamp_granularities": ["word", "segment"], "prompt": None}},
    }
    answer = http.post(PATH, **bodies[how])
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == plain_text(http, recording)
    assert answer.json()["duration"] == pytest.approx(SECONDS)
    assert ("words" in answer.json()) == (how == "json")
    again = http.post(PATH, **bodies[how])  # the upload stays until it is deleted or expires
    assert again.status_code == 200


def test_the_openai_client_names_an_upload(http, server, recording):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        body = {"upload_id": uploaded(http, recording), "model": "any"}
        answer = client.post("/audio/transcriptions", body=body, cast_to=object)
    assert answer["text"] == plain_text(http, recording)


def test_deleting_an_upload_that_is_transcribed(server, http, recording):
    name = uploaded(http, recording)
    following = follow(server, name, prompt="0.3")
    wait_for(lambda: following.status, 60)
    assert http.delete(f"{UPLOADS}/{name}", headers=TUS).status_code == 204
    assert following.end()[-1]["type"] == "transcript.text.done"
    held = server.log_path.parent / "data" / "uploads" / "held"
    wait_for(lambda: not list(held.iterdir()), 60, "the end of the link")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"upload_id": "a" * 32}, 404, "upload_not_found"),
        ({"upload_id": "../../etc/passwd"}, 400, "invalid_value"),
        ({"upload_id": ""}, 400, "invalid_value"),
        ({"upload_id": ["a" * 32, "b" * 32]}, 400, "invalid_value"),
        ({"upload_id": {"a": "b"}}, 400, "invalid_value"),
    ],
)
def test_uploads_that_are_not_there(http, fields, status, code):
    answer = http.post(PATH, json=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b"\xff", b'{"a":' + b"[" * 5000, b""])
def test_malformed_json(http, body):
    answer = http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_body")


def test_a_file_and_an_upload(http, recording):
    fields = {"upload_id": uploaded(http, recording)}
    answer = http.post(PATH, files={"file": recording}, data=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "upload_id")


def test_an_unfinished_upload_needs_a_stream(http):
    name = upload_id_of(create(http, 10))
    answer = http.post(PATH, json={"upload_id": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "upload_unfinished")
    assert answer.headers["x-should-retry"] == "false"


# --- uploads that arrive ------------------------------------------------------------------------


def test_an_upload_is_transcribed_while_it_arrives(server, http, recording):
    location = create(http, len(recording))
    following = follow(server, upload_id_of(location))
    half = len(recording) * 2 // 3
    assert patch(http, location, recording[:half]).status_code == 204
    following.wait_segments(1)
    time.sleep(1.2)  # without new bytes no further segment may appear
    assert following.status == 200
    assert following.segments()[-1]["end"] <= SECONDS * half / len(recording)
    assert patch(http, location, recording[half:], half).status_code == 204
    done = following.end()[-1]
    assert done["type"] == "transcript.text.done"
    assert done["text"] == plain_text(http, recording)


def test_an_upload_in_many_small_parts(server, http, recording):
    """A slow client with many small parts and a length that it sends at the end."""
    answer = http.post(UPLOADS, headers=TUS | {"Upload-Defer-Length": "1"})
    location = answer.headers["location"]
    following = follow(server, upload_id_of(location))
    step = len(recording) // 40 + 1
    for start in range(0, len(recording), step):
        part = recording[start : start + step]
        assert patch(http, location, part, start).status_code == 204
        time.sleep(0.04)
    end = {"Upload-Length": str(len(recording))}
    following.wait_segments(1)
    assert following.events[-1]["type"] != "transcript.text.done"
    assert patch(http, location, b"", len(recording), **end).status_code == 204
    assert following.end()[-1]["text"] == plain_text(http, recording)


def test_an_upload_that_is_deleted_ends_its_transcription(server, http, recording):
    location = create(http, len(recording))
    patch(http, location, recording[: len(recording) * 2 // 3])
    following = follow(server, upload_id_of(location))
    following.wait_segments(1)
    assert http.delete(location, headers=TUS).status_code == 204
    assert following.end()[-1]["error"]["code"] == "upload_ended"
    wait_for(lambda: not server.request_folders(), 60)


@pytest.mark.slow
def test_an_upload_that_expires_ends_its_transcription(recording):
    with serving(ASR_UPLOAD_TTL="2") as server:
        http = server.client()
        location = create(http, len(recording))
        patch(http, location, recording[: len(recording) // 3])
        following = follow(server, upload_id_of(location))
        assert following.end()[-1]["error"]["code"] == "upload_ended"


def test_bad_audio_in_an_upload_that_arrives_is_an_error_status(server, http):
    data = b"this is no audio" * 1000
    location = create(http, len(data))
    following = follow(server, upload_id_of(location))
    patch(http, location, data[:1000])
    patch(http, location, data[1000:], 1000)
    (problem,) = following.end()
    assert (following.status, problem["error"]["code"]) == (400, "unsupported_audio")


def test_number_of_followed_uploads_is_limited(server, http, recording):
    location = create(http, len(recording))
    patch(http, location, recording[: len(recording) * 2 // 3])
    two = [follow(server, upload_id_of(location)) for _ in range(2)]
    for following in two:
        following.wait_segments(1)
    third = follow(server, upload_id_of(location))
    (problem,) = third.end()
    assert (third.status, problem["error"]["code"]) == (429, "too_many_requests")
    headers = {"content-type": "audio/wav"}
    answer = http.post(PATH, params={"stream": "true"}, content=recording, headers=headers)
    assert answer.status_code == 429
    assert plain_text(http, recording)  # other requests are still accepted
    patch(http, location, recording[len(recording) * 2 // 3 :], len(recording) * 2 // 3)
    for following in two:
        assert following.end()[-1]["type"] == "transcript.text.done"


# --- bodies that arrive -------------------------------------------------------------------------


class Body:
    """A chunked body; each piece is sent when the test sets its gate."""

    def __init__(self, *pieces):
        self._pieces = pieces
        self.gates = [threading.Event() for _ in pieces]

    def __iter__(self):
        for piece, gate in zip(self._pieces, self.gates, strict=True):
            assert gate.wait(30)
            if isinstance(piece, Exception):
                raise piece
            yield piece


def post_body(server, body):
    query = {"stream": "true"}
    return Following(server, params=query, content=body, headers={"content-type": "audio/wav"})


def test_a_body_is_transcribed_while_it_arrives(server, http, recording):
    """httpx reads no answer until the body is sent, so the test watches the engine's log."""
    half = len(recording) * 2 // 3
    body = Body(recording[:half], recording[half:])
    before = len(server.engine_did())
    following = post_body(server, body)
    body.gates[0].set()
    wait_for(lambda: "finished" in server.engine_did()[before:], 60)
    body.gates[1].set()
    done = following.end()[-1]
    assert done["text"] == plain_text(http, recording)
    wait_for(lambda: not server.request_folders(), 60)


def test_the_answer_comes_while_the_body_is_sent(server, recording):
    """The client reads the answer while it still sends the body, as curl does."""
    half = len(recording) * 2 // 3
    with raw_post(server, recording) as sock:
        sock.sendall(chunk(recording[:half]))
        answer = b""
        while b"transcript.text.segment" not in answer:
            answer += sock.recv(65536)
        assert b"transcript.text.done" not in answer
        sock.sendall(chunk(recording[half:]) + chunk(b""))
        while b"data: [DONE]" not in answer:
            answer += sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def raw_post(server, recording):
    host = urlsplit(server.url)
    with socket.create_connection((host.hostname, host.port), timeout=20) as sock:
        head = f"POST {PATH}?stream=true HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
        sock.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        yield sock


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_an_interrupted_body_leaves_no_files(server, http, recording):
    with raw_post(server, recording) as sock:
        sock.sendall(chunk(recording[: len(recording) // 2]))
        wait_for(lambda: server.request_folders(), 60)
    wait_for(lambda: not server.request_folders(), 60)
    assert plain_text(http, recording)


def test_a_body_that_is_too_large(server, recording):
    with raw_post(server, recording) as sock:
        sock.sendall(chunk(recording))
        answer = b""
        while b"transcript.text.segment" not in answer:
            answer += sock.recv(65536)
        sock.sendall(chunk(bytes(20 << 20)))
        while piece := sock.recv(65536):
            answer += piece
            if b"event: error" in answer:
                break
    assert b"too_large" in answer
    wait_for(lambda: not server.request_folders(), 60)


@pytest.mark.parametrize(
    ("data", "status"), [(b"", 400), (b"no audio at all", 400), (bytes(21 << 20), 413)]
)
def test_a_body_that_is_bad_from_the_start(http, data, status):
    headers = {"content-type": "audio/wav"}
    answer = http.post(PATH, params={"stream": "true"}, content=data, headers=headers)
    assert answer.status_code == status, answer.text


def test_fields_are_checked_before_the_body(http):
    headers = {"content-type": "audio/wav"}
    query = {"stream": "true", "temperature": "7"}
    answer = http.post(PATH, params=query, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")


def test_creation_with_upload_then_followed(server, http, recording):
    """The request that creates the upload contains the whole recording."""
    headers = PART | {"Upload-Length": str(len(recording))}
    location = http.post(UPLOADS, content=recording, headers=headers).headers["location"]
    assert follow(server, upload_id_of(location)).end()[-1]["text"] == plain_text(http, recording)
