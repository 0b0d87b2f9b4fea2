"""Callbacks: signed, sent again, and never into the server's own network."""

import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
import types
from unittest import mock

import httpcore
import pytest
import trustme
from hypothesis import example, given, settings, strategies as st

from asr.errors import InvalidOption
from asr.service.http.problems import Problem
from asr.service.jobs.webhooks import (
    RefusedAddress,
    Webhooks,
    _CheckedBackend,
    check_address,
    is_public,
    sign,
)
from asr.settings import Settings
from tests.service.jobs.test_jobs import create, ended, recording
from tests.support.inprocess import serving
from tests.support.serving import wait_for

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes....").decode()


@contextlib.contextmanager
def receiver(*statuses):
    """A server that answers with these statuses, the last one for ever; (url, what it got)."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            status = statuses[min(len(got), len(statuses) - 1)]
            got.append((time.monotonic(), dict(self.headers), body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/other")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook?a=b", got
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server():
    with serving(ASR_WEBHOOK_SECRET=SECRET, ASR_WEBHOOK_ALLOW_PRIVATE="true") as server:
        yield server


def verify(headers, body):
    """As the specification of Standard Webhooks tells receivers to."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


def test_signed_and_sent_again_until_it_is_taken(server):
    client = server.client()
    with receiver(500, 302, 204) as (url, got):
        job = ended(client, create(client, recording(), callback_url=url))
        wait_for(lambda: len(got) == 3, 20, "the callback")
        time.sleep(1.5)
        assert len(got) == 3  # and no redirect was followed
    for _, headers, body in got:
        assert verify(headers, body)
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert len({headers["webhook-id"] for _, headers, _ in got}) == 1
    event = json.loads(got[-1][2])
    assert event == {"type": "job.succeeded", "data": job}
    assert got[1][0] - got[0][0] >= 2
    assert got[2][0] - got[1][0] >= 4


def test_told_of_failures_and_of_jobs_that_are_done_already(server):
    client = server.client()
    content = recording()
    ended(client, create(client, content))
    with receiver(200) as (url, got):
        create(client, content, 200, callback_url=url)
        create(client, content, 200, callback_url=url)
        create(client, b"no audio" + content[:100], callback_url=url)
        wait_for(lambda: len(got) == 2, 10, "the callbacks")
        time.sleep(1.5)
        kinds = sorted(json.loads(body)["type"] for _, _, body in got)
    assert kinds == ["job.failed", "job.succeeded"]


@pytest.mark.slow
def test_names_that_lead_inside_are_not_called():
    """The name is only known to be private when it is resolved."""
    with serving(ASR_WEBHOOK_SECRET="plain") as server, receiver(200) as (url, got):
        client = server.client()
        inside = url.replace("127.0.0.1", "localhost")
        ended(client, create(client, recording(), callback_url=inside))
        wait_for(lambda: "leads to the private address" in server.log, 10, "the refusal")
        time.sleep(1)
        assert not got
        answer = client.post("/v1/jobs", params={"callback_url": url}, content=b"x")
        assert answer.status_code in (400, 415)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.org/", "http"),
        ("http:///x", "http"),
        ("example.org", "http"),
        ("http://a b/", "http"),
        ("http://example.org/\r\nx: y", "http"),
        ("http://user:pw@example.org/", "password"),
        ("http://example.org:99999/", "URL"),
        ("http://127.0.0.1/", "private"),
        ("http://[::1]:80/", "private"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://169.254.169.254/latest/meta-data", "private"),
        ("http://" + "x" * 3000, "http"),
    ],
)
def test_refused_addresses(url, reason):
    with pytest.raises(Problem, match="callback_url") as caught:
        check_address(url, Settings(webhook_secret="s"))
    assert reason in caught.value.message
    assert caught.value.status == 400


def test_off_without_a_secret():
    with pytest.raises(Problem, match="ASR_WEBHOOK_SECRET"):
        check_address("https://example.org/", Settings())
    check_address("https://example.org:8443/a?b=c", Settings(webhook_secret="s"))
    check_address("http://10.0.0.1/", Settings(webhook_secret="s", webhook_allow_private=True))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:0:7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_public_addresses(address, expected):
    assert is_public(ipaddress.ip_address(address)) is expected


def test_secret_with_and_without_prefix():
    signature = sign("whsec_" + base64.b64encode(b"k").decode(), "id", 1, b"{}")
    expected = hmac.new(b"k", b"id.1.{}", hashlib.sha256).digest()
    assert signature == "v1," + base64.b64encode(expected).decode()
    assert sign("k", "id", 1, b"{}") == signature


# --- where names lead ---------------------------------------------------------------------------


async def connect_to(host, allow_private=False):
    await _CheckedBackend(allow_private=allow_private).connect_tcp(host, 9)


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.1", "0", "127.0.0.1", "::1"),
        *("::ffff:127.0.0.1", "::127.0.0.1", "fe80::1", "169.254.169.254", "0xa9fea9fe"),
    ],
)
def test_no_notation_leads_inside(host):
    with pytest.raises(RefusedAddress):
        asyncio.run(connect_to(host))


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.216.34", "::1"]])
def test_a_name_with_one_private_address_is_not_called(monkeypatch, addresses):
    async def run():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", resolver(addresses))
        await connect_to("example.org")

    with pytest.raises(RefusedAddress, match=r"example\.org leads to the private address"):
        asyncio.run(run())


def resolver(*answers):
    """The first answer the first time, the next one the next."""
    left = list(answers)

    async def getaddrinfo(host, port, **_):
        return [(0, 0, 0, "", (address, port)) for address in left.pop(0)]

    return getaddrinfo


