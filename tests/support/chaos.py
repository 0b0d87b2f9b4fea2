"""Kills the server, the worker and the database at random moments, and counts what is lost.

    python -m tests.support.chaos --kills 50 --database postgres --folder chaos

Every accepted job must succeed, with the same transcript as without kills. The fake engine's words
are a checksum of the chunk's samples. A chunk that is lost, repeated, swapped or cut differently
therefore changes the text, and a wrong position changes the times.
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
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.makers import noise, wav_bytes
from tests.support.postgres import postgres
from tests.support.serving import FAKE, HTTP, launched

ENV = {
    "ASR_JOB_LEASE": "2",
    "ASR_WORKER_TIMEOUT": "2",
    "ASR_MAX_ACTIVE_JOBS": "3",
    "FAKE_ENGINE_ECHO": "1",
    "FAKE_ENGINE_DELAY": "0.8",
}
LENGTHS = (40, 95, 150, 260)  # seconds: 2, 4, 6 and 11 chunks
END_SECONDS = 120


def recording(number):
    """Noise that differs for each number."""
    return wav_bytes(noise(LENGTHS[number % len(LENGTHS)], seed=number))


@dataclass
class Outcome:
    """What was lost, and how much work was repeated.

    Attributes:
        client: has the accepted jobs and the number of attempts that they took.
        killed: number of kills per victim.
        differing: numbers of the jobs whose transcripts are wrong.
        n_needed: chunks that the engine recognises when nothing is killed.
        n_recognised: chunks that it recognised with kills.
        log: the logs of all servers.
    """

    client: "Client"
    killed: collections.Counter
    differing: list
    n_needed: int
    n_recognised: int
    log: str


class Client:
    """Sends each job with an idempotency key until it is accepted, so that it is created once."""

    options = "&prompt=0"  # the fake engine's seconds per chunk

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
                answer = HTTP.request(method, f"{self.url}{path}", timeout=15, **options)
                if answer.status_code < 500:
                    return answer
                self.refusals[answer.json()["error"]["code"]] += 1
            time.sleep(0.1)
        raise AssertionError(f"{method} {path}: no answer in {seconds} s")

    def recording(self, number):
        return recording(number)

    def send(self, number):
        key = self.keys.setdefault(number, uuid.uuid4().hex)
        headers = {"content-type": "audio/wav", "idempotency-key": key}
        audio = self.recording(number)
        answer = self.request("POST", "/v1/jobs", content=audio, headers=headers)
        assert answer.status_code in (200, 202), answer.text
        self.accepted[number] = answer.json()["id"]

    def job(self, number):
        return self.request("GET", f"/v1/jobs/{self.accepted[number]}").json()

    def transcript(self, number):
        answer = self.request("GET", f"/v1/jobs/{self.accepted[number]}/transcript.json")
        assert answer.headers["x-transcript-complete"] == "true"
        return answer.json()


class Site:
    """A server that is restarted on the same data directory, optionally with a Postgres."""

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

    def wait_for_work(self, seconds=15):
        """Wait until the engine begins a chunk. Without this, kills often hit a process start."""
        began = self.n_began()
        deadline = time.monotonic() + seconds
        while self.n_began() == began and time.monotonic() < deadline:
            time.sleep(0.02)

    def n_began(self):
        return self._did().count("began")

    def n_finished(self):
        return self._did().count("finished")

    def _did(self):
        return self.engine_log.read_text().split() if self.engine_log.exists() else []

    def kill_server(self):
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.process.wait()
        self.close()  # kills its child processes as well
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


def reference(client, n_jobs):
    """The expected transcripts: those of the synchronous route, without kills."""
    path = f"/v1/audio/transcriptions?response_format=full_json{client.options}"
    headers = {"content-type": "audio/wav"}
    return [
        client.request("POST", path, content=client.recording(number), headers=headers).json()
        for number in range(n_jobs)
    ]


def finish(client, n_jobs):
    """Wait until all jobs have succeeded and return their transcripts."""
    deadline = time.monotonic() + END_SECONDS
    for number in range(n_jobs):
        while (job := client.job(number))["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        assert job["state"] == "succeeded", job
        client.attempts += job["attempts"]
    return [client.transcript(number) for number in range(n_jobs)]


def chaos(folder, n_jobs, n_kills, database=None, seed=0):
    """Kill processes while jobs are sent and run, then transcribe the same audio without kills.

    Args:
        folder: holds the data directory, the work directory and the engine's log.
        n_jobs: how many jobs are sent, spread over the kills.
        n_kills: how many kills; the victims take turns.
        database: a Postgres; without one SQLite is used, which has no process to kill.
        seed: of the random delays before the kills.

    Returns:
        The differences between the two runs.
    """
    chance = random.Random(seed)
    client = Client()
    site = Site(folder, database, client)
    victims = [site.kill_server, site.kill_worker]
    if database is not None:
        victims.append(site.kill_database)
    site.start()
    site.wait()
    killed = collections.Counter()
    # The jobs are spread evenly over the kills.
    senders = [threading.Thread(target=client.send, args=[0])]
    senders[0].start()
    try:
        for turn, kill in zip(range(n_kills), itertools.cycle(victims), strict=False):
            due = 1 + (turn + 1) * (n_jobs - 1) // n_kills
            while len(senders) < due:
                sender = threading.Thread(target=client.send, args=[len(senders)])
                sender.start()
                senders.append(sender)
            if chance.random() < 0.75:
                site.wait_for_work()
            time.sleep(chance.uniform(0.0, 1.5))
            kill()
            killed[kill.__name__] += 1
        for sender in senders:
            sender.join(END_SECONDS)
        transcripts = finish(client, n_jobs)
        n_recognised = site.n_finished()
        expected = reference(client, n_jobs)
        n_needed = site.n_finished() - n_recognised
    finally:
        site.close()
    differing = [n for n in range(n_jobs) if transcripts[n] != expected[n]]
    return Outcome(client, killed, differing, n_needed, n_recognised, site.log)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    started = time.monotonic()
    open_database = postgres() if options.database == "postgres" else contextlib.nullcontext()
    with open_database as database:
        out = chaos(options.folder, options.jobs, options.kills, database, options.seed)
    client = out.client
    print(f"{options.database}: {dict(out.killed)}, {time.monotonic() - started:.0f} s")
    print(f"jobs: {len(client.accepted)} accepted and succeeded in {client.attempts} attempts")
    print(f"transcripts that differ: {out.differing}")
    print(f"chunks: {out.n_needed} needed, {out.n_recognised} recognised")
    print(f"refused meanwhile: {dict(client.refusals)}")
    (options.folder / "log").write_text(out.log)
    raise SystemExit(bool(out.differing) or "internal_error" in client.refusals)


if __name__ == "__main__":
    main()
