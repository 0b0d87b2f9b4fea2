"""tus 1.0 over HTTP: the protocol, real clients, clients that disconnect, and expiry.

The service runs in process; the test that kills it uses real server processes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient import client as tus_client

from asr.service.files import finished_in_thread
from asr.service.uploads.parts import ALGORITHMS
from asr.service.uploads.receive import write_body
from asr.service.uploads.store import Uploads
from tests.support.inprocess import serving
from tests.support.paths import ROOT
from tests.support.serving import FAKE, launched, wait_for

PATH = "/v1/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}
LIMIT = 100 << 30
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def server():
    limits = {"ASR_MAX_UPLOAD_BYTES": str(LIMIT), "ASR_UPLOAD_QUOTA_BYTES": str(2 * LIMIT)}
    with serving(until="/health", ASR_CORS_ORIGINS=ORIGIN, **limits) as server:
        yield server


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def create(http, length, **headers):
    answer = http.post(PATH, headers=TUS | {"Upload-Length": str(length)} | headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(http, location, data, offset=0, **headers):
    return http.patch(
        location, content=data, headers=PART | {"Upload-Offset": str(offset)} | headers
    )


def head(http, location):
    return http.head(location, headers=TUS)


def checksum(data, algorithm="sha1"):
    digest = base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
    return {"Upload-Checksum": f"{algorithm} {digest}"}


def stored(server, location, folder=None):
    """The file of an upload, in the server's data folder or another one."""
    (found,) = (folder or data_dir(server)).glob(f"uploads/*/{Path(location).name}.bin")
    return found


def data_dir(server):
    return server.log_path.parent / "data"


def random_bytes(n, seed=0):
    return random.Random(seed).randbytes(n)


# --- the protocol -------------------------------------------------------------------------------


def test_options_list_the_extensions(http):
    answer = http.options(PATH)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(LIMIT)
    assert answer.headers["tus-checksum-algorithm"] == ",".join(ALGORITHMS)
    offered = set(answer.headers["tus-extension"].split(","))
    assert {"creation", "creation-with-upload", "checksum", "expiration", "termination"} <= offered


def test_an_upload_in_two_parts(http, server):
    location = create(http, 10, **{"Upload-Metadata": "filename YS5tcDM=,draft"})
    assert patch(http, location, b"hello").headers["upload-offset"] == "5"
    told = head(http, location)
    assert told.status_code == 200
    assert told.headers["upload-offset"] == "5"
    assert told.headers["upload-length"] == "10"
    assert told.headers["upload-metadata"] == "filename YS5tcDM=,draft"
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["upload-expires"].endswith("GMT")
    answer = patch(http, location, b"world", 5)
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "10")
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert stored(server, location).read_bytes() == b"helloworld"


def test_creation_with_upload(http, server):
    headers = PART | {"Upload-Length": "10"}
    answer = http.post(PATH, content=b"hello", headers=headers | checksum(b"hello"))
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "5")
    assert stored(server, answer.headers["location"]).read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("content", "proof", "status"),
    [(b"hello", checksum(b"damaged"), 460), (iter([b"hello", b" world"]), {}, 413)],
)
def test_a_creation_that_fails_leaves_no_upload(http, server, content, proof, status):
    """Its client does not know its address, and it would count for the quota until it expires."""
    before = set(data_dir(server).glob("uploads/*/*"))
    answer = http.post(PATH, content=content, headers=PART | {"Upload-Length": "10"} | proof)
    assert answer.status_code == status
    assert set(data_dir(server).glob("uploads/*/*")) <= before


def test_length_that_is_sent_later(http, server):
    answer = http.post(PATH, headers=TUS | {"Upload-Defer-Length": "1"})
    location = answer.headers["location"]
    assert head(http, location).headers["upload-defer-length"] == "1"
    assert patch(http, location, b"hello").status_code == 204
    answer = patch(http, location, b"world", 5, **{"Upload-Length": "10"})
    assert answer.status_code == 204
    assert head(http, location).headers["upload-length"] == "10"
    assert patch(http, location, b"", 10, **{"Upload-Length": "11"}).status_code == 400


