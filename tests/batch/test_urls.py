"""Recordings at URLs, from a server that may misbehave. They need fsspec: `make test-batch`."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asr.batch.faults import SourceError, SourceUnavailable
from asr.batch.fetch import fetched
from asr.batch.sources import list_sources
from asr.batch.store import RemoteStore
from asr.config import AudioLimits
from asr.errors import InvalidOption

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytestmark = [pytest.mark.batch, pytest.mark.slow]
BODY = b"recording" * 1000


class Server(BaseHTTPRequestHandler):
    """Answers by the path: /ok.wav, /endless.wav, /STATUS.wav."""

    def do_HEAD(self):
        self.send_response(200 if self.path in ("/ok.wav", "/endless.wav") else 404)
        if self.path == "/ok.wav":
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("ETag", '"1"')
        self.end_headers()

    def do_GET(self):
        name = self.path.strip("/").removesuffix(".wav")
        self.send_response(int(name) if name.isdigit() else 200)
        if name == "ok":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if name == "ok":
            self.wfile.write(BODY)
        while name == "endless":
            try:
                self.wfile.write(BODY)
            except OSError:
                return

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_url_is_copied_and_hashed(url, tmp_path):
    with fetched(f"{url}/ok.wav", AudioLimits(), tmp_path) as source:
        assert source.path.read_bytes() == BODY
        assert source.content == hashlib.sha256(BODY).hexdigest()
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_cut_off(url, tmp_path):
    with (
        pytest.raises(SourceError, match="more than 5000000 bytes"),
        fetched(f"{url}/endless.wav", AudioLimits(max_bytes=5_000_000), tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, SourceError), (403, SourceError), (500, SourceUnavailable), (503, SourceUnavailable)],
)
def test_an_error_of_the_server_lasts_or_passes(url, tmp_path, status, error):
    with pytest.raises(error), fetched(f"{url}/{status}.wav", AudioLimits(), tmp_path):
        pass


def test_a_server_that_is_gone_may_come_back(tmp_path):
    with (
        pytest.raises(SourceUnavailable, match="cannot be fetched"),
        fetched("http://127.0.0.1:9/a.wav", AudioLimits(), tmp_path),
    ):
        pass


def test_sizes_and_stamps_of_urls(url):
    good, bad = list_sources([f"{url}/ok.wav", f"{url}/404.wav"]).sources
    assert (good.size, good.stamp) == (len(BODY), '"1"')
    assert (bad.size, bad.error) == (None, "")  # the worker tries and says why


def test_lists_folders_and_globs_at_urls():
    store = RemoteStore("memory://bucket")
    store.write("a/x.wav", b"x")
    store.write("a/notes.md", b"x")
    store.write("b/y.mp3", b"y")
    store.write("list.txt", b"a/x.wav\nmemory://bucket/b/y.mp3\n")
    found = {
        name: [source.path for source in list_sources([name]).sources]
        for name in ("memory://bucket/", "memory://bucket/*/*.mp3", "memory://bucket/list.txt")
    }
    x, y = "memory:///bucket/a/x.wav", "memory:///bucket/b/y.mp3"
    assert found["memory://bucket/"] == [x, y]
    assert found["memory://bucket/*/*.mp3"] == [y]
    assert found["memory://bucket/list.txt"] == [
        "memory://bucket/a/x.wav",
        "memory://bucket/b/y.mp3",
    ]
    assert list_sources(["memory://bucket/"]).n_skipped == 2
    assert [source.path for source in list_sources(["memory://bucket/a"]).sources] == [x]
    with pytest.raises(InvalidOption, match="cannot read the manifest"):
        list_sources(["memory://bucket/no.txt"])


def test_a_store_at_a_url(tmp_path):
    store = RemoteStore("memory://archive")
    store.write("a/b", b"xyz")
    (tmp_path / "big").write_bytes(b"0123456789")
    store.put(tmp_path / "big", "a/c/big")
    assert store.read("a/b") == b"xyz"
    assert store.read("no") is None
    assert store.names("a") == {"b", "c/big"}
    assert store.names("no") == set()
    assert store.span("a/c/big", 2, 5, tmp_path).read_bytes() == b"\0\x00234"
    store.remove(["a/b", "no"])
    store.remove_folder("a/c")
    assert store.names("a") == set()
