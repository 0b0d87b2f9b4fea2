"""Callbacks are signed, retried, and never sent to private addresses.

Mostly in process, with a simulated clock and receivers on real sockets.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import http.server
import ipaddress
import itertools
import json
import socket
import ssl
import threading
import time
import types
from unittest import mock

import httpcore
import httpx
import pytest
import sqlalchemy as sa
import trustme
from fastapi import FastAPI
from hypothesis import example, given, settings, strategies as st

from asr.errors import InvalidOption, UnsupportedAudio
from asr.service.errors import Conflict
from asr.service.http.problems import problem_of
from asr.service.jobs.addresses import (
    CheckedBackend,
    RefusedAddress,
    check_callback_url,
    is_public,
)
from asr.service.jobs.callbacks import CallbackQueue, InFlight
from asr.service.jobs.database import Database, now
from asr.service.jobs.leases import Leases
from asr.service.jobs.routes import make_job_router
from asr.service.jobs.rows import NewJob
from asr.service.jobs.service import Jobs
from asr.service.jobs.store import MAX_CALLBACKS, JobStore
from asr.service.jobs.tables import callbacks
from asr.service.jobs.webhooks import MAX_ATTEMPTS, POLL_SECONDS, Webhooks, sign
from asr.settings import Settings
from asr.types import Transcript
from tests.service.jobs.test_jobs import create, ended, recording
from tests.support.inprocess import serving
from tests.support.serving import until, wait_for

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes....").decode()


@contextlib.contextmanager
def receiver(*statuses, clock=None):
    """A server that answers with these statuses in order, and then always with the last one.

    Yields:
        Its URL, and a list of (time, headers, body) of what it received.
    """
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            status = statuses[min(len(got), len(statuses) - 1)]
            got.append((clock and clock.now, dict(self.headers), body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/other")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook?a=b", got
        finally:
            server.shutdown()
            thread.join()


def verify(headers, body):
    """Whether the signature is valid, checked as Standard Webhooks tells receivers to do."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


# --- from a job to its callback, with a simulated clock -------------------------------------------


class Clock:
    """A simulated clock for SQLite and for `Webhooks`; only tests advance it."""

    def __init__(self):
        self.now = time.time()
        self._sleepers = []

    def install(self, database):
        """Replace SQLite's clock in all connections of a database."""

        @sa.event.listens_for(database._engine, "connect")
        def connect(connection, _):
            days = 2440587.5  # Julian day number of 1970-01-01
            connection.create_function("julianday", 1, lambda _: days + self.now / 86_400)

    async def sleep(self, seconds):
        awake = asyncio.Event()
        self._sleepers.append((self.now + seconds, awake))
        await awake.wait()

    def is_idle(self):
        return bool(self._sleepers)

    def advance(self, seconds):
        self.now += seconds
        for until_, awake in self._sleepers:
            if until_ <= self.now:
                awake.set()
        self._sleepers = [it for it in self._sleepers if it[0] > self.now]


class CountingQueue(CallbackQueue):
    """Counts the deliveries that are in progress."""

    n_open = 0

    async def next(self, *args):
        found = await super().next(*args)
        self.n_open += found is not None
        return found

    async def settle(self, callback, *outcome):
        await super().settle(callback, *outcome)
        self.n_open -= 1


class Recogniser:
    """A worker with empty transcripts, which rejects recordings that begin with "no audio"."""

    n_succeeded = worker = 0

    async def transcribe(self, command):
        if command.source.read_bytes().startswith(b"no audio"):
            raise UnsupportedAudio("no audio")
        yield Transcript((), "en", 1.0, 0.0, 1.0, "fake")


