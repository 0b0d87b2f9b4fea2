"""Attacks by clients without a key or with another key, on an in-process service.

docs/security.md names these tests.
"""

import base64
import contextlib
import json
import re
import socket
import time

import httpx
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from asr.errors import EngineUnavailable
from asr.service.litserve.messages import EngineState
from tests.service.access.test_keys import lines
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")

WAV = make_wav(1.0)
RAW = {"content-type": "audio/wav"}
TUS = {"tus-resumable": "1.0.0"}
PART_TYPE = "application/offset+octet-stream"
LIMIT = 1 << 20
SCOPES = ("transcribe", "jobs", "uploads", "realtime", "metrics")
NOBODYS = "0" * 32
OPEN = {"/health", "/ready"}
# Methods and paths that the OpenAPI document does not list.
UNLISTED = [
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
    ("GET", "/docs/oauth2-redirect"),
    ("GET", "/page"),
    ("GET", "//"),
    ("GET", "//page/config.json"),
    ("GET", "/metrics/"),
    ("GET", "//metrics"),
    ("GET", "/health/"),
    ("GET", "/health/../metrics"),
    ("GET", "/ready/x"),
    ("OPTIONS", "/v1/jobs"),
    ("OPTIONS", "/v1/uploads"),
    ("HEAD", "/docs"),
    ("TRACE", "/v1/models"),
    ("PUT", PATH),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two keys with all scopes, one key for each single scope, and small limits."""
    keys = {"a": {"scopes": SCOPES}, "b": {"scopes": SCOPES}}
    keys |= {f"only-{scope}": {"scopes": [scope]} for scope in SCOPES}
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text(lines(keys))
    settings = {
        "ASR_API_KEYS_FILE": str(path),
        "ASR_MAX_UPLOAD_BYTES": str(LIMIT),
        "ASR_WEBHOOK_SECRET": "a secret",
    }
    with serving(**settings) as server:
        yield server


def ask(server, name, method, path, headers=(), **options):
    """The answer to a request with the key `name`; "" sends no key."""
    key = {"authorization": f"Bearer key-{name}"} if name else {}
    return HTTP.request(method, server.url + path, headers=key | dict(headers), **options)


def address(server):
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def talk(server, *sent, key="a"):
    """Send raw bytes, with the key in place of {key}, and return the whole answer."""
    with socket.create_connection(address(server), timeout=20) as connection:
        for piece in sent:
            connection.sendall(piece.replace(b"{key}", f"X-API-Key: key-{key}".encode()))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    return answer


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def operations(server):
    """Every method and path of the OpenAPI document, with ids that do not exist."""
    document = ask(server, "a", "GET", "/openapi.json").json()
    fill = {"extension": "srt", "name": "x", "session_id": f"sess_{NOBODYS}"}
    for path, methods in document["paths"].items():
        filled = re.sub(r"{(\w+)}", lambda part: fill.get(part[1], NOBODYS), path)
        for method in methods:
            yield method.upper(), filled


# --- keys ---------------------------------------------------------------------------------------


def test_every_route_asks_for_a_key(server):
    asked = [*operations(server), *UNLISTED]
    assert len(asked) > len(UNLISTED) + 20
    for method, path in asked:
        for name in ("", "nobody"):
            answer = ask(server, name, method, path)
            expected = 200 if path in OPEN else 401
            assert answer.status_code == expected, (method, path, name)


def test_live_asks_for_a_key(server):
    url = server.url.replace("http", "ws") + "/v1/realtime"
    for headers in ({}, {"x-api-key": "key-nobody"}, {"authorization": "Basic a2V5LWE6"}):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            connect(url, additional_headers=headers)
        assert refused.value.response.status_code == 401


def scope_of(path):
    starts = {
        "/v1/audio/": "transcribe",
        "/v1/align": "transcribe",
        "/asr": "transcribe",
        "/detect-language": "transcribe",
        "/inference": "transcribe",
        "/v1/jobs": "jobs",
        "/v1/speakers": "transcribe",
        "/v1/uploads": "uploads",
        "/v1/realtime": "realtime",
        "/metrics": "metrics",
    }
    return next((scope for start, scope in starts.items() if path.startswith(start)), None)


def test_every_route_that_does_something_has_a_scope(server):
    """A route without a scope is open to every key, so each such route must be listed here."""
    unscoped = {path for _, path in operations(server) if scope_of(path) is None}
    assert unscoped == OPEN | {"/v1/models", "/v1/models/x", "/v1/schemas/transcript.json"}
    for method, path in operations(server):
        scope = scope_of(path)
        for held in SCOPES:
            status = ask(server, f"only-{held}", method, path).status_code
            assert (status == 403) == (scope not in (None, held)), (method, path, held, status)


def test_no_key_reaches_the_data_of_another(server):
    job = ask(server, "a", "POST", "/v1/jobs", RAW, content=make_wav(0.7)).json()["id"]
    created = ask(server, "a", "POST", "/v1/uploads", TUS | {"upload-length": "5"})
    upload = created.headers["location"]
    append = {"upload-offset": "0", "content-type": PART_TYPE}
    unknown = ask(server, "b", "GET", f"/v1/jobs/{NOBODYS}")
    others = [
        ("GET", f"/v1/jobs/{job}", {}),
        ("GET", f"/v1/jobs/{job}/events", {}),
        *(("GET", f"/v1/jobs/{job}/transcript.{kind}", {}) for kind in ("srt", "json", "txt")),
        ("POST", f"/v1/jobs/{job}/cancel", {}),
        ("DELETE", f"/v1/jobs/{job}", {}),
        ("HEAD", upload, TUS),
        ("PATCH", upload, TUS | append),
        ("DELETE", upload, TUS),
        ("POST", upload, TUS | {"x-http-method-override": "DELETE"}),
    ]
    for method, path, headers in others:
        answer = ask(server, "b", method, path, headers)
        assert answer.status_code == 404, (method, path)
        if "jobs" in path:
            assert answer.json() == unknown.json()  # does not reveal that the job exists
    for name in ("a", "b"):
        listed = ask(server, name, "GET", "/v1/jobs?limit=100").json()["data"]
        assert (job in [item["id"] for item in listed]) == (name == "a")
    after = ask(server, "b", "GET", f"/v1/jobs?after={job}").json()
    assert after.get("data", []) == []  # nor which jobs are older
    upload_id = upload.rpartition("/")[2]
    for path in (PATH, "/v1/jobs", "/v1/align"):
        fields = (
            {"upload_id": upload_id, "text": "a"}
            if path == "/v1/align"
            else {"upload_id": upload_id}
        )
        assert ask(server, "b", "POST", path, json=fields).status_code == 404
    assert ask(server, "a", "HEAD", upload, TUS).headers["upload-offset"] == "0"
    assert ask(server, "a", "GET", f"/v1/jobs/{job}").json()["state"] != "cancelled"


def test_a_key_shares_no_work_with_another(server):
    """Idempotency keys and equal recordings join requests of one API key, never of two."""
    same = RAW | {"idempotency-key": "the same"}
    made = [ask(server, name, "POST", "/v1/jobs", same, content=WAV) for name in "aab"]
    assert [answer.status_code for answer in made] == [202, 200, 202]
    first, again, others = (answer.json()["id"] for answer in made)
    assert first == again != others


def test_a_live_session_belongs_to_its_key(server):
    url = server.url.replace("http", "ws") + "/v1/realtime"
    with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
        session = json.loads(raw.recv())["session"]["id"]
        path = f"/v1/realtime/sessions/{session}"
        assert ask(server, "a", "GET", path).status_code == 200
        assert ask(server, "b", "GET", path).status_code == 404


# --- names --------------------------------------------------------------------------------------

NAMES = [
    "..",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/jobs.db",
    "..%5c..%5cwindows",
    "%252e%252e%252fetc%252fpasswd",
    "%2fetc%2fpasswd",
    "%00",
    NOBODYS + "%00.json",
    NOBODYS + "%0a",
    NOBODYS[:-1] + "%ef%bc%90",  # a full-width zero
    "%c0%ae%c0%ae%c0%af",
    "%e2%80%ae",
    ".",
    "*",
    "held",
    "a" * 5000,
]
TEMPLATES = [
    ("HEAD", "/v1/uploads/{}"),
    ("PATCH", "/v1/uploads/{}"),
    ("DELETE", "/v1/uploads/{}"),
    ("GET", "/v1/jobs/{}"),
    ("DELETE", "/v1/jobs/{}"),
    ("POST", "/v1/jobs/{}/cancel"),
    ("GET", "/v1/jobs/{}/events"),
    ("GET", "/v1/jobs/{}/transcript.srt"),
    ("GET", f"/v1/jobs/{NOBODYS}/transcript.{{}}"),
    ("GET", "/v1/realtime/sessions/{}"),
    ("GET", "/v1/schemas/{}"),
    ("GET", "/docs/{}"),
]


@pytest.mark.parametrize(("method", "template"), TEMPLATES)
def test_no_name_leads_out_of_its_folder(server, method, template):
    """The paths are sent as raw bytes, since HTTP clients would normalise them."""
    for name in NAMES:
        target = f"{method} {template.format(name)} HTTP/1.1".encode()
        more = b"Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: 0\r\n"
        more += b"Content-Type: application/offset+octet-stream\r\nConnection: close\r\n"
        answer = talk(server, target + b"\r\nHost: x\r\n{key}\r\n" + more + b"\r\n")
        assert status_of(answer) in (400, 404, 405), (name, answer)
        assert b"root:" not in answer


def test_names_in_bodies_never_become_paths(server, tmp_path):
    for name in ("../../evil", "/etc/passwd", "evil\0.wav", "..\\evil", "\u202eevil", "a" * 8000):
        files = {"file": (name, WAV, "audio/wav")}
        assert ask(server, "a", "POST", PATH, files=files).status_code in (200, 400)
        metadata = "filename " + base64.b64encode(name.encode()[:4000]).decode()
        headers = TUS | {"upload-length": "1", "upload-metadata": metadata}
        created = ask(server, "a", "POST", "/v1/uploads", headers)
        assert re.fullmatch(r"/v1/uploads/[0-9a-f]{32}", created.headers["location"])
        for path in (PATH, "/v1/jobs"):
            answer = ask(server, "a", "POST", path, json={"upload_id": name})
            assert answer.status_code in (400, 404)
            assert answer.json()["error"]["param"] == "upload_id"
    home = server.log_path.parent
    assert not [path for path in home.rglob("*") if "evil" in path.name]


def test_a_path_cannot_forge_a_line_of_the_log(server):
    ask(server, "a", "GET", "/x%0A2026-01-01 00:00:00,000 INFO 1 asr: forged%0D%1b[2J")
    wait_for(lambda: "forged" in server.log, 60, "the line")
    assert not re.search(r"^2026-01-01", server.log, re.MULTILINE)
    assert "\x1b" not in server.log


# --- leaks and redirects ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/jobs/", "/docs/", "/v1/uploads/", "/v1/models//"])
def test_redirects_do_not_follow_a_forged_host(server, path):
    for host in (b"evil.example", b"evil.example:80", b"x/../evil", b"@evil.example"):
        for more in (b"", b"X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n"):
            head = f"GET {path}?a=b HTTP/1.1\r\nHost: ".encode() + host + b"\r\n" + more
            answer = talk(server, head + b"{key}\r\nConnection: close\r\n\r\n")
            assert b"evil" not in answer
            location = re.search(rb"(?i)\r\nlocation: (\S+)", answer)
            if status_of(answer) in (307, 308):
                assert re.match(rb"/(?!/)", location[1]), answer
    assert (
        status_of(
            talk(server, b"GET /v1/jobs/ HTTP/1.1\r\nHost: x\r\n{key}\r\nConnection: close\r\n\r\n")
        )
        == 307
    )


def test_locations_are_relative(server):
    """Of a new job and a new upload, with a forged Host header."""
    forged = {"host": "evil.example"}
    job = ask(server, "a", "POST", "/v1/jobs", RAW | forged, content=WAV)
    upload = ask(server, "a", "POST", "/v1/uploads", TUS | forged | {"upload-length": "1"})
    for answer in (job, upload):
        assert answer.headers["location"].startswith("/v1/")
        assert "evil" not in answer.text
    assert "evil" not in ask(server, "a", "GET", "/openapi.json", forged).text


ADDRESS = "http://10.9.8.7:6543"


def test_no_answer_names_the_servers_behind_this_one(server, monkeypatch):
    """Not for a client without a key, and not in the error of a transcription."""
    message = f"no server answers at {ADDRESS}; see /srv/secret/models"

    async def unavailable(*_):
        return EngineState("omni", "omni", ready=False, reason=message)

    async def fails(*_, **__):
        raise EngineUnavailable(message)

    service = server._application.service
    monkeypatch.setattr(service._client, "engine_state", unavailable)
    monkeypatch.setattr(service._sources, "open", fails)
    ready = ask(server, "", "GET", "/ready")
    assert ready.status_code == 503
    assert ready.json()["reason"].startswith("no server answers at")
    failed = ask(server, "a", "POST", PATH, RAW, content=WAV)
    assert failed.status_code == 503
    open_answers = [ask(server, "", "GET", path) for path in ("/health", "/metrics", "/docs")]
    for answer in (ready, failed, *open_answers):
        shown = answer.text + str(answer.headers)
        for secret in ("10.9.8.7", "6543", "/srv", "uvicorn", "Python", "starlette"):
            assert secret not in shown, shown
    assert ADDRESS in server.log  # the operator sees it


# --- sizes --------------------------------------------------------------------------------------


FORMS = (PATH, "/v1/align", "/v1/jobs")
MANY = {f"f{n}": "x" for n in range(200)}


def form(*parts):
    return {"files": [(name, (None, value)) for name, value in parts] + [("file", ("a", WAV))]}


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        (PATH, {"content": bytes(LIMIT + 1), "headers": RAW}, 413),
        (PATH, {"files": {"file": bytes(LIMIT)}}, 413),
        (PATH, form(("prompt", "x" * 8193)), 400),
        (PATH, form(("prompt", "x" * (65 << 10))), 400),
        (PATH, form(*[("model", "x")] * 65), 400),
        (PATH, form(*[("keywords[]", "x")] * 101), 400),
        (PATH, form(("x" * 9000, "x")), 400),
        (PATH, {"json": {"upload_id": "x" * (5 << 20)}}, 413),
        (PATH, {"json": {"prompt": "x" * 9000, "upload_id": NOBODYS}}, 400),
        (PATH, {"data": {str(i): "x" for i in range(100)}}, 400),
        *((path, {"json": {f"f{n}": "x" for n in range(65)}}, 400) for path in FORMS),
        *((path, {"json": {f"f{n:06}": "" for n in range(60_000)}}, 400) for path in FORMS),
        *((path, {"json": {"keywords": ["x"] * 165}}, 400) for path in FORMS),
        *((path, {"json": {"keywords": [1] * 500_000}}, 400) for path in FORMS),
        *((path, {"json": {"x" * 257: "x", "upload_id": NOBODYS}}, 400) for path in FORMS),
        *(
            (path, {"json": {"model": "x" * (65 << 10), "upload_id": NOBODYS}}, 400)
            for path in FORMS
        ),
        *(
            (path, {"data": {"model": "x" * (65 << 10), "upload_id": NOBODYS}}, 400)
            for path in FORMS
        ),
        *((path, {"data": {"x" * 257: "x", "upload_id": NOBODYS}}, 400) for path in FORMS),
        *((path, form(("x" * 257, "x")), 400) for path in FORMS),
        *((path, {"content": WAV, "headers": RAW, "params": MANY}, 400) for path in FORMS),
        *(
            (path, {"content": WAV, "headers": RAW, "params": {"x" * 257: "x"}}, 400)
            for path in FORMS
        ),
        (f"{PATH}?stream=true", {"content": WAV, "headers": RAW, "params": MANY}, 400),
        ("/v1/uploads", {"headers": TUS | {"upload-length": "1"}, "params": MANY}, 400),
        ("/v1/uploads", {"headers": TUS | {"upload-metadata": "a," * 5000}}, 400),
        ("/v1/jobs", {"content": bytes(LIMIT + 1), "headers": RAW}, 413),
        ("/v1/jobs", {"content": WAV, "headers": RAW | {"idempotency-key": "x" * 256}}, 400),
        ("/v1/jobs", form(("callback_url", "http://example.org/" + "x" * 2048)), 400),
        ("/v1/align", form(("text", "x" * 900_000), ("text", "x" * 200_000)), 413),
        ("/v1/uploads", {"headers": TUS | {"upload-length": str(LIMIT + 1)}}, 413),
        ("/v1/uploads", {"headers": TUS | {"upload-length": "9" * 18}}, 413),
        ("/v1/uploads", {"headers": TUS | {"upload-length": "9" * 400}}, 400),
    ],
)
def test_requests_beyond_each_limit_are_refused(server, path, options, status):
    answer = ask(server, "a", "POST", path, **options)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_every_query_has_a_limit(server):
    query = "?" + "&" * 10_000
    for method, path in operations(server):
        assert ask(server, "a", method, path + query).status_code == 400, path
    url = server.url.replace("http", "ws") + "/v1/realtime?" + "&" * 1000
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(url, additional_headers={"x-api-key": "key-a"})
    assert refused.value.response.status_code == 400


def test_fields_do_not_make_answers_long(server):
    """Each unknown field is named in a warning of the answer."""
    fields = [("x" * 200 + str(n), "y") for n in range(60)]
    job = ask(server, "a", "POST", "/v1/jobs", **form(*fields)).json()
    path = f"/v1/jobs/{job['id']}/transcript.json"
    for answer in (ask(server, "a", "GET", f"/v1/jobs/{job['id']}"), ask(server, "a", "GET", path)):
        assert len(answer.content) < 30_000


def test_events_of_a_session_have_limits(server):
    url = server.url.replace("http", "ws") + "/v1/realtime"
    long = '{"type": "session.update", "session": {"x": [' + "1," * 500_000 + "1]}}"
    with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
        raw.recv()
        raw.send(long)
        error = json.loads(raw.recv(10))["error"]
        assert (error["code"], error["type"]) == ("too_many_fields", "invalid_request_error")


def test_a_part_beyond_its_upload_adds_nothing(server):
    location = ask(server, "a", "POST", "/v1/uploads", TUS | {"upload-length": "4"}).headers[
        "location"
    ]
    headers = TUS | {"upload-offset": "0", "content-type": PART_TYPE}
    for content in (b"12345", iter([b"12345", bytes(1000)])):
        assert ask(server, "a", "PATCH", location, headers, content=content).status_code == 413
    assert int(ask(server, "a", "HEAD", location, TUS).headers["upload-offset"]) <= 4


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"x" * (200 << 10),
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * (40 << 10),
        b"GET /" + b"x" * (200 << 10),
    ],
    ids=["a header", "headers", "a path"],
)
def test_an_endless_head_is_refused(server, head):
    answer = talk(server, head)
    assert answer == b"" or status_of(answer) == 431  # the reset may overtake the answer


def test_endless_trailers_are_refused(server):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n".encode()
    chunked = b"{key}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    answer = talk(server, head + chunked + b"X: " + b"x" * (400 << 10))
    assert answer == b"" or 400 <= status_of(answer) < 500


def test_large_heads_and_bodies_within_the_limits_are_accepted(server):
    """On one connection: its heads together exceed the limit of a single head."""
    with httpx.Client(base_url=server.url, headers={"x-api-key": "key-a"}) as client:
        for _ in range(3):
            answer = client.post(
                PATH, headers=RAW | {"x-filler": "x" * 30_000}, content=make_wav(20.0)
            )
            assert answer.status_code == 200


# --- malformed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [PATH, "/v1/align", "/v1/jobs"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\\ud800", "upload_id": "x"}',
        b'{"\\udfff": "x", "upload_id": "x"}',
        b'{"upload_id": "\\ud800"}',
        b'{"upload_id": ["x", "\\ud800"]}',
        b'{"upload_id": null}',
        b'{"upload_id": {"a": 1}}',
        b'{"upload_id": "a\\u0000b"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"temperature": 1e999, "upload_id": "x"}',
        b'{"temperature": NaN, "upload_id": "x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe{",
        b"null",
        b"",
    ],
)
def test_malformed_json_is_a_client_error(server, path, body):
    headers = {"content-type": "application/json"}
    answer = ask(server, "a", "POST", path, headers, content=body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [PATH, "/v1/align", "/v1/jobs"])
@pytest.mark.parametrize("field", ["text", "prompt", "keywords", "model", "\ud800"])
def test_lone_surrogate_in_a_valid_request_is_refused(server, path, field):
    headers = TUS | {"upload-length": str(len(WAV)), "content-type": PART_TYPE}
    made = ask(server, "a", "POST", "/v1/uploads", headers, content=WAV).headers["location"]
    fields = {"text": "word"} if path == "/v1/align" else {}
    fields |= {
        "upload_id": made.rpartition("/")[2],
        field: "\ud800",
        "response_format": "full_json",
    }
    json_type = {"content-type": "application/json"}
    answer = ask(server, "a", "POST", path, json_type, content=json.dumps(fields))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/uploads HTTP/1.1\r\nUpload-Length: \xb2",
        b"POST /v1/uploads HTTP/1.1\r\nUpload-Length: 1\r\nUpload-Metadata: \xff\xfe",
        b"POST /v1/uploads HTTP/1.1\r\nUpload-Length: 1\r\nUpload-Length: 2",
        b"POST /v1/uploads HTTP/1.1\r\nUpload-Length: 0x10",
        b"POST /v1/uploads HTTP/1.1\r\nX-HTTP-Method-Override: \xff",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Type: \xff/\xff",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=\xff",
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Type: application/json; charset=\xff",
        b"GET /v1/models HTTP/1.1\r\nX-Request-Id: \xff",
        b"GET /v1/models HTTP/1.1\r\nTraceparent: 00-\xff-\xff-\xff",
        b"GET /v1/jobs?after=%ff&limit=%00 HTTP/1.1\r\nAccept: \xff",
        b"GET /v1/jobs?limit=" + b"9" * 5000 + b" HTTP/1.1\r\nA: b",
        b"GET http://[::1/v1/models HTTP/1.1\r\nA: b",
        b"GET * HTTP/1.1\r\nA: b",
        b"CONNECT a:1 HTTP/1.1\r\nA: b",
        b"BREW / HTTP/1.1\r\nA: b",
        b"GET /\xff HTTP/1.1\r\nA: b",
        b"GET / HTTP/9.9\r\nA: b",
    ],
)
def test_malformed_heads_cause_no_server_error(server, head):
    rest = b"\r\nHost: x\r\n{key}\r\nTus-Resumable: 1.0.0\r\nConnection: close\r\n\r\n"
    answer = talk(server, head + rest)
    assert answer == b"" or status_of(answer) < 500, answer
    assert ask(server, "", "GET", "/health").status_code == 200


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: -1",
        b"Content-Length: \xb2",
        b"Content-Length : 5",
    ],
)
def test_lengths_that_contradict_each_other_are_refused(server, smuggled):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n".encode()
    answer = talk(
        server, head + b"{key}\r\n" + smuggled + b"\r\nConnection: close\r\n\r\n0\r\n\r\n"
    )
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


def test_malformed_messages_and_frames_do_not_stop_live(server):
    """Each is answered with an error or closes only its own socket; the next session works."""
    url = server.url.replace("http", "ws") + "/v1/realtime"
    append, update = {"type": "input_audio_buffer.append"}, {"type": "session.update"}
    sent = [
        bytes(1000),
        b"\x00\xff" * 500,
        json.dumps(append | {"audio": "AAA"}),
        json.dumps(append | {"audio": "AAAA=A"}),
        json.dumps(append | {"audio": "é"}),
        json.dumps(append | {"audio": 5}),
        json.dumps({"type": ["x"]}),
        json.dumps({"type": "x" * 100_000}),
        '{"type": "input_audio_buffer.append", "audio": "\\ud800"}',
        json.dumps(
            update | {"session": {"audio": {"input": {"transcription": {"language": "\0"}}}}}
        ),
    ]
    with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
        raw.recv()
        for message in sent:
            raw.send(message)
            error = json.loads(raw.recv(10))["error"]
            assert error["type"] == "invalid_request_error", message
        raw.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(raw.recv(10))["type"] == "input_audio_buffer.cleared"
    frames = [
        b"\x81\x82\0\0\0\0\xff\xff",  # text that is not UTF-8
        b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a length of 2**64
        b"\x81\x05hello",  # an unmasked frame
        b"\xc1\x80\0\0\0\0",  # a reserved bit
        b"\x89\xfe\x01\x00\0\0\0\0" + bytes(256),  # a long ping
        b"\x80\x80\0\0\0\0",  # a final continuation frame without a start
    ]
    for frame in frames:
        with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
            raw.recv()
            raw.socket.sendall(frame)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                raw.recv(10)
            assert closed.value.rcvd is None or closed.value.rcvd.code in (1002, 1007, 1009)
    with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
        assert json.loads(raw.recv(10))["type"] == "session.created"


def test_only_live_accepts_websockets(server):
    for path in ("/v1/jobs", "/v1/uploads", "/health", "/x"):
        with pytest.raises(websockets.exceptions.InvalidHandshake):
            connect(
                server.url.replace("http", "ws") + path, additional_headers={"x-api-key": "key-a"}
            )
    assert ask(server, "a", "GET", "/v1/realtime").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        *("max_line_width=-1", "max_line_width=1e99", "max_cps=nan", "min_gap=inf", "a=b"),
        *("max_line_width=" + "9" * 5000, "max_cue_duration=-inf", "%ff=%ff", "max_lines=%00"),
    ],
)
def test_invalid_download_options_cause_no_server_error(server, query):
    job = ask(server, "a", "POST", "/v1/jobs", RAW, content=make_wav(0.9)).json()["id"]
    for kind in ("srt", "vtt", "json"):
        answer = ask(server, "a", "GET", f"/v1/jobs/{job}/transcript.{kind}?{query}")
        assert answer.status_code in (200, 400), answer.text


# --- slow clients -------------------------------------------------------------------------------


N_PLACES = 8
PATIENCE = 1.0
"""Time limit for slow clients in seconds; in production 30 to 60."""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A service whose time limits for slow clients are 1 s or less."""
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text(lines({"a": {}, "watcher": {"scopes": ["metrics"]}}))
    places = {"ASR_MAX_ACTIVE_REQUESTS": "2", "ASR_MAX_WAITING_REQUESTS": str(N_PLACES - 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr.service.http.body.IDLE_SECONDS", PATIENCE)
        patch.setattr("asr.service.http.body.DRAIN_SECONDS", PATIENCE / 2)
        patch.setattr("asr.service.http.connections.HEAD_SECONDS", PATIENCE)
        patch.setattr("asr.service.http.connections.STALL_SECONDS", PATIENCE)
        with serving(ASR_API_KEYS_FILE=str(path), **places) as server:
            yield server


@contextlib.contextmanager
def connections(server, heads):
    """Open one socket for each head and send it."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for head in heads:
            connection = stack.enter_context(socket.create_connection(address(server), timeout=10))
            connection.sendall(head)
            sockets.append(connection)
        yield sockets


def drip(server, sockets, drop, seconds):
    """Send `drop` on each socket every 0.2 s; meanwhile the service must answer others."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert HTTP.get(f"{server.url}/health", timeout=2).status_code == 200
        for connection in sockets:
            with contextlib.suppress(OSError):  # closed
                connection.sendall(drop)
        time.sleep(0.2)


def last_words(connection):
    """What the server sends before it closes, which it must do within the socket's timeout."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return answer


def slow_body(path, kind, start, key="X-API-Key: key-a"):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{key}\r\nContent-Type: {kind}\r\n"
    return head.encode() + b"Content-Length: 100000\r\n\r\n" + start


FORM = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
SLOW_BODIES = [
    slow_body(PATH, "audio/wav", WAV[:100]),
    slow_body(PATH, "multipart/form-data; boundary=b", FORM),
    slow_body(PATH, "application/json", b"{"),
    slow_body(f"{PATH}?stream=true", "audio/wav", WAV[:100]),
]
ELSEWHERE = [
    slow_body("/v1/jobs", "audio/wav", WAV[:100]),
    slow_body("/v1/align", "application/json", b"{", key="X: no key"),
]


HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nX-API-Key: key-a\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("drop", [b"", b"\n"], ids=["silent", "a byte at a time"])
def test_slow_bodies_free_their_places(impatient, drop):
    takers = SLOW_BODIES * (N_PLACES // len(SLOW_BODIES))
    with connections(impatient, takers + ELSEWHERE) as sockets:
        refused = ask(impatient, "a", "POST", PATH, RAW, content=WAV)
        assert refused.status_code == 429  # all places are taken
        assert refused.headers["retry-after"]
        drip(impatient, sockets, drop, 2.2)
        assert ask(impatient, "a", "POST", PATH, RAW, content=WAV).status_code == 200
        answers = [status_of(connection.recv(65536)) for connection in sockets]
    assert answers == [408] * (len(sockets) - 1) + [401]


@pytest.mark.parametrize("drop", [b"", b"x"], ids=["silent", "a byte at a time"])
def test_slow_heads_are_closed(impatient, drop):
    heads = [b"", b"GET /health HTTP/1.1\r\nX: "] if not drop else [b"GET /health HTTP/1.1\r\nX: "]
    with connections(impatient, heads * 100) as sockets:
        drip(impatient, sockets, drop, 1.6)
        assert [last_words(connection) for connection in sockets] == [b""] * len(sockets)


def test_data_after_an_answer_keeps_no_connection_open(impatient):
    """An empty line before the next head, or the rest of a body. Neither needs a key."""
    probe = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    keyless = slow_body(PATH, "audio/wav", b"x", key="X: no key")
    requests = [probe, keyless.replace(b"100000", b"2"), keyless]
    with connections(impatient, requests) as sockets:
        for connection, rest in zip(sockets, (b"\r\n", b"x", b"x"), strict=True):
            assert status_of(connection.recv(65536)) in (200, 401)
            connection.sendall(rest)
        drip(impatient, sockets[2:], b"x", 1.6)
        for connection in sockets:
            assert b"HTTP/1.1" not in last_words(connection)  # closed without a second answer


def gauge(server, name):
    text = ask(server, "watcher", "GET", "/metrics").text
    return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])


@contextlib.contextmanager
def deaf(server):
    """A socket with a receive buffer of 4 KiB, which fills at once when nobody reads."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2)
        connection.connect(address(server))
        yield connection


def test_a_client_that_reads_no_answer_frees_its_place(impatient):
    with deaf(impatient) as connection:
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nX-API-Key: key-a\r\n\r\n"
        connection.sendall(request * 200)
        in_flight = "asr_http_requests_in_flight"  # includes the request for /metrics
        wait_for(lambda: gauge(impatient, in_flight) == 2, 60, "an answer that nobody reads")
        wait_for(lambda: gauge(impatient, in_flight) == 1, 60, "its end")


def test_a_client_that_reads_no_events_loses_its_session(impatient):
    text = json.dumps({"type": "nonsense", "event_id": "x" * 500}).encode()
    frame = b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text
    with deaf(impatient) as connection:
        connection.sendall(HANDSHAKE)
        wait_for(lambda: gauge(impatient, "asr_live_sessions") == 1, 60, "the session")
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                connection.sendall(frame * 100)
        wait_for(lambda: gauge(impatient, "asr_live_sessions") == 0, 60, "its end")


def test_unread_pongs_do_not_fill_memory(impatient):
    """Each ping of 125 bytes requires a pong of 125; the kernel buffers some megabytes of them."""
    n_sent, frames = 0, (b"\x89\xfd" + bytes(4 + 125)) * 1000
    with deaf(impatient) as connection:
        connection.sendall(HANDSHAKE)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while n_sent < 200 << 20:
                connection.sendall(frames)
                n_sent += len(frames)
    assert n_sent < 100 << 20


@pytest.mark.slow
def test_slow_but_active_clients_are_not_closed(impatient):
    """A slow but steady body, a slow answer and an idle live socket are not closed."""

    def body():
        for start in range(0, len(WAV), 4000):
            time.sleep(0.2)
            yield WAV[start : start + 4000]

    assert ask(impatient, "a", "POST", PATH, RAW, content=body()).status_code == 200
    seconds = {"prompt": "1.3"}  # how long the fake engine takes
    answer = ask(impatient, "a", "POST", PATH, files={"file": WAV}, data=seconds)
    assert answer.status_code == 200
    url = impatient.url.replace("http", "ws") + "/v1/realtime"
    with connect(url, additional_headers={"x-api-key": "key-a"}) as raw:
        raw.recv()
        time.sleep(1.2)
        raw.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(raw.recv(10))["type"] == "input_audio_buffer.cleared"
