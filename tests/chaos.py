"""Kills the server, the worker and the database at random moments, and counts what is lost.

    python -m tests.chaos --kills 50 --database postgres

Every accepted job must end, with the transcript that it has when nobody kills anything. The engine
is a pretender whose words are a checksum of the chunk's samples: a chunk that is lost, doubled,
swapped or heard with other samples shows in the text, and its place in the times.
"""

import argparse
import collections
import contextlib
import itertools
import os
import random
import signal
import threading
import time
import uuid
from pathlib import Path

import httpx

from tests.makers import noise, wav_bytes
from tests.postgres import postgres
from tests.serving import FAKE, launched

ENV = {
    "ASR_JOB_LEASE": "2",
    "ASR_WORKER_TIMEOUT": "2",
    "ASR_MAX_ACTIVE_JOBS": "3",
    "FAKE_ENGINE_ECHO": "1",
    "FAKE_ENGINE_DELAY": "0.6",
}
LENGTHS = (40, 95, 150, 260)  # seconds: 2, 4, 6 and 11 chunks
END_SECONDS = 120


def recording(number):
    """Noise that no other number has."""
    return wav_bytes(noise(LENGTHS[number % len(LENGTHS)], seed=number))


class Client:
    """Sends jobs until they are accepted, as a client must that wants none lost and none twice."""

    def __init__(self):
        self.url = None
        self.keys = {}
        self.attempts = 0
        self.accepted = {}
        self.refusals = collections.Counter()

    def request(self, method, path, seconds=END_SECONDS, **options):
        """The first answer that is not a 5xx or a broken connection."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError, httpx.InvalidURL):
                answer = httpx.request(method, f"{self.url}{path}", timeout=15, **options)
                if answer.status_code < 500:
                    return answer
                self.refusals[answer.json()["error"]["code"]] += 1
            time.sleep(0.1)
        raise AssertionError(f"{method} {path}: no answer in {seconds} s")

    def send(self, number):
        key = self.keys.setdefault(number, uuid.uuid4().hex)
        headers = {"content-type": "audio/wav", "idempotency-key": key}
        answer = self.request("POST", "/v1/jobs", content=recording(number), headers=headers)
        assert answer.status_code in (200, 202), answer.text
        self.accepted[number] = answer.json()["id"]

    def job(self, number):
        return self.request("GET", f"/v1/jobs/{self.accepted[number]}").json()

    def transcript(self, number):
        answer = self.request("GET", f"/v1/jobs/{self.accepted[number]}/transcript.json")
        assert answer.headers["x-transcript-complete"] == "true"
        return answer.json()


class Site:
    """A server on a data directory that outlives it, and perhaps a Postgres."""

    def __init__(self, folder, database, client):
        self.database = database
        self.client = client
        self.env = ENV | {"ASR_DATA_DIR": str(folder / "data")}
        if database is not None:
            self.env["ASR_DATABASE_URL"] = database.url
        self.work = folder / "work"
        self.engine_log = folder / "engine.log"
        self.stack = contextlib.ExitStack()
        self.log = ""
        self.server = None

    def start(self):
        env = self.env | {"FAKE_ENGINE_LOG": str(self.engine_log)}
        self.server = self.stack.enter_context(launched(*FAKE, work_dir=self.work, **env))
        self.client.url = self.server.url

    def wait(self):
        self.server.wait_ready("/health")

    def kill_server(self):
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.process.wait()
        self.close()  # takes its children along
        self.start()

    def kill_worker(self):
        if pid := self.server.worker_pid():
            os.kill(pid, signal.SIGKILL)

    def kill_database(self):
        self.database.kill()
        time.sleep(random.uniform(0, 1.5))
        self.database.start()

    def close(self):
        self.log += self.server.log
        self.stack.close()


def reference(folder, n_jobs):
    """The transcripts when nobody kills anything, and how many chunks that takes."""
    client = Client()
    site = Site(folder, None, client)
    site.env["FAKE_ENGINE_DELAY"] = "0"
    site.start()
    try:
        site.wait()
        for number in range(n_jobs):
            client.send(number)
        transcripts = finish(client, n_jobs)
        return transcripts, site.engine_log.read_text().split().count("finished")
    finally:
        site.close()


def finish(client, n_jobs):
    """Wait for all jobs and take their transcripts."""
    deadline = time.monotonic() + END_SECONDS
    for number in range(n_jobs):
        while (job := client.job(number))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        assert job["state"] == "succeeded", job
        client.attempts += job["attempts"]
    return [client.transcript(number) for number in range(n_jobs)]


def chaos(folder, n_jobs, n_kills, database=None, seed=0):
    """Kill while jobs are sent and done; the client, and how often each was killed."""
    chance = random.Random(seed)
    client = Client()
    site = Site(folder, database, client)
    victims = [site.kill_server, site.kill_worker]
    if database is not None:
        victims.append(site.kill_database)
    site.start()
    site.wait()
    killed = collections.Counter()
    # Jobs come while kills come: the n-th job is sent after its share of the kills.
    senders = [threading.Thread(target=client.send, args=[0])]
    senders[0].start()
    try:
        for turn, kill in zip(range(n_kills), itertools.cycle(victims), strict=False):
            due = 1 + (turn + 1) * (n_jobs - 1) // n_kills
            while len(senders) < due:
                sender = threading.Thread(target=client.send, args=[len(senders)])
                sender.start()
                senders.append(sender)
            time.sleep(chance.uniform(0.0, 3.0))
            kill()
            killed[kill.__name__] += 1
        for sender in senders:
            sender.join(END_SECONDS)
        client.transcripts = finish(client, n_jobs)
    finally:
        site.close()
    client.log = site.log
    client.engine = site.engine_log.read_text().split()
    return client, killed


def compare(expected, client):
    """Numbers of the jobs whose transcripts differ."""
    pairs = enumerate(zip(expected, client.transcripts, strict=True))
    return [number for number, (one, other) in pairs if one != other]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    for name in ("expected", "killed"):
        (options.folder / name).mkdir(parents=True)
    started = time.monotonic()
    expected, n_chunks = reference(options.folder / "expected", options.jobs)
    open_database = postgres() if options.database == "postgres" else contextlib.nullcontext()
    with open_database as database:
        client, killed = chaos(
            options.folder / "killed", options.jobs, options.kills, database, options.seed
        )
    different = compare(expected, client)
    print(f"{options.database}: {dict(killed)} kills, {time.monotonic() - started:.0f} s")
    print(f"jobs: {len(client.accepted)} accepted and succeeded, {len(different)} differ")
    print(f"attempts: {client.attempts}")
    print(f"chunks: {n_chunks} needed, {client.engine.count('finished')} recognised")
    print(f"refused meanwhile: {dict(client.refusals)}")
    (options.folder / "log").write_text(client.log)
    raise SystemExit(bool(different) or "internal_error" in client.refusals)


if __name__ == "__main__":
    main()