class Service:
    """The routes of jobs with a runner and callbacks."""

    def __init__(self, folder):
        self.clock = Clock()
        settings = Settings(
            data_dir=str(folder),
            work_dir=str(folder),
            webhook_secret=SECRET,
            webhook_allow_private=True,
        )
        self.jobs = Jobs(
            client=Recogniser(), settings=settings, run_dir=folder, incoming=folder, uploads=None
        )
        database = self.jobs.store._database
        self.clock.install(database)
        self._queue = CountingQueue(database)
        self.jobs.webhooks = Webhooks(self._queue, settings, sleep=self.clock.sleep)
        app = FastAPI()
        app.include_router(make_job_router(self.jobs))
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service"
        )

    async def create(self, content, status=202, **query):
        headers = {"content-type": "audio/wav"}
        answer = await self._client.post("/v1/jobs", params=query, content=content, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ended(self, job):
        while job["state"] in ("queued", "running"):
            await asyncio.sleep(0.005)
            job = (await self._client.get(f"/v1/jobs/{job['id']}")).json()
        return job

    async def pass_time(self, *seconds):
        """Advance the clock in these steps; each waits until no callback is due or in progress."""
        for step in (0.0, *seconds):
            await until(self.clock.is_idle)
            self.clock.advance(max(step, POLL_SECONDS))
            await until(lambda: self.clock.is_idle() and not self._queue.n_open)


def with_service(folder, test):
    """Run `test`, which takes a `Service`."""

    async def run():
        service = Service(folder)
        async with service.jobs.working():
            await test(service)

    asyncio.run(run())


def test_signed_and_sent_again_until_it_is_accepted(tmp_path):
    async def test(service):
        with receiver(500, 302, 204, clock=service.clock) as (url, got):
            job = await service.ended(await service.create(b"audio", callback_url=url))
            await service.pass_time(*[1.0] * 10, 3600.0)
            assert len(got) == 3  # no redirect was followed
        for _, headers, body in got:
            assert verify(headers, body)
            assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert len({headers["webhook-id"] for _, headers, _ in got}) == 1
        event = json.loads(got[-1][2])
        assert event == {"type": "job.succeeded", "data": job}
        assert got[1][0] - got[0][0] >= 2
        assert got[2][0] - got[1][0] >= 4

    with_service(tmp_path, test)


def test_attempts_back_off_and_end(tmp_path):
    async def test(service):
        with receiver(500, clock=service.clock) as (url, got):
            await service.ended(await service.create(b"audio", callback_url=url))
            # SQLite's clock is exact to about 50 us, so each step is 10 ms longer.
            await service.pass_time(*(2.0**n + 0.01 for n in range(1, 20)))
        times = [time for time, _, _ in got]
        assert len(got) == MAX_ATTEMPTS
        assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx(
            [2.0**n for n in range(1, MAX_ATTEMPTS)], abs=0.02
        )

    with_service(tmp_path, test)


def test_a_receiver_that_answers_410_is_called_once(tmp_path):
    async def test(service):
        with receiver(410, clock=service.clock) as (url, got):
            await service.ended(await service.create(b"audio", callback_url=url))
            await service.pass_time(3.0, 3600.0)
            assert len(got) == 1

    with_service(tmp_path, test)


def test_callbacks_of_failed_jobs_and_of_jobs_that_had_already_ended(tmp_path):
    async def test(service):
        await service.ended(await service.create(b"audio"))
        with receiver(200, clock=service.clock) as (url, got):
            await service.create(b"audio", 200, callback_url=url)
            await service.create(b"audio", 200, callback_url=url)
            await service.ended(await service.create(b"no audio", callback_url=url))
            await service.pass_time(1.0, 3600.0)
            kinds = sorted(json.loads(body)["type"] for _, _, body in got)
        assert kinds == ["job.failed", "job.succeeded"]

    with_service(tmp_path, test)


# --- where callbacks may go -----------------------------------------------------------------------


@pytest.mark.slow
def test_names_with_private_addresses_are_not_called():
    """A name reveals its private address only when it is resolved."""
    with serving(ASR_WEBHOOK_SECRET="plain") as server, receiver(200) as (url, got):
        client = server.client()
        inside = url.replace("127.0.0.1", "localhost")
        ended(client, create(client, recording(), callback_url=inside))
        wait_for(lambda: "leads to the private address" in server.log, 60, "the refusal")
        time.sleep(1)
        assert not got
        answer = client.post("/v1/jobs", params={"callback_url": url}, content=b"x")
        assert answer.status_code == 400


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
    with pytest.raises(InvalidOption) as caught:
        check_callback_url(url, Settings(webhook_secret="s"))
    problem = problem_of(caught.value)
    assert problem.message.startswith("callback_url: ")
    assert reason in problem.message
    assert problem.status == 400


def test_callbacks_need_a_secret():
    with pytest.raises(InvalidOption, match="ASR_WEBHOOK_SECRET"):
        check_callback_url("https://example.org/", Settings())
    check_callback_url("https://example.org:8443/a?b=c", Settings(webhook_secret="s"))
    check_callback_url("http://10.0.0.1/", Settings(webhook_secret="s", webhook_allow_private=True))


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


# --- addresses of names ---------------------------------------------------------------------------


async def connect_to(host, allow_private=False):
    await CheckedBackend(allow_private=allow_private).connect_tcp(host, 9)


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.1", "0", "127.0.0.1", "::1"),
        *("::ffff:127.0.0.1", "::127.0.0.1", "fe80::1", "169.254.169.254", "0xa9fea9fe"),
    ],
)
def test_private_addresses_are_refused_in_every_notation(host):
    with pytest.raises(RefusedAddress):
        asyncio.run(connect_to(host))


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["93.184.216.34", "::1"]])
def test_a_name_with_one_private_address_is_not_called(monkeypatch, addresses):
    monkeypatch.setattr(socket, "getaddrinfo", resolver(addresses))
    with pytest.raises(RefusedAddress, match=r"example\.org leads to the private address"):
        asyncio.run(connect_to("example.org"))