def test_a_name_that_changes_its_mind_is_resolved_once(monkeypatch):
    """What was checked is what is connected to: no second answer of a nameserver counts."""
    called = []

    async def connect_tcp(self, host, *rest):
        called.append(host)

    async def run():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", resolver(["93.184.216.34"], ["127.0.0.1"]))
        await connect_to("example.org")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    asyncio.run(run())
    assert called == ["93.184.216.34"]


LABELS = ["a" * 64 + ".org", "a..org", ".org", "x." + "b" * 200]


@pytest.mark.parametrize("host", LABELS)
def test_names_that_no_resolver_takes(host):
    """One such callback, retried for ever, must not stop the jobs of everybody."""
    with pytest.raises(Problem, match="callback_url"):
        check_address(f"http://{host}/", Settings(webhook_secret="s"))
    with pytest.raises(httpcore.ConnectError):  # were it in the database already
        asyncio.run(connect_to(host))


HOSTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)


async def nobody(*_, **__):
    raise httpcore.ConnectError("no test leaves this machine")


@given(st.sampled_from(["http://", "https://"]), HOSTS, HOSTS)
@example("http://", "1.0", "x")  # a public address, 1.0.0.0
@settings(max_examples=300, deadline=None)
def test_what_is_accepted_can_be_tried(scheme, host, path):
    """Whatever passes the check is answered with a status, never with an exception."""
    url = f"{scheme}{host}/{path}"
    settings = Settings(webhook_secret="s")
    try:
        check_address(url, settings)
    except Problem:
        return

    async def run():
        loop = asyncio.get_running_loop()
        offline = functools.partial(loop.getaddrinfo, flags=socket.AI_NUMERICHOST)
        loop.getaddrinfo = offline
        job = types.SimpleNamespace(id="x", state="failed")
        callback = types.SimpleNamespace(id="x", now=1, url=url, job=job)
        with (
            mock.patch("asr.service.jobs.webhooks.job_body", return_value={}),
            mock.patch.object(httpcore.AnyIOBackend, "connect_tcp", nobody),
        ):
            async with httpcore.AsyncConnectionPool(
                network_backend=_CheckedBackend(allow_private=False)
            ) as pool:
                return await Webhooks(None, settings)._post(pool, callback)

    assert asyncio.run(run()) in (0, 410)


@contextlib.contextmanager
def broken_tls(authority):
    """A server that shakes hands as TLS demands, and then sends a record that nobody encrypted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def answer(connection):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        connection.sendall(outgoing.read())
        connection.recv(65536)
        connection.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))

    def serve(listener):
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()


def test_a_receiver_whose_tls_breaks_is_only_not_told(monkeypatch):
    """Its error once left the delivery, and with it went every job in work."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("asr.service.jobs.webhooks.job_body", lambda _: {})
    hooks = Webhooks(mock.Mock(), Settings(webhook_secret=SECRET, webhook_allow_private=True))
    job = types.SimpleNamespace(id="a", state="succeeded")

    async def post(url):
        callback = types.SimpleNamespace(job=job, id="b", url=url, now=1)
        backend = _CheckedBackend(allow_private=True)
        async with httpcore.AsyncConnectionPool(trusting, network_backend=backend) as pool:
            return await hooks._post(pool, callback)

    with broken_tls(authority) as url:
        assert asyncio.run(post(url)) == 0


class FewCallbacks:
    """A store whose callbacks are due once the one before is settled, and what became of them."""

    def __init__(self, *callbacks):
        self.callbacks = callbacks
        self.n_given = 0
        self.settled = []

    async def next_callback(self, seconds):
        if len(self.settled) < self.n_given or self.n_given == len(self.callbacks):
            return None
        self.n_given += 1
        return self.callbacks[self.n_given - 1]

    async def settle_callback(self, callback, *how):
        self.settled.append((callback.id, *how))
        if callback.id == "unsettled":
            raise ValueError("no such callback")


def test_a_delivery_that_fails_ends_no_other(monkeypatch):
    """They share a task group with the jobs in work, which began again every 30 s for ever."""
    monkeypatch.setattr("asr.service.jobs.webhooks.job_body", lambda job: job.body)
    monkeypatch.setattr("asr.service.jobs.webhooks.POLL_SECONDS", 0.02)

    async def run(url):
        def callback(name, body):
            job = types.SimpleNamespace(id=name, state="succeeded", body=body)
            return types.SimpleNamespace(job=job, id=name, url=url, now=1, attempts=1)

        no_json = callback("no-json", object())
        store = FewCallbacks(no_json, callback("unsettled", {}), callback("good", {}))
        hooks = Webhooks(store, Settings(webhook_secret=SECRET, webhook_allow_private=True))
        task = asyncio.create_task(hooks.run())
        while not task.done() and len(store.settled) < 3:
            await asyncio.sleep(0.02)
        assert not task.done(), task.exception()
        task.cancel()
        return store.settled

    with receiver(200) as (url, got):
        settled = asyncio.run(run(url))
        assert len(got) == 2
    assert settled == [
        ("no-json", "pending", 2.0),
        ("unsettled", "delivered"),
        ("good", "delivered"),
    ]


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_not base64", "whsec_YQ=", "whsec_-_-_", "\udcff"]
)
def test_a_secret_that_cannot_sign_is_refused_at_the_start_and_not_told(secret):
    with pytest.raises(InvalidOption) as caught:
        Settings(webhook_secret=secret)
    assert caught.value.name == "webhook_secret"
    assert secret == "whsec_" or secret not in str(caught.value)
