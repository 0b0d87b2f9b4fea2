"""Behind a proxy that publishes the service under a prefix, and HEAD."""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asr.service.http.proxy import Proxies, public_path, route_path
from tests.support.inprocess import serving
from tests.support.serving import make_wav, wait_for

PREFIX = {"x-forwarded-prefix": "/speech"}
TUS = {"tus-resumable": "1.0.0", "upload-length": "4"}
RAW = {"content-type": "audio/wav"}


async def _told(request):
    return JSONResponse([route_path(request.scope), public_path(request, "/v1/x")])


def told(path, *headers, prefix="", client="127.0.0.1"):
    """What the service takes for its own path, and the public path of /v1/x."""
    app = Starlette(
        routes=[Route(own, _told) for own in ("/v1/jobs", "/asr", "/v1/models/{n:path}")]
    )
    wrapped = app.build_middleware_stack()

    async def outer(scope, receive, send):
        scope["app"] = app
        await Proxies(wrapped, prefix, "127.0.0.1, 10.0.0.0/8")(scope, receive, send)

    async def ask():
        transport = httpx.ASGITransport(outer, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.get(path, headers=list(headers))
        return answer.json() if answer.is_success else answer.status_code

    return asyncio.run(ask())


def forwarded(*values):
    return [("x-forwarded-prefix", value) for value in values]


@pytest.mark.parametrize("path", ["/v1/jobs", "/speech/v1/jobs"])
def test_the_proxy_may_remove_its_prefix_or_leave_it(path):
    assert told(path, *forwarded("/speech")) == ["/v1/jobs", "/speech/v1/x"]
    assert told(path, *forwarded("speech/")) == ["/v1/jobs", "/speech/v1/x"]
    assert told(path, prefix="/speech") == ["/v1/jobs", "/speech/v1/x"]
    assert told(path, *forwarded("/speech"), prefix="/other") == ["/v1/jobs", "/speech/v1/x"]


def test_each_proxy_may_add_a_prefix():
    expected = ["/v1/jobs", "/outer/inner/v1/x"]
    assert told("/v1/jobs", *forwarded("/outer, /inner")) == expected
    assert told("/v1/jobs", *forwarded("/outer", "/inner")) == expected
    assert told("/outer/inner/v1/jobs", *forwarded("/outer", "/inner")) == expected


@pytest.mark.parametrize(
    ("prefix", "path", "own"),
    [
        ("/v1", "/v1/jobs", "/v1/jobs"),
        ("/v1", "/v1/v1/jobs", "/v1/jobs"),
        ("/asr", "/asr", "/asr"),
        ("/asr", "/asr/asr", "/asr"),
        ("/asr", "/asr/v1/jobs", "/v1/jobs"),
        ("/asr", "/asrx", 404),
        ("/v1/models", "/v1/models/v1/jobs", "/v1/jobs"),
        ("/v1/models", "/v1/models/tiny", "/v1/models/tiny"),
    ],
)
def test_a_prefix_may_look_like_one_of_our_paths(prefix, path, own):
    found = told(path, prefix=prefix)
    assert found == (own if own == 404 else [own, f"{prefix}/v1/x"])


@pytest.mark.parametrize("client", ["127.0.0.1", "10.1.2.3"])
def test_a_trusted_proxy_is_known_by_its_own_address(client):
    headers = [*forwarded("/speech"), ("x-forwarded-for", "203.0.113.9")]
    assert told("/v1/jobs", *headers, client=client) == ["/v1/jobs", "/speech/v1/x"]


def test_nobody_else_may_set_the_prefix():
    headers = [*forwarded("/speech"), ("x-forwarded-for", "127.0.0.1")]
    assert told("/v1/jobs", *headers, client="203.0.113.9") == ["/v1/jobs", "/v1/x"]
    assert told("/speech/v1/jobs", *headers, client="203.0.113.9") == 404


@pytest.mark.parametrize(
    "value", ["//evil.example", "/a/../b", "/'-alert(1)-'", "http://evil.example", "/a\\b", "/%2f"]
)
def test_a_strange_prefix_is_ignored_or_harmless(value):
    own, public = told("/v1/jobs", *forwarded(value))
    assert own == "/v1/jobs"
    assert public in ("/v1/x", "/evil.example/v1/x")


@pytest.fixture(scope="module")
def server():
    with serving(ASR_ROOT_PATH="/set/") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return server.client()


@pytest.fixture(scope="module")
def job(client):
    made = client.post("/v1/jobs", headers=RAW, content=make_wav(1.0)).json()["id"]

    def ended():
        return client.get(f"/v1/jobs/{made}").json()["state"] == "succeeded"

    wait_for(ended, 20, "the end of the job")
    return made


@pytest.mark.parametrize("at", ["", "/speech"])
@pytest.mark.parametrize(("headers", "prefix"), [({}, "/set"), (PREFIX, "/speech")])
def test_every_address_in_an_answer_begins_with_the_prefix(client, job, at, headers, prefix):
    if at and not headers:
        at = prefix
    upload = client.post(f"{at}/v1/uploads", headers=TUS | headers)
    assert upload.headers["location"].startswith(f"{prefix}/v1/uploads/")
    assert client.head(upload.headers["location"], headers=TUS | headers).status_code == 200
    made = client.post(f"{at}/v1/jobs", headers=RAW | headers, content=make_wav(1.0))
    assert made.headers["location"] == f"{prefix}/v1/jobs/{job}"
    for found in (made.json(), client.get(f"{at}/v1/jobs", headers=headers).json()["data"][0]):
        assert all(url.startswith(f"{prefix}/v1/jobs/{job}") for url in found["urls"].values())
        assert client.get(found["urls"]["srt"], headers=headers).status_code == 200
    stream = client.get(f"{at}/v1/jobs/{job}/events", headers=headers).text
    assert f'"self": "{prefix}/v1/jobs/{job}"' in stream
    page, script = (client.get(f"{at}{it}", headers=headers) for it in ("/docs", "/docs/start.js"))
    assert '<script src="docs/start.js"' in page.text
    found = re.search(r'url: "(.+)"', script.text)[1]
    assert urljoin(f"http://proxy{prefix}/docs", found) == f"http://proxy{prefix}/openapi.json"
    document = client.get(f"{at}/openapi.json", headers=headers).json()
    assert document["servers"] == [{"url": prefix}]
    assert "/v1/jobs" in document["paths"]


def test_redirects_keep_the_prefix_and_ignore_the_host(client):
    for path in ("/v1/jobs/", "/speech/v1/jobs/"):
        headers = PREFIX | {"host": "evil.example", "x-forwarded-host": "evil.example"}
        answer = client.get(path, headers=headers, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, "/speech/v1/jobs")


def test_scopes_of_keys_hold_behind_a_prefix():
    key = "sk-0123456789abcdef0123456789abcdef"
    keys = json.dumps({"name": "a", "key": key, "scopes": ["jobs"]})
    with serving(ASR_API_KEYS=keys, ASR_ROOT_PATH="/speech") as server:
        client = server.client(headers={"authorization": f"Bearer {key}"})
        for path in ("/v1/uploads", "/speech/v1/uploads"):
            assert client.post(path, headers=TUS).status_code == 403
        for path in ("/v1/jobs", "/speech/v1/jobs"):
            assert client.get(path).status_code == 200
            assert client.get(path, headers={"authorization": ""}).status_code == 401
        assert client.get("/speech/health", headers={"authorization": ""}).status_code == 200


PATHS = [
    "/health", "/ready", "/metrics", "/docs", "/openapi.json", "/v1/models", "/v1/models/tiny",
    "/v1/schemas/transcript.json", "/v1/jobs", "/v1/jobs/JOB", "/v1/jobs/JOB/events",
    "/v1/jobs/JOB/transcript.srt", "/v1/jobs/JOB/transcript.json", "/v1/jobs/none", "/nowhere",
    "/v1/jobs/JOB/transcript.doc", "/v1/audio/transcriptions", "/v1/jobs/",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(client, job, path):
    path = path.replace("JOB", job)
    ignored = ("date", "x-request-id")
    answers = [client.request(method, path) for method in ("GET", "HEAD")]
    got, head = (
        {name: value for name, value in answer.headers.items() if name not in ignored}
        for answer in answers
    )
    assert answers[0].status_code == answers[1].status_code
    assert answers[1].content == b""
    if path == "/metrics":  # its length changes with each request
        del got["content-length"], head["content-length"]
    if "/events" in path:  # a body of unknown length
        assert got.pop("transfer-encoding") == "chunked"
    assert head == got


def test_head_of_the_events_of_a_running_job_ends_at_once(client):
    job = client.post("/v1/jobs", headers=RAW, params={"prompt": "60"}, content=make_wav(2.0))
    head = client.head(f"/v1/jobs/{job.json()['id']}/events")
    assert (head.status_code, head.headers["content-type"][:17]) == (200, "text/event-stream")
    assert client.delete(f"/v1/jobs/{job.json()['id']}").status_code == 200


def test_a_method_that_is_refused_learns_of_head(client):
    answer = client.post("/health")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    conditional = client.head("/v1/models", headers={"if-none-match": "*"})
    assert conditional.status_code == 200