def resolver(*answers):
    """A replacement for getaddrinfo that returns these answers in order."""
    left = list(answers)

    def getaddrinfo(host, port, **_):
        return [(0, 0, 0, "", (address, port)) for address in left.pop(0)]

    return getaddrinfo


def test_a_name_is_resolved_once(monkeypatch):
    """The connection uses the address that was checked, even if the name resolves anew later."""
    called = []

    async def connect_tcp(self, host, *rest):
        called.append(host)

    monkeypatch.setattr(socket, "getaddrinfo", resolver(["93.184.216.34"], ["127.0.0.1"]))
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    asyncio.run(connect_to("example.org"))
    assert called == ["93.184.216.34"]


def test_names_that_are_not_resolved_leave_the_threads_of_requests_free(monkeypatch):
    """Name servers that did not answer held the few threads that every request needs."""
    answered, asked = threading.Event(), threading.Semaphore(0)
    n_names = 40

    def getaddrinfo(*_, **__):
        asked.release()
        answered.wait()
        raise socket.gaierror

    async def run():
        backend = CheckedBackend(allow_private=False)
        calls = [asyncio.create_task(backend.connect_tcp("example.org", 9)) for _ in range(n_names)]
        try:
            for _ in range(n_names):
                await asyncio.to_thread(asked.acquire)
        finally:
            answered.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = asyncio.run(asyncio.wait_for(run(), 60))
    assert [type(error) for error in found] == [httpcore.ConnectError] * n_names


LABELS = ["a" * 64 + ".org", "a..org", ".org", "x." + "b" * 200]


@pytest.mark.parametrize("host", LABELS)
def test_names_that_no_resolver_accepts(host):
    """A callback to such a name must fail cleanly, or its retries would stop other jobs."""
    with pytest.raises(InvalidOption) as caught:
        check_callback_url(f"http://{host}/", Settings(webhook_secret="s"))
    assert caught.value.name == "callback_url"
    with pytest.raises(httpcore.ConnectError):  # for one that is already in the database
        asyncio.run(connect_to(host))


HOSTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)


async def nobody(*_, **__):
    raise httpcore.ConnectError("no test leaves this machine")