def test_chunked_parts(http, server):
    data = random_bytes(3 << 20)
    location = create(http, len(data))
    pieces = (data[i : i + 70_001] for i in range(0, len(data), 70_001))
    answer = patch(http, location, pieces, **checksum(data, "sha256"))
    assert answer.status_code == 204, answer.text
    assert stored(server, location).read_bytes() == data


def test_a_part_with_a_wrong_checksum_is_dropped(http):
    location = create(http, 10)
    answer = patch(http, location, b"hellO", **checksum(b"hello"))
    assert answer.status_code == 460
    assert answer.json()["error"]["code"] == "checksum_mismatch"
    assert head(http, location).headers["upload-offset"] == "0"
    assert patch(http, location, b"hello", **checksum(b"hello")).status_code == 204


def test_termination(http):
    location = create(http, 10)
    answer = http.delete(location, headers=TUS)
    assert (answer.status_code, answer.headers["tus-resumable"]) == (204, "1.0.0")
    for again in (
        head(http, location),
        patch(http, location, b"x"),
        http.delete(location, headers=TUS),
    ):
        assert again.status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 412),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "1"}, 412),
        (TUS, 400),
        (TUS | {"Upload-Length": "-1"}, 400),
        (TUS | {"Upload-Length": "1e3"}, 400),
        (TUS | {"Upload-Length": "9" * 30}, 400),
        (TUS | {"Upload-Length": "1", "Upload-Defer-Length": "1"}, 400),
        (TUS | {"Upload-Defer-Length": "2"}, 400),
        (TUS | {"Upload-Length": str(LIMIT + 1)}, 413),
        (TUS | {"Upload-Length": "1", "Upload-Metadata": "a YQ==,a YQ=="}, 400),
        (TUS | {"Upload-Length": "1", "Upload-Metadata": "a b c"}, 400),
        (TUS | {"Upload-Length": "1", "Upload-Metadata": "a !!!"}, 400),
        (TUS | {"Upload-Length": "1", "Upload-Metadata": "a YQ==,"}, 400),
        (TUS | {"Upload-Length": "1", "Upload-Metadata": f"a {'YWFh' * 3000}"}, 400),
        (PART | {"Upload-Length": "1", "Upload-Checksum": "crc7 AAAA"}, 400),
    ],
)
def test_creations_that_are_refused(http, headers, status):
    answer = http.post(PATH, headers=headers)
    assert answer.status_code == status
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.json()["error"]["message"]
    assert ("tus-version" in answer.headers) == (status == 412)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Content-Type": "application/octet-stream"}, 415),
        ({"Upload-Offset": "3"}, 409),
        ({"Upload-Offset": "+0"}, 400),
        ({"Upload-Checksum": "sha1"}, 460),
        ({"Upload-Checksum": "md4 AAAA"}, 400),
    ],
)
def test_parts_that_are_refused(http, headers, status):
    location = create(http, 4)
    answer = patch(http, location, b"abcd", **headers)
    assert answer.status_code == status
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert head(http, location).headers["upload-offset"] == "0"


def test_a_part_needs_an_offset(http):
    assert http.patch(create(http, 4), content=b"abcd", headers=PART).status_code == 400


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_part_that_is_too_long(http, is_chunked):
    location = create(http, 4)
    answer = patch(http, location, iter([b"abcde"]) if is_chunked else b"abcde")
    assert answer.status_code == 413
    assert int(head(http, location).headers["upload-offset"]) < 4


