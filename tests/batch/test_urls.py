"""Recordings at URLs, from a server that may misbehave. They need fsspec: `make test-batch`."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from asr.batch import sources, store
from asr.batch.faults import SourceError, SourceUnavailable
from asr.batch.fetch import fetched
from asr.batch.sources import list_sources
from asr.batch.store import LocalStore, RemoteStore, open_store
from asr.batch.urls import filesystem
from asr.config import AudioLimits
from asr.errors import InvalidOption

MemoryFileSystem = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
pytest.importorskip("aiohttp")
pytestmark = [pytest.mark.batch, pytest.mark.slow]
LIMITS = AudioLimits()
BODY = b"recording" * 1000


class Server(BaseHTTPRequestHandler):
    """Answers by the path: /ok.wav, /endless.wav, /loop.wav, /STATUS.wav; /echo?... is itself."""

    def do_HEAD(self):
        self.send_response(200 if self.path in ("/ok.wav", "/endless.wav") else 404)
        if self.path == "/ok.wav":
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("ETag", '"1"')
        self.end_headers()

    def do_GET(self):
        name = self.path.strip("/").removesuffix(".wav")
        if name == "loop":
            self.send_response(302)
            self.send_header("Location", "/loop.wav")
            self.end_headers()
            return
        self.send_response(int(name) if name.isdigit() else 200)
        if name == "ok":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if name == "ok":
            self.wfile.write(BODY)
        if name.startswith("echo"):
            self.wfile.write(self.path.encode())
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


def test_all_urls_share_their_connections(url):
    first, second = (filesystem(f"{url}/{name}.wav")[0] for name in ("a", "b"))
    assert first is second


def test_a_server_that_redirects_for_ever_is_given_up(url, tmp_path):
    name = f"{url}/loop.wav"
    with pytest.raises(SourceError, match="for ever"), fetched(name, LIMITS, tmp_path):
        pass


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/echo?key=a%2Fb%2B%3D&x=1+2", "/echo?key=a%2Fb%2B%3D&x=1+2"),  # as it was signed
        ("/echo/a b.wav", "/echo/a%20b.wav"),
        ("/echo/100%.wav", "/echo/100%25.wav"),
        ("/echo/é.wav", "/echo/%C3%A9.wav"),
    ],
)
def test_a_url_is_sent_as_it_is_unless_it_is_none(url, tmp_path, path, sent):
    with fetched(f"{url}{path}", LIMITS, tmp_path) as source:
        assert source.path.read_text() == sent


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
    bucket = RemoteStore("memory://bucket")
    bucket.write("a/x.wav", b"x")
    bucket.write("a/notes.md", b"x")
    bucket.write("b/y.mp3", b"y")
    bucket.write("list.txt", b"a/x.wav\nmemory://bucket/b/y.mp3\n")
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
    with pytest.raises(InvalidOption, match="cannot read the list"):
        list_sources(["memory://bucket/no.txt"])


def test_every_kind_of_url_in_a_list_is_checked(tmp_path):
    (tmp_path / "list.txt").write_text("memory://a/x.wav\ngopher://x/a.wav\n")
    with pytest.raises(InvalidOption, match="gopher:// is not supported"):
        list_sources([str(tmp_path / "list.txt")])


def test_a_url_that_means_nothing_fails_alone(tmp_path):
    name = "http://127.0.0.1:port/a.wav"
    assert [source.path for source in list_sources([name]).sources] == [name]
    with pytest.raises(SourceError, match="cannot be fetched"), fetched(name, LIMITS, tmp_path):
        pass


class Refusing(MemoryFileSystem):
    """Has errors of its own, as the libraries of object stores."""

    def _refuse(self, *_, **__):
        raise RuntimeError("no credentials")

    find = glob = cat_file = pipe_file = makedirs = _refuse


def test_errors_of_a_library_are_told_in_one_line(monkeypatch):
    monkeypatch.setattr(sources, "filesystem", lambda _: (Refusing(), "/b/"))
    monkeypatch.setattr(store, "filesystem", lambda _: (Refusing(), "/b"))
    with pytest.raises(InvalidOption, match="cannot list s3://b/: no credentials"):
        list_sources(["s3://b/"])
    for work in (lambda it: it.read("a"), lambda it: it.write("a", b""), lambda it: it.names("a")):
        with pytest.raises(OSError, match="no credentials"):
            work(RemoteStore("s3://b"))


def test_a_file_url_as_output_is_a_folder(tmp_path):
    found = open_store(f"file://{tmp_path}/out")
    assert isinstance(found, LocalStore)
    assert found.root == tmp_path / "out"
    assert isinstance(open_store("memory://out"), RemoteStore)


def test_a_store_at_a_url(tmp_path):
    archive = RemoteStore("memory://archive")
    archive.write("a/b", b"xyz")
    (tmp_path / "big").write_bytes(b"0123456789")
    archive.put(tmp_path / "big", "a/c/big")
    assert archive.read("a/b") == b"xyz"
    assert archive.read("no") is None
    assert archive.names("a") == {"b", "c/big"}
    assert archive.names("no") == set()
    assert archive.span("a/c/big", 2, 5, tmp_path).read_bytes() == b"\0\x00234"
    archive.remove(["a/b", "no"])
    archive.remove_folder("a/c")
    assert archive.names("a") == set()