@given(st.sampled_from(["http://", "https://"]), HOSTS, HOSTS)
@example("http://", "1.0", "x")  # a public address, 1.0.0.0
@settings(max_examples=300, deadline=None)
def test_a_callback_to_any_accepted_url_raises_no_error(scheme, host, path):
    """A callback to any URL that passes the check returns a status and raises no exception."""
    url = f"{scheme}{host}/{path}"
    settings = Settings(webhook_secret="s")
    try:
        check_callback_url(url, settings)
    except InvalidOption:
        return

    async def run():
        offline = functools.partial(socket.getaddrinfo, flags=socket.AI_NUMERICHOST)
        job = types.SimpleNamespace(id="x", state="failed")
        callback = types.SimpleNamespace(id="x", now=1, url=url, job=job)
        with (
            mock.patch("asr.service.jobs.webhooks.job_body", return_value={}),
            mock.patch.object(httpcore.AnyIOBackend, "connect_tcp", nobody),
            mock.patch.object(socket, "getaddrinfo", offline),
        ):
            async with httpcore.AsyncConnectionPool(
                network_backend=CheckedBackend(allow_private=False)
            ) as pool:
                return await Webhooks(None, settings)._post(pool, callback)

    assert asyncio.run(run()) in (0, 410)


@contextlib.contextmanager
def broken_tls(authority):
    """A server that completes the TLS handshake and then sends a record that is not encrypted."""
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


def test_a_receiver_whose_tls_breaks_ends_no_job(monkeypatch):
    """This error was once not caught in the delivery and ended every running job."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("asr.service.jobs.webhooks.job_body", lambda *_: {})
    hooks = Webhooks(mock.Mock(), Settings(webhook_secret=SECRET, webhook_allow_private=True))
    job = types.SimpleNamespace(id="a", state="succeeded")

    async def post(url):
        callback = types.SimpleNamespace(job=job, id="b", url=url, now=1)
        backend = CheckedBackend(allow_private=True)
        async with httpcore.AsyncConnectionPool(trusting, network_backend=backend) as pool:
            return await hooks._post(pool, callback)

    with broken_tls(authority) as url:
        assert asyncio.run(post(url)) == 0


class FewCallbacks:
    """A queue whose callbacks are due one after the other. It records the outcome of each."""

    def __init__(self, *callbacks):
        self.callbacks = callbacks
        self.n_given = 0
        self.settled = []

    async def next(self, *_):
        if len(self.settled) < self.n_given or self.n_given == len(self.callbacks):
            return None
        self.n_given += 1
        return self.callbacks[self.n_given - 1]

    async def settle(self, callback, *outcome):
        self.settled.append((callback.id, *outcome))
        if callback.id == "unsettled":
            raise ValueError("no such callback")


def test_a_delivery_that_fails_ends_no_other(monkeypatch):
    """Deliveries and running jobs share a task group; a failure once restarted all every 30 s."""
    monkeypatch.setattr("asr.service.jobs.webhooks.job_body", lambda job, _: job.body)

    async def run(url):
        def callback(name, body):
            job = types.SimpleNamespace(id=name, owner="", state="succeeded", body=body)
            return types.SimpleNamespace(job=job, id=name, url=url, now=1, attempts=1)

        no_json = callback("no-json", object())
        queue = FewCallbacks(no_json, callback("unsettled", {}), callback("good", {}))
        settings = Settings(webhook_secret=SECRET, webhook_allow_private=True)
        hooks = Webhooks(queue, settings, sleep=lambda _: asyncio.sleep(0.005))
        task = asyncio.create_task(hooks.run())
        while not task.done() and len(queue.settled) < 3:
            await asyncio.sleep(0.005)
        assert not task.done(), task.exception()
        task.cancel()
        return queue.settled

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
def test_an_invalid_secret_is_refused_at_the_start_and_not_shown(secret):
    with pytest.raises(InvalidOption) as caught:
        Settings(webhook_secret=secret)
    assert caught.value.name == "webhook_secret"
    assert secret == "whsec_" or secret not in str(caught.value)


# --- fairness -------------------------------------------------------------------------------------


def job_of(owner):
    return types.SimpleNamespace(id=owner, owner=owner)


def callback_of(owner, url):
    return types.SimpleNamespace(job=job_of(owner), url=url)


async def with_ended_jobs(folder, wanted, test):
    """Run `test` on a queue with a callback to each (owner, url), each of its own ended job."""
    database = Database(f"sqlite:///{folder}/jobs.db")
    store, leases = JobStore(database), Leases(database)
    await store.open()
    for n, (owner, url) in enumerate(wanted):
        new = NewJob(f"{n:032x}", owner, "{}", f"{n}", "0", 1)
        await store.create(new, callback=(f"c{n}", url))
        job = await leases.claim("lease", 60)
        await leases.fail(job.id, "lease", "{}")
    await test(CallbackQueue(database), database)
    await store.close()


def test_a_flood_of_callbacks_delays_no_other_owner(tmp_path):
    """100 callbacks to a slow receiver once delayed another key's callback by 116 s."""
    wanted = [("flood", f"http://slow/{n}") for n in range(40)] + [("other", "http://quick/")]

    async def take(queue, _):
        in_flight, owners = InFlight(32), []
        while found := await queue.next(60, in_flight):
            in_flight.add(found)
            owners.append(found.job.owner)
        assert owners.index("other") <= 1
        assert owners.count("flood") == 6
        other = InFlight(32)  # fast deliveries: none is in progress when the next one is taken
        other.add(callback_of("flood", "http://slow/"))
        other.remove(callback_of("flood", "http://slow/"))
        assert not other.busy_owners()
        assert (await queue.next(60, other)).job.owner == "flood"

    asyncio.run(with_ended_jobs(tmp_path, wanted, take))