def test_methods_that_are_overridden(http, server):
    location = create(http, 5)
    override = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0"}
    assert http.post(location, content=b"hello", headers=PART | override).status_code == 204
    assert stored(server, location).read_bytes() == b"hello"
    override = {"X-HTTP-Method-Override": "HEAD"}
    answer = http.post(location, headers=TUS | override)
    assert (answer.status_code, answer.headers["upload-offset"]) == (200, "5")
    override = {"X-HTTP-Method-Override": "DELETE"}
    assert http.post(location, headers=TUS | override).status_code == 204
    assert head(http, location).status_code == 404
    assert http.post(location, headers=TUS).status_code == 405
    assert http.get(location, headers=TUS).status_code == 405


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%00", "a" * 32, "x" * 5000, "%e2%82%ac"])
def test_unknown_ids(http, name):
    for answer in (head(http, f"{PATH}/{name}"), patch(http, f"{PATH}/{name}", b"x")):
        assert answer.status_code == 404


def test_a_browser_of_an_allowed_origin(http):
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    asks["Access-Control-Request-Headers"] = "tus-resumable,upload-offset,upload-checksum"
    answer = http.options(f"{PATH}/{'a' * 32}", headers=asks)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert "upload-offset" in answer.headers["access-control-allow-headers"]
    answer = http.post(PATH, headers=TUS | {"Upload-Length": "1", "Origin": ORIGIN})
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"location", "upload-offset"} <= set(exposed.split(", "))
    transcripts = {"x-transcript-warnings", "x-transcript-complete", "x-job-state", "etag"}
    assert transcripts <= set(exposed.split(", "))
    answer = http.options(PATH, headers=asks | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


# --- clients that disconnect --------------------------------------------------------------------


class RawPart:
    """A PATCH request on a raw socket, whose body the test sends in pieces."""

    def __init__(self, server, location, length, **headers):
        host = urlsplit(server.url)
        self.socket = socket.create_connection((host.hostname, host.port), timeout=20)
        lines = (
            PART | {"Host": host.netloc, "Upload-Offset": "0", "Content-Length": length} | headers
        )
        request = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"PATCH {location} HTTP/1.1\r\n{request}\r\n".encode())

    def send(self, data):
        self.socket.sendall(data)

    def status(self):
        return int(self.socket.recv(4096).split()[1])


def test_bytes_before_a_disconnect_are_kept(http, server):
    data = random_bytes(5 << 20)
    location = create(http, len(data))
    part = RawPart(server, location, len(data))
    part.send(data[:3_000_001])
    part.socket.close()
    wait_for(lambda: resume(http, location, data), 60)
    assert stored(server, location).read_bytes() == data


def test_only_threads_of_uploads_use_the_disk(http, monkeypatch):
    """PATCH opened, locked and removed files on the event loop."""
    seen = []

    def spied(original):
        def spy(path, *args, **kwargs):
            if "uploads" in path.parts:
                seen.append(threading.current_thread().name)
            return original(path, *args, **kwargs)

        return spy

    for name in ("open", "unlink", "stat", "touch"):
        monkeypatch.setattr(Path, name, spied(getattr(Path, name)))
    data = random_bytes(1000)
    location = create(http, len(data))
    assert head(http, location).status_code == 200
    assert patch(http, location, data[:500], **checksum(data[:500])).status_code == 204
    assert patch(http, location, data[500:], 500).status_code == 204
    assert http.delete(location, headers=TUS).status_code == 204
    assert {name.partition("_")[0] for name in seen} == {"uploads"}


@pytest.mark.parametrize("n_bytes", [1, 1_040_000])
def test_received_bytes_count_while_the_client_pauses(http, server, n_bytes):
    """Up to 1 MiB was once kept in memory until more arrived, so followers did not get it."""
    data = random_bytes(2 << 20)
    location = create(http, len(data))
    part = RawPart(server, location, len(data))
    part.send(data[:n_bytes])
    wait_for(lambda: offset_of(http, location) == n_bytes, 60)
    part.send(data[n_bytes:])
    assert part.status() == 204
    part.socket.close()
    assert stored(server, location).read_bytes() == data


