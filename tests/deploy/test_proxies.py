"""The examples of nginx and Caddy in front of the real service: ``make test-proxies``.

They serve it with TLS under /speech/. The test changes only names, ports and paths of files.
"""

import contextlib
import http.server
import itertools
import json
import shutil
import socket
import ssl
import subprocess
import threading

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.inprocess import serving
from tests.support.makers import noise, wav_bytes
from tests.support.paths import ROOT
from tests.support.serving import PATH, free_port, make_wav, wait_for

pytestmark = pytest.mark.proxies

TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}
RAW = {"content-type": "audio/wav"}
NAME = "example.com"
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/log;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/speech.conf;
}}
"""


_seeds = itertools.count()


def recording(seconds):
    """A recording that no other test has used."""
    return wav_bytes(noise(seconds, seed=next(_seeds)))


def changed(text, changes):
    """The example with other names; each must occur in it."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(folder, port, backend):
    example = (ROOT / "deploy" / "nginx" / "speech.conf").read_text()
    changes = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/example": f"{folder}/example",
        "server 127.0.0.1:8000": f"server 127.0.0.1:{backend}",
    }
    (folder / "speech.conf").write_text(changed(example, changes))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    return ["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/log"]


def caddy(folder, port, backend):
    example = (ROOT / "deploy" / "caddy" / "Caddyfile").read_text()
    changes = {
        f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1",
        "/etc/caddy/example": f"{folder}/example",
        "reverse_proxy 127.0.0.1:8000": f"reverse_proxy 127.0.0.1:{backend}",
    }
    own = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(own + changed(example, changes))
    return ["caddy", "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]


class Proxy:
    """A running proxy with a certificate of its own."""

    def __init__(self, folder, port):
        self.port = port
        self.url = f"https://{NAME}:{port}"
        self.context = ssl.create_default_context(cafile=str(folder / "example.crt"))
        self.client = httpx.Client(
            base_url=self.url, timeout=60, transport=_Local(verify=self.context)
        )

    def is_up(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def tls(self):
        """A raw connection."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return self.context.wrap_socket(plain, server_hostname=NAME)


class _Local(httpx.HTTPTransport):
    """Connects to this machine, whatever the name in the address is."""

    def handle_request(self, request):
        request.extensions["sni_hostname"] = NAME
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


@contextlib.contextmanager
def running(make, folder, backend):
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={NAME}"),
            *("-addext", f"subjectAltName=DNS:{NAME}"),
            *("-keyout", folder / "example.key", "-out", folder / "example.crt"),
        ],
        check=True,
        capture_output=True,
    )
    folder.chmod(0o755)  # nginx's worker is another user
    port = free_port()
    environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            make(folder, port, backend), stdout=output, stderr=output, env=environment
        )
    try:
        proxy = Proxy(folder, port)
        wait_for(lambda: proxy.is_up() or process.poll() is not None, 60, "the start of the proxy")
        assert process.poll() is None, (folder / "output").read_text()
        yield proxy
        proxy.client.close()
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def service():
    with serving(FAKE_ENGINE_ECHO="1") as server:
        yield server


@pytest.fixture(scope="module", params=[nginx, caddy])
def make(request):
    program = request.param.__name__
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    return request.param


@pytest.fixture(scope="module")
def proxy(make, service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    with running(make, folder, int(service.url.rpartition(":")[2])) as proxy:

        def answers():
            return proxy.client.get("/speech/ready").status_code == 200

        wait_for(answers, 60, "an answer through the proxy")
        yield proxy


@pytest.fixture
def client(proxy):
    return proxy.client


def test_the_service_is_under_the_prefix_only(client):
    assert client.get("/speech/health").json() == {"status": "ok"}
    assert client.get("/health").status_code in (200, 404)
    assert client.get("/health").text != client.get("/speech/health").text
    moved = client.get("/speech")
    assert (moved.status_code, moved.headers["location"]) == (308, moved.headers["location"])
    assert moved.headers["location"].removeprefix(str(client.base_url)).endswith("/speech/")
    page = client.get("/speech/", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "<html" in page.text.lower()
    document = client.get("/speech/openapi.json").json()
    assert document["servers"] == [{"url": "/speech"}]


def test_a_client_cannot_choose_the_prefix(client):
    headers = TUS | {"Upload-Length": "1", "X-Forwarded-Prefix": "/evil"}
    answer = client.post("/speech/v1/uploads", headers=headers)
    assert answer.status_code == 201
    assert answer.headers["location"].startswith("/speech/v1/uploads/")


def test_an_upload_that_breaks_off_is_resumed(proxy, client):
    content = recording(20.0)
    length = {"Upload-Length": str(len(content))}
    upload = client.post("/speech/v1/uploads", headers=TUS | length).headers["location"]
    head = "".join(
        f"{name}: {value}\r\n"
        for name, value in {
            **PART,
            "Host": NAME,
            "Upload-Offset": "0",
            "Content-Length": len(content),
        }.items()
    )
    sent = len(content) // 3

    def offset():
        return int(client.head(upload, headers=TUS).headers["upload-offset"])

    with proxy.tls() as connection:
        connection.sendall(f"PATCH {upload} HTTP/1.1\r\n{head}\r\n".encode() + content[:sent])
        wait_for(lambda: offset() == sent, 60, "the part while it arrives")

    def resume():
        headers = PART | {"Upload-Offset": str(sent)}
        return client.patch(upload, content=content[sent:], headers=headers).status_code == 204

    wait_for(resume, 90, "the release of the upload")
    assert offset() == len(content)
    job = client.post("/speech/v1/jobs", json={"upload_id": upload.rpartition("/")[2]})
    assert job.status_code == 202
    assert job.headers["location"].startswith("/speech/v1/jobs/")


def test_events_and_streamed_transcripts_pass_at_once(client):
    """The second half of the recording is sent after segments of the first half have arrived."""
    content = recording(200.0)
    half = len(content) // 2
    length = {"Upload-Length": str(len(content))}
    upload = client.post("/speech/v1/uploads", headers=TUS | length).headers["location"]
    part = PART | {"Upload-Offset": "0"}
    assert client.patch(upload, content=content[:half], headers=part).status_code == 204
    form = {"upload_id": upload.rpartition("/")[2], "stream": "true"}
    with client.stream("POST", f"/speech{PATH}", data=form) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = (line for line in answer.iter_lines() if line.startswith("data: {"))
        assert json.loads(next(events)[6:])["type"] == "transcript.text.delta"
        part = PART | {"Upload-Offset": str(half)}
        assert client.patch(upload, content=content[half:], headers=part).status_code == 204
        assert json.loads(list(events)[-1][6:])["type"] == "transcript.text.done"


def test_a_body_is_transcribed_while_it_arrives(proxy):
    """The proxy passes the body on at once, or nothing would come back before its end."""
    content = recording(200.0)
    half = len(content) // 2
    head = f"POST /speech{PATH}?stream=true HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: audio/wav\r\n"
    head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    with proxy.tls() as connection:

        def read_until(mark):
            found = b""
            while mark not in found:
                piece = connection.recv(65_536)
                assert piece, found
                found += piece
            return found

        connection.sendall(head.encode() + content[:half])
        assert read_until(b"transcript.text.delta").startswith(b"HTTP/1.1 200")
        connection.sendall(content[half:])
        read_until(b"transcript.text.done")


def test_a_live_session(proxy):
    sock = socket.create_connection(("127.0.0.1", proxy.port))
    address = proxy.url.replace("https", "wss") + "/speech/v1/realtime"
    with connect(address, sock=sock, ssl=proxy.context, open_timeout=60) as session:
        assert json.loads(session.recv(60))["type"].endswith("session.created")
        session.send(json.dumps({"type": "input_audio_buffer.commit"}))
        assert json.loads(session.recv(60))["type"] in ("error", "input_audio_buffer.committed")


def test_large_bodies_pass(client):
    """The default limit of nginx is 1 MB."""
    content = make_wav(1800.0)
    assert len(content) > 50 << 20
    length = {"Upload-Length": str(len(content))}
    upload = client.post("/speech/v1/uploads", headers=TUS | length).headers["location"]
    answer = client.patch(upload, content=content, headers=PART | {"Upload-Offset": "0"})
    assert answer.status_code == 204
    assert answer.headers["upload-offset"] == str(len(content))
    assert client.delete(upload, headers=TUS).status_code == 204


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the path and the headers of the request."""

    def do_GET(self):
        body = json.dumps({"path": self.path} | {k.lower(): v for k, v in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def test_headers_of_the_proxy_replace_those_of_the_client(make, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as backend:
        thread = threading.Thread(target=backend.serve_forever)
        thread.start()
        try:
            with running(make, tmp_path, backend.server_address[1]) as proxy:
                false = {
                    "X-Forwarded-For": "203.0.113.9",
                    "X-Forwarded-Proto": "http",
                    "X-Forwarded-Prefix": "/evil",
                }
                got = wait_for(
                    lambda: (
                        (answer := proxy.client.get("/speech/v1/jobs?limit=2", headers=false))
                        and answer.status_code == 200
                        and answer.json()
                    ),
                    60,
                )
        finally:
            backend.shutdown()
            thread.join()
    assert got["path"] == "/v1/jobs?limit=2"
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "https"
    assert got["x-forwarded-prefix"] == "/speech"
    assert got["host"] == f"{NAME}:{proxy.port}"