def test_owners_take_turns_when_deliveries_are_fast(tmp_path):
    wanted = [("a", f"http://quick/{n}") for n in range(5)] + [
        ("b", f"http://quick/{n}") for n in "12"
    ]

    async def take(queue, _):
        in_flight, owners = InFlight(32), []
        while found := await queue.next(60, in_flight):
            owners.append(found.job.owner)
            in_flight.add(found)
            in_flight.remove(found)
        assert "".join(owners) == "ababaaa"

    asyncio.run(with_ended_jobs(tmp_path, wanted, take))


def test_a_slow_receiver_does_not_delay_others_of_its_owner(tmp_path):
    wanted = [("me", f"http://slow/{n}") for n in range(40)] + [("me", "http://slow.example/")]

    async def take(queue, _):
        in_flight, urls = InFlight(32), []
        while found := await queue.next(60, in_flight):
            in_flight.add(found)
            urls.append(found.url)
        assert "http://slow.example/" in urls
        assert len(urls) == 7

    asyncio.run(with_ended_jobs(tmp_path, wanted, take))


@given(st.lists(st.sampled_from("abc"), max_size=200))
def test_few_owners_never_take_all_places(owners):
    in_flight = InFlight(8)
    for n, owner in enumerate(owners):
        if owner not in in_flight.busy_owners():
            in_flight.add(callback_of(owner, f"http://{n}/"))
    assert in_flight.n_of_owner.total() < 8
    assert "nobody" not in in_flight.busy_owners()


def test_a_job_has_a_limited_number_of_callbacks(tmp_path):
    with_service(tmp_path, _too_many_callbacks)


async def _too_many_callbacks(service):
    for n in range(MAX_CALLBACKS):
        url = f"http://127.0.0.1:1/{n}"
        await service.create(b"same", 200 if n else 202, callback_url=url)
    with pytest.raises(Conflict) as refused:
        await service.create(b"same", callback_url="http://127.0.0.1:1/more")
    assert problem_of(refused.value).status == 409
    assert (refused.value.code, refused.value.param) == ("too_many_callbacks", "callback_url")
    await service.create(b"same", 200, callback_url="http://127.0.0.1:1/0")
    await service.create(b"same", 200)


def test_a_retry_time_from_the_future_is_due(tmp_path):
    """The server crashed while its clock was ahead."""

    async def take(queue, database):
        far = sa.update(callbacks).values(next_try=now() + 10**7)
        await database.run(lambda c: c.execute(far).rowcount)
        assert (await queue.next(60)).url == "http://quick/"
        assert await queue.next(60) is None

    asyncio.run(with_ended_jobs(tmp_path, [("me", "http://quick/")], take))