@pytest.mark.parametrize("n_written", [0, 1])
def test_buffered_bytes_are_kept_when_the_request_is_cancelled(tmp_path, monkeypatch, n_written):
    """At SIGTERM the request is cancelled after the grace period."""
    monkeypatch.setattr("asr.service.uploads.receive.GATHER_SECONDS", 3600)
    monkeypatch.setattr("asr.service.uploads.receive.WRITE_BYTES", 3 if n_written else 100)
    uploads = Uploads(tmp_path, 100, 100, 3600)
    made = uploads.create("me", 100)

    async def run():
        waits = asyncio.Event()

        async def stream():
            yield b"hello"
            yield b" w"
            waits.set()
            await asyncio.Event().wait()

        async def receive():
            with uploads.writing(made.id, "me") as writer, writer.part(None) as part:
                request = SimpleNamespace(stream=stream)
                await write_body(request, writer, part, finished_in_thread)

        task = asyncio.create_task(receive())
        await waits.wait()
        while uploads.status(made.id, "me").offset < 5 * n_written:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(run())
    assert uploads.status(made.id, "me").offset == 7


def resume(http, location, data):
    """Continue from the current offset; false until the server has noticed the disconnect."""
    start = offset_of(http, location)
    if start < 2 << 20:  # the last bytes of a broken connection may be lost
        return False
    return patch(http, location, data[start:], start).status_code == 204


def test_an_unverified_part_is_dropped_at_a_disconnect(http, server):
    data = random_bytes(5 << 20)
    location = create(http, len(data))
    part = RawPart(server, location, len(data), **checksum(data))
    part.send(data[:3_000_001])
    side = stored(server, location).with_suffix(".part")
    wait_for(side.exists, 60)
    part.socket.close()
    wait_for(lambda: not side.exists(), 60)
    assert offset_of(http, location) == 0


def test_a_second_writer_is_told_to_wait(http, server):
    location = create(http, 10)
    slow = RawPart(server, location, 10, **checksum(b"helloworld"))
    slow.send(b"hello")
    wait_for(stored(server, location).with_suffix(".part").exists, 60)  # it has the lock
    answer = patch(http, location, b"hello")
    assert (answer.status_code, answer.headers["retry-after"]) == (423, "1")
    assert http.delete(location, headers=TUS).status_code == 423
    assert offset_of(http, location) == 0
    slow.send(b"world")
    assert slow.status() == 204
    assert offset_of(http, location) == 10
    slow.socket.close()


def offset_of(http, location):
    return int(head(http, location).headers["upload-offset"])


# --- real clients -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_proven", [False, True])
def test_tuspy_resumes(http, server, is_proven):
    data = random_bytes(1_500_000)
    stream = io.BytesIO(data)
    made = tus_client.TusClient(f"{server.url}{PATH}")
    options = {"chunk_size": 100_000, "upload_checksum": is_proven}
    uploader = made.uploader(file_stream=stream, metadata={"filename": "../../a b.mp3"}, **options)
    uploader.upload(stop_at=700_000)
    location = urlsplit(uploader.url).path
    assert offset_of(http, location) == 700_000
    again = made.uploader(file_stream=stream, url=uploader.url, **options)
    assert again.offset == 700_000
    again.upload()
    assert stored(server, location).read_bytes() == data


