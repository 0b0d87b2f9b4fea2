"""Malformed bodies, sent as raw bytes to an in-process service: none causes a server error."""

from __future__ import annotations

import random
import socket

import pytest

from tests.service.transcriptions.test_service import BOUNDARY, body_of
from tests.support.serving import PATH, make_wav

WAV = make_wav(0.2)
WHOLE = body_of(
    [
        ("model", "", b"whisper-1"),
        ("file", '; filename="../../etc/passwd"', WAV),
        ("timestamp_granularities[]", "", b"word"),
        ("response_format", "", b"verbose_json"),
    ]
)
ANSWER_SECONDS = 20.0


def exchange(server, body, headers, *, ends=False):
    """Send raw bytes and return the status, or None if the server closed without an answer.

    With `ends`, the client closes its side after the body. If the body is shorter than declared,
    uvicorn treats this as a disconnect.
    """
    host, port = server.url.removeprefix("http://").split(":")
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", *headers, "Connection: close", "", ""]
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return int(answer.split(b" ", 2)[1]) if answer else None


def multipart(body, length=None, boundary=BOUNDARY):
    kind = f"Content-Type: multipart/form-data; boundary={boundary}"
    return [kind, f"Content-Length: {len(body) if length is None else length}"]


def mutate(rng):
    """The valid body with one kind of damage, mostly near the boundaries, where parsing happens."""
    data = bytearray(WHOLE)
    spots = [i for i in range(len(data)) if data.startswith(b"--" + BOUNDARY.encode(), i)]
    spot = min(max(rng.choice(spots) + rng.randrange(-8, 120), 0), len(data) - 1)
    match rng.randrange(5):
        case 0:
            data[spot] = rng.randrange(256)
        case 1:
            del data[spot : spot + rng.choice((1, 2, 30))]
        case 2:
            data[spot:spot] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 5, 300))))
        case 3:
            del data[spot:]
        case 4:
            data[spot:spot] = data[spot : spot + 200] * rng.choice((1, 20))
    return bytes(data)


def check_mutations(server, seed, n_runs):
    rng = random.Random(seed)
    statuses = set()
    for run in range(n_runs):
        body = mutate(rng)
        status = exchange(server, body, multipart(body))
        assert status is not None, f"seed {seed}, run {run}: no answer"
        assert 200 <= status < 500, f"seed {seed}, run {run}: {status}"
        statuses.add(status)
    assert {200, 400} <= statuses  # some mutations were harmless, others not


def test_mutated_forms(server):
    check_mutations(server, seed=1, n_runs=120)


@pytest.mark.slow
def test_many_mutated_forms(server):
    check_mutations(server, seed=2, n_runs=5000)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"--" + BOUNDARY.encode(),
        b"--" + BOUNDARY.encode() + b"--",
        b"\0" * 5000,
        b"--" + BOUNDARY.encode() + b"\r\n" + b"a" * 200_000,
        (b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n')
        * 500,
        b"--" + BOUNDARY.encode() + b"\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ],
    ids=["empty", "dashes", "boundary", "end", "zeros", "long header", "500 fields", "headers"],
)
def test_invalid_form_bodies(server, body):
    assert exchange(server, body, multipart(body)) == 400


@pytest.mark.parametrize("boundary", ["x" * 5000, "", "a b", '"', "%00", "é"])
def test_odd_boundaries(server, boundary):
    status = exchange(server, WHOLE, multipart(WHOLE, boundary=boundary))
    assert 400 <= status < 500


def test_body_that_ends_early_frees_its_place(server):
    for _ in range(50):  # more than there are places
        headers = multipart(WHOLE, length=10_000)
        assert exchange(server, WHOLE[:300], headers, ends=True) in (None, 400)
    assert exchange(server, WHOLE, multipart(WHOLE)) == 200


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n", b"-5\r\nhello\r\n", b"5\r\nhel", b"ffffffffffffffffff\r\n"]
)
def test_malformed_chunked_bodies(server, chunk):
    headers = ["Content-Type: audio/wav", "Transfer-Encoding: chunked"]
    status = exchange(server, chunk, headers, ends=True)
    assert status is None or 400 <= status < 500
    assert exchange(server, WHOLE, multipart(WHOLE)) == 200
