"""Two servers on two "machines" with one Postgres and one shared folder: ``make test-servers``.

Each server has its own network namespace. The clock of the first is five minutes ahead. The folder
is on one file system, so this does not test NFS; `tests/service/test_folders.py` has its locks.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.service.jobs.test_jobs import RAW, create, ended, events, recording
from tests.support.namespaces import needs_namespaces, network
from tests.support.paths import ROOT
from tests.support.postgres import needs_postgres, postgres
from tests.support.serving import FAKE, PATH, launched, wait_for

pytestmark = [pytest.mark.servers, needs_namespaces, needs_postgres]

WRONG_CLOCK = ROOT / "tests" / "support" / "wrong_clock.c"
AHEAD_SECONDS = 300
KEYS = {
    "ann": {"scopes": ["admin"]},
    "rate": {"requests_per_minute": 5},
    "narrow": {"concurrency": 1},
    "bytes": {"bytes_per_day": 200_000},
    "hours": {"audio_hours_per_day": 2.5 / 3600},
}
LEASE_SECONDS = 3
DRAIN_SECONDS = 10
TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}


class Node:
    """A server that can be killed and started again."""

    def __init__(self, machine, env):
        self._machine, self._env = machine, env
        self._stack = contextlib.ExitStack()
        self.server = None

    def start(self):
        made = launched(*FAKE, machine=self._machine, start_seconds=120, **self._env)
        self.server = self._stack.enter_context(made)

    def wait_ready(self):
        self.server.wait_ready()
        return self

    def kill(self):
        """Kill all processes, as when the machine loses power."""
        self.server.kill_all()
        self._stack.close()

    def restart(self):
        self.start()
        return self.wait_ready()

    def client(self, key="ann"):
        return self.server.client(headers={"authorization": f"Bearer key-{key}"})

    def end(self):
        """Ask it to end, and wait."""
        os.kill(self.server.pid, signal.SIGTERM)
        assert self.server.process.wait(120) == 0, self.server.log
        self._stack.close()


def wrong_clock(folder):
    """Compile the library that puts a clock wrong."""
    library = folder / "wrong_clock.so"
    command = ["cc", "-shared", "-fPIC", "-o", library, WRONG_CLOCK]
    subprocess.run(command, check=True)
    return str(library)


def _postgres(machines):
    return postgres(address=machines.gateway, network=machines.network)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    keys = [json.dumps({"name": name, "key": f"key-{name}"} | key) for name, key in KEYS.items()]
    with network(2) as machines, _postgres(machines) as database:
        env = {
            "ASR_HOST": "0.0.0.0",
            "ASR_DATA_DIR": str(folder),
            "ASR_DATABASE_URL": database.url,
            "ASR_API_KEYS": "\n".join(keys),
            "ASR_JOB_LEASE": str(LEASE_SECONDS),
            "ASR_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "ASR_WORKER_TIMEOUT": "30",
            "FAKE_ENGINE_ECHO": "1",
            "FAKE_ENGINE_DELAY": "0.3",
        }
        ahead = {"LD_PRELOAD": wrong_clock(folder.parent), "CLOCK_AHEAD": str(AHEAD_SECONDS)}
        nodes = [Node(machines.machines[0], env | ahead), Node(machines.machines[1], env)]
        try:
            for node in nodes:
                node.start()
            yield [node.wait_ready() for node in nodes]
        finally:
            for node in nodes:
                with contextlib.suppress(ProcessLookupError):
                    node.kill()


def text_of(client, job):
    answer = client.get(f"/v1/jobs/{job['id']}/transcript.txt")
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def quiet_text(client, content):
    answer = client.post(PATH, content=content, headers=RAW, params={"response_format": "text"})
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def test_the_clocks_differ(cluster):
    dates = [node.client().get("/health").headers["date"] for node in cluster]
    times = [time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")) for date in dates]
    assert AHEAD_SECONDS - 30 < times[0] - times[1] < AHEAD_SECONDS + 30


def test_a_lease_is_not_taken_by_a_server_whose_clock_is_ahead(cluster):
    """By its own clock every lease of the other server has expired."""
    jobs = [create(cluster[1].client(), recording(200.0)) for _ in range(4)]
    done = [ended(cluster[1].client(), job, 120) for job in jobs]
    assert [(job["state"], job["attempts"]) for job in done] == [("succeeded", 1)] * 4


@pytest.mark.parametrize(("victim", "nth"), [(0, 1), (1, 1), (0, 2)])
def test_jobs_of_a_killed_server_are_taken_over(cluster, victim, nth):
    dying, other = cluster[victim], cluster[1 - victim]
    contents = [recording(100.0) for _ in range(6)]
    jobs = [create(dying.client(), content) for content in contents]

    def states():
        found = [other.client().get(f"/v1/jobs/{job['id']}").json() for job in jobs]
        return [job["state"] for job in found]

    wait_for(lambda: "running" in states(), 60)
    wait_for(lambda: "succeeded" in states() or states().count("running") > 3, 60)
    dying.kill()
    done = [ended(other.client(), job, 180) for job in jobs]
    assert [job["state"] for job in done] == ["succeeded"] * len(jobs)
    for job, content in zip(jobs, contents, strict=True):
        assert text_of(other.client(), job) == quiet_text(other.client(), content)
    dying.restart()


def live_session(node, key):
    address = node.server.url.replace("http", "ws") + "/v1/realtime"
    headers = {"authorization": f"Bearer {key}"}
    return connect(address, additional_headers=headers, proxy=None, open_timeout=60)


def begin_upload(client, content):
    length = {"Upload-Length": str(len(content))}
    return client.post("/v1/uploads", headers=TUS | length).headers["location"]


def send_part(client, upload, content, offset):
    """Send a part that begins at an offset."""
    headers = PART | {"Upload-Offset": str(offset)}
    return client.patch(upload, content=content[offset:], headers=headers)


def offset_of(client, upload):
    answer = client.head(upload, headers=TUS)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def test_an_upload_begun_at_one_server_is_finished_at_the_other(cluster):
    first, second = (node.client() for node in cluster)
    content = recording(20.0)
    upload = begin_upload(first, content)
    half = content[: len(content) // 2]
    assert send_part(first, upload, half, 0).status_code == 204
    assert offset_of(second, upload) == len(half)
    assert send_part(second, upload, content, 0).status_code == 409
    assert send_part(second, upload, content, len(half)).status_code == 204
    assert offset_of(first, upload) == len(content)
    job = first.post("/v1/jobs", json={"upload_id": upload.rpartition("/")[2]}).json()
    assert ended(second, job)["state"] == "succeeded"
    assert text_of(second, job) == quiet_text(second, content)


def test_one_writer_over_both_servers_and_a_kill_releases_the_upload(cluster):
    dying, other = cluster
    content = recording(20.0)
    upload = begin_upload(dying.client(), content)
    sent, stop = len(content) // 3, threading.Event()

    def body():
        yield content[:sent]
        stop.wait()
        yield content[sent:]

    def hang():
        headers = PART | {"Upload-Offset": "0", "Content-Length": str(len(content))}
        with contextlib.suppress(httpx.TransportError):
            dying.client().patch(upload, content=body(), headers=headers)

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        wait_for(lambda: offset_of(other.client(), upload) == sent, 60)
        assert send_part(other.client(), upload, content, sent).status_code == 423
        dying.kill()
    finally:
        stop.set()
        thread.join()
    assert offset_of(other.client(), upload) == sent
    assert send_part(other.client(), upload, content, sent).status_code == 204
    assert offset_of(other.client(), upload) == len(content)
    dying.restart()


def test_both_share_the_requests_of_a_minute(cluster):
    content = recording(0.5)
    codes = [
        cluster[i % 2].client("rate").post(PATH, content=content, headers=RAW).status_code
        for i in range(5)
    ]
    assert codes == [200] * 5
    # A new token comes every 12 s, so of eight further requests few are accepted.
    answers = [
        cluster[i % 2].client("rate").post("/v1/uploads", headers=TUS | {"Upload-Length": "1"})
        for i in range(8)
    ]
    assert {answer.status_code for answer in answers[-2:]} <= {201, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 4
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"


def test_both_share_the_open_requests(cluster):
    def refusal():
        answer = cluster[1].client("narrow").post(PATH, content=recording(1.0), headers=RAW)
        return answer.json()["error"]["code"] if answer.status_code == 429 else None

    with live_session(cluster[0], "key-narrow") as session:
        assert json.loads(session.recv())["type"].endswith("session.created")
        assert refusal() == "concurrency_limit_exceeded"
    wait_for(lambda: refusal() is None, 60)


@pytest.mark.parametrize(("name", "seconds"), [("bytes", 4.0), ("hours", 3.0)])
def test_both_share_the_day_and_a_restart_does_not_clear_it(cluster, name, seconds):
    for node in cluster:
        content = recording(seconds)
        answer = node.client(name).post(PATH, content=content, headers=RAW)
        if answer.status_code != 200:
            break

    def refused(node):
        answer = node.client(name).post(PATH, content=recording(seconds), headers=RAW)
        return answer.status_code == 429 and answer.json()["error"]["code"]

    code = {"bytes": "bytes_limit_exceeded", "hours": "audio_limit_exceeded"}[name]
    assert wait_for(lambda: refused(cluster[1]), 30) == code
    assert wait_for(lambda: refused(cluster[0]), 30) == code
    cluster[1].kill()
    cluster[1].restart()
    assert refused(cluster[1]) == code


@pytest.mark.parametrize(("maker", "user"), [(0, 1), (1, 0)])
def test_a_client_secret_is_valid_at_the_other_server(cluster, maker, user):
    wanted = {"expires_after": {"anchor": "created_at", "seconds": 60}}
    made = cluster[maker].client().post("/v1/realtime/client_secrets", json=wanted).json()
    assert 0 < made["expires_at"] - time.time() <= 61, "by the clock of the database"

    def open_with(secret):
        with live_session(cluster[user], secret) as session:
            return json.loads(session.recv())["type"]

    assert open_with(made["value"]).endswith("session.created")
    with pytest.raises(InvalidStatus):
        open_with(made["value"][:-4] + "AAAA")


def test_a_kept_recording_and_its_corrections_are_at_both(cluster):
    first, second = (node.client() for node in cluster)
    for client in (first, second):  # the tag of a compressed answer has a suffix
        client.headers["accept-encoding"] = "identity"
    job = create(first, recording(4.0), keep_recording="true")
    assert ended(second, job)["state"] == "succeeded"
    place = f"/v1/jobs/{job['id']}"
    assert [event for event, *_ in events(second, job)][-1] == "done"

    def audio(client, **options):
        def look():
            answer = client.get(f"{place}/audio", **options)
            return answer if answer.status_code != 503 else None

        return wait_for(look, 60)

    token = first.post(f"{place}/media_token").json()["token"]
    whole = audio(first).content
    assert audio(second).content == whole
    anonymous = {"headers": {"authorization": ""}, "params": {"token": token}}
    assert audio(second, **anonymous).content == whole
    assert second.get(f"{place}/peaks").json() == first.get(f"{place}/peaks").json()

    found = first.get(f"{place}/transcript")
    body, tag = found.json(), found.headers["etag"]
    assert second.get(f"{place}/transcript").headers["etag"] == tag

    def save(client, word):
        segment = body["segments"][0]
        segment["words"][0]["word"] = word
        segment["text"] = " ".join(word["word"] for word in segment["words"])
        return client.put(f"{place}/transcript", json=body, headers={"if-match": tag})

    saved = save(second, "corrected")
    assert saved.status_code == 200, saved.text
    again = first.get(f"{place}/transcript")
    assert again.headers["etag"] == saved.headers["etag"] != tag
    assert again.json()["segments"][0]["words"][0]["word"] == "corrected"
    assert save(first, "late").status_code == 412
    assert first.get("/", headers={"accept": "text/html"}).text == second.get("/").text


class Balancer:
    """Sends requests to servers that are ready, as a proxy does; it never tries one again."""

    def __init__(self, nodes):
        self._nodes = nodes
        self._ready = [True] * len(nodes)
        self._n_sent = 0
        self.failures = []
        self.served = [0] * len(nodes)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._look)]
        self._threads += [threading.Thread(target=self._send, args=(seed,)) for seed in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def is_ready(self, number):
        return self._ready[number]

    def _look(self):
        while not self._stop.wait(0.2):
            self._ready = [node.server.is_ready() for node in self._nodes]

    def _send(self, seed):
        clients = {}
        content = recording(1.0 + seed)
        while not self._stop.is_set():
            ready = [number for number, is_ready in enumerate(self._ready) if is_ready]
            if not ready:
                self.failures.append("no server is ready")
                return
            self._n_sent += 1
            number = ready[self._n_sent % len(ready)]
            server = self._nodes[number].server
            if (number, server.pid) not in clients:
                clients[number, server.pid] = self._nodes[number].client()
            try:
                client = clients[number, server.pid]
                answer = client.post(PATH, content=content, headers=RAW)
                if answer.status_code != 200:
                    self.failures.append((number, answer.status_code, answer.text))
            except httpx.TransportError as error:
                self.failures.append((number, repr(error)))
            self.served[number] += 1


def test_a_rolling_restart_fails_no_job_and_no_request(cluster):
    contents = [recording(100.0) for _ in range(8)]
    jobs = [create(cluster[i % 2].client(), content) for i, content in enumerate(contents)]
    with Balancer(cluster) as balancer:
        for number, node in enumerate(cluster):
            wait_for(lambda n=number: balancer.is_ready(n), 60)
            old = node.server
            node.end()
            node.restart()
            wait_for(lambda n=number: balancer.is_ready(n), 60)
            assert node.server.pid != old.pid
        served = list(balancer.served)
        wait_for(lambda: all(n > m for n, m in zip(balancer.served, served, strict=True)), 60)
    assert balancer.failures == []
    done = [ended(cluster[0].client(), job, 180) for job in jobs]
    assert [job["state"] for job in done] == ["succeeded"] * len(jobs)
    for job, content in zip(jobs, contents, strict=True):
        assert text_of(cluster[1].client(), job) == quiet_text(cluster[1].client(), content)


def test_a_draining_server_is_not_ready_first(cluster):
    node = cluster[0]
    client = node.client()
    os.kill(node.server.pid, signal.SIGTERM)
    answer = wait_for(lambda: (got := client.get("/ready")).status_code == 503 and got, 30)
    assert answer.json()["reason"] == "the server is about to end"
    assert client.post(PATH, content=recording(1.0), headers=RAW).status_code == 200
    os.kill(node.server.pid, signal.SIGTERM)  # impatient
    assert node.server.process.wait(60) == 0
    node.kill()
    node.restart()