JS = """
const tus = require("tus-js-client"), fs = require("fs");
const { PassThrough } = require("stream");
const [endpoint, path] = process.argv.slice(2);
const options = {
  endpoint, chunkSize: 100000, retryDelays: [0, 100], metadata: { filename: "a b.mp3" },
  onError: (error) => { console.error(error); process.exit(1); },
};
const first = new tus.Upload(fs.createReadStream(path), {
  ...options, uploadSize: fs.statSync(path).size,
  onChunkComplete: (_, sent) => {
    if (sent === 700000) first.abort().then(() => resume(first.url));
  },
});
function resume(url) {
  const second = new tus.Upload(fs.createReadStream(path), {
    ...options, uploadUrl: url, uploadSize: fs.statSync(path).size,
    onSuccess: () => deferred(url),
  });
  second.start();
}
function deferred(url) {
  const stream = fs.createReadStream(path).pipe(new PassThrough());  // whose end nobody knows
  const third = new tus.Upload(stream, {
    ...options, uploadLengthDeferred: true,
    onSuccess: () => gone(url, third.url),
  });
  third.start();
}
function gone(url, other) {
  let ended, isEnding = false;
  const fourth = new tus.Upload(fs.createReadStream(path), {
    ...options, uploadSize: fs.statSync(path).size,
    onChunkComplete: (_, sent) => {
      if (sent < 500000 || isEnding) return;
      isEnding = true;
      fourth.abort(true).then(
        () => console.log(JSON.stringify({ resumed: url, deferred: other, ended })));
    },
    onUploadUrlAvailable: () => { ended = fourth.url; },
  });
  fourth.start();
}
first.start();
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_tus_js_client_resumes_and_terminates(http, server, tmp_path):
    """Run by ``make test-tus-js``, which installs the client beside the virtual environment."""
    modules = ROOT / "build" / "tus-js" / "node_modules"
    if not modules.exists():
        pytest.skip("run make test-tus-js, which installs tus-js-client")
    data = random_bytes(1_450_001)  # the client never ends a stream of only whole chunks
    (tmp_path / "a.mp3").write_bytes(data)
    (tmp_path / "run.js").write_text(JS)
    command = ["node", str(tmp_path / "run.js"), server.url + PATH, str(tmp_path / "a.mp3")]
    env = os.environ | {"NODE_PATH": str(modules)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    urls = {name: urlsplit(url).path for name, url in json.loads(done.stdout).items()}
    assert stored(server, urls["resumed"]).read_bytes() == data
    assert stored(server, urls["deferred"]).read_bytes() == data
    assert head(http, urls["ended"]).status_code == 404


# --- kills and time -----------------------------------------------------------------------------


def test_kill_in_the_middle_of_a_part(tmp_path):
    """The received bytes of a part without a checksum are kept; with a checksum none are."""
    data, n_sent = random_bytes(8 << 20), 3_000_003
    with launched(*FAKE, ASR_DATA_DIR=str(tmp_path)) as server:
        server.wait_ready("/health")
        plain, proven = (create(server.client(), len(data)) for _ in range(2))
        files = [stored(server, location, tmp_path) for location in (plain, proven)]
        parts = [
            RawPart(server, plain, len(data), **{"Upload-Offset": 0}),
            RawPart(server, proven, len(data), **{"Upload-Offset": 0}, **checksum(data)),
        ]
        for part in parts:
            part.send(data[:n_sent])
        wait_for_size(files[0], 1 << 20)
        wait_for_size(files[1].with_suffix(".part"), 1 << 20)
        for pid in server.pids():
            os.kill(pid, signal.SIGKILL)
        server.wait_gone()
        for part in parts:
            part.socket.close()
    assert files[1].stat().st_size == 0
    with launched(*FAKE, ASR_DATA_DIR=str(tmp_path)) as server:
        server.wait_ready("/health")
        http = server.client()
        starts = [offset_of(http, location) for location in (plain, proven)]
        assert starts[0] >= 1 << 20
        assert starts[1] == 0
        for location, start, file in zip((plain, proven), starts, files, strict=True):
            assert file.read_bytes() == data[:start]
            rest = data[start:]
            headers = checksum(rest) if location == proven else {}
            assert patch(http, location, rest, start, **headers).status_code == 204
            assert file.read_bytes() == data


def wait_for_size(path, n_bytes):
    wait_for(lambda: path.exists() and path.stat().st_size >= n_bytes, 60)


@pytest.mark.slow
def test_an_upload_expires():
    with serving(until="/health", ASR_UPLOAD_TTL="1.5") as server:
        http = server.client()
        location = create(http, 10)
        time.sleep(1)
        assert patch(http, location, b"hello").status_code == 204  # extends its life
        time.sleep(1)
        assert offset_of(http, location) == 5
        wait_for(lambda: head(http, location).status_code == 410, 60)
        assert patch(http, location, b"world", 5).status_code == 410
        wait_for(lambda: not list(data_dir(server).glob("uploads/*/*.bin")), 60)
