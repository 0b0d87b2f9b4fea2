"""Kills any process of the service, fills its disk, takes its descriptors and deletes its folders.

    python -m tests.support.calamities --kills 50 --folder calamities
    python -m tests.support.calamities --kills 20 --folder calamities --engine moonshine

Jobs and synchronous requests are sent meanwhile. Every accepted job must succeed, with the
transcript of a quiet run. See `tests.support.chaos` for the words of the fake engine.
"""

import argparse
import collections
import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support import chaos
from tests.support.chaos import Client, finish
from tests.support.paths import SAMPLES
from tests.support.serving import FAKE, HTTP, PATH, REAL, launched, make_wav

_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))
runpy.run_module("tests.support.fake_server", run_name="__main__")
"""
DISK_MEGABYTES = 80
TROUBLE_SECONDS = 4.0
"""How long a disk stays full, and a process without descriptors."""
APPEARS_SECONDS = 5.0
"""How long a kill waits for a process of its kind: the children of a template live briefly."""
PROCESSES = ("main", "manager", "api", "worker", "template", "child")
RECORDINGS = ("meeting", "memo", "lecture", "telephone")


def children_of(pid):
    """The children of all threads of a process."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text("ascii").split())
    return sorted(found)


def command_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def sockets_of(pid):
    """The inodes of the sockets that a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := str(entry.readlink())).startswith("socket:["):
                    found.add(target[8:-1])
    return found


def is_listening(pid, server):
    """Whether a process has the listening socket of the service open."""
    port = f":{httpx.URL(server.url).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()]
    listening = {line[9] for line in lines if line[1].endswith(port) and line[3] == "0A"}
    return bool(listening & sockets_of(pid))


def tree_of(server):
    """The processes of the service by their kind."""
    found = collections.defaultdict(list)
    found["main"].append(server.pid)
    for pid in children_of(server.pid):
        command = command_of(pid)
        if b"resource_tracker" in command:
            continue
        if b"multiprocessing.spawn" in command:
            found["worker"].append(pid)
            for template in children_of(pid):
                found["template"].append(template)
                found["child"] += children_of(template)
        elif is_listening(pid, server):
            found["api"].append(pid)
        else:
            found["manager"].append(pid)
    return found


@contextlib.contextmanager
def small_disk(folder):
    """Mount a small file system; yields whether that is allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={DISK_MEGABYTES}m"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    is_root = os.getuid() == 0
    is_mounted = is_root and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Site(chaos.Site):
    """A server that is started again when it ends, as by systemd."""

    def __init__(self, folder, client, engine, dice):
        super().__init__(folder, None, client)
        self.engine = engine
        self.dice = dice
        self.work.mkdir(parents=True, exist_ok=True)
        self.max_descriptors = None
        self.n_restarts = 0
        self.done = collections.Counter()
        self.refused = collections.Counter()

    def start(self):
        env = self.env | {"FAKE_ENGINE_LOG": str(self.engine_log)}
        if self.engine == "moonshine":
            env |= {"ASR_ENGINE": "moonshine", "ASR_VAD": "webrtc"}
        command = REAL if self.engine == "moonshine" else FAKE
        if self.max_descriptors is not None:
            command = ("-c", _LIMITED.format(self.max_descriptors))
            env |= {"ASR_ALIGNER": "none"}
        self.server = self.stack.enter_context(launched(*command, work_dir=self.work, **env))
        self.client.url = self.server.url

    def revive(self):
        """Start the service again if it has ended, and wait until it answers."""
        if self.server.process.poll() is not None:
            self.n_restarts += 1
            self.close()
            self.start()
        with contextlib.suppress(AssertionError):  # it may end while it starts
            self.wait()
            return
        self.revive()

    def wait_for_work(self, seconds=3):
        if self.engine != "moonshine":
            super().wait_for_work(seconds)

    def kill(self, kind):
        """Kill a random process of a kind; returns whether there was one."""
        deadline = time.monotonic() + APPEARS_SECONDS
        while not (pids := tree_of(self.server)[kind]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.dice.choice(pids), signal.SIGKILL)
        if kind in ("main", "manager"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(20)
        self.done[f"kill {kind}"] += 1
        return True

    # --- the other calamities -------------------------------------------------------------------

    def fill_disk(self):
        filler = self.work / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        self.look("full disk")
        time.sleep(TROUBLE_SECONDS)
        filler.unlink()
        self.done["fill disk"] += 1

    def take_descriptors(self):
        """Leave the API process and the worker no free descriptor."""
        for kind in ("api", "worker"):
            for pid in tree_of(self.server)[kind]:
                with contextlib.suppress(OSError):
                    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                    numbers = [int(it.name) for it in Path(f"/proc/{pid}/fd").iterdir()]
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, before[1]))
                    time.sleep(TROUBLE_SECONDS / 2)
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.done["take descriptors"] += 1

    def delete_folders(self):
        """Delete the run directories, as a cleaner of old files does."""
        for parent in (self.work, Path(self.env["ASR_DATA_DIR"])):
            for folder in parent.glob("asr-serve-*"):
                shutil.rmtree(folder, ignore_errors=True)
        self.done["delete folders"] += 1

    def look(self, what):
        """Note whether ``/ready`` tells the truth."""
        with contextlib.suppress(httpx.TransportError):
            status = HTTP.get(f"{self.server.url}/ready", timeout=10).status_code
            self.done[f"{what}: /ready says {status}"] += 1


@dataclass
class Outcome:
    """What happened.

    Attributes:
        site: what was done, and the restarts.
        client: the accepted jobs.
        differing: numbers of the jobs whose transcripts are wrong.
        synchronous: statuses of the synchronous requests.
    """

    site: Site
    client: Client
    differing: list
    synchronous: collections.Counter


class Requests(threading.Thread):
    """Sends synchronous requests until it is stopped."""

    def __init__(self, client):
        super().__init__()
        self.client = client
        self.stopped = threading.Event()
        self.statuses = collections.Counter()

    def run(self):
        body = make_wav()
        while not self.stopped.wait(0.3):
            try:
                headers = {"content-type": "audio/wav"}
                answer = HTTP.post(
                    self.client.url + PATH, content=body, headers=headers, timeout=60
                )
                self.statuses[answer.status_code] += 1
                if answer.status_code == 503:
                    assert answer.headers["retry-after"]
            except (httpx.TransportError, httpx.InvalidURL):
                self.statuses["no answer"] += 1


class Recordings(Client):
    """Sends samples of speech instead of noise."""

    options = ""

    def recording(self, number):
        (file,) = [it for it in SAMPLES.glob(f"{RECORDINGS[number % 4]}.*") if it.suffix != ".json"]
        # An empty chunk at the end makes each file different, so each is a job of its own.
        return file.read_bytes() + b"LIST\x04\x00\x00\x00" + number.to_bytes(4, "little")


def calamities(folder, n_jobs, n_kills, engine="fake", seed=0):
    """Disturb the service while jobs run, then transcribe the same audio in quiet.

    Args:
        folder: for all files.
        n_jobs: how many jobs are sent.
        n_kills: how many processes are killed. After each fifth kill something else happens.
        engine: fake or moonshine.
        seed: of the random moments.
    """
    dice = random.Random(seed)
    client = Recordings() if engine == "moonshine" else Client()
    site = Site(folder, client, engine, dice)
    with contextlib.ExitStack() as stack:
        can_fill = stack.enter_context(small_disk(site.work))
        others = [
            site.take_descriptors,
            site.delete_folders,
            *([site.fill_disk] if can_fill else []),
        ]
        stack.callback(site.close)
        site.start()
        site.wait()
        requests = Requests(client)
        requests.start()
        stack.callback(requests.stopped.set)
        senders = _disturb(site, n_jobs, n_kills, itertools.cycle(others))
        for sender in senders:
            sender.join(chaos.END_SECONDS)
        transcripts = finish(client, n_jobs)
        requests.stopped.set()
        requests.join()
        expected = chaos.reference(client, n_jobs)
        differing = [n for n in range(n_jobs) if transcripts[n] != expected[n]]
    return Outcome(site, client, differing, requests.statuses)


def _disturb(site, n_jobs, n_kills, others):
    senders = []
    n_killed = 0
    kinds = itertools.cycle(PROCESSES)
    while n_killed < n_kills:
        while len(senders) < 1 + (n_killed + 1) * (n_jobs - 1) // n_kills:
            sender = threading.Thread(target=site.client.send, args=[len(senders)])
            sender.start()
            senders.append(sender)
        if site.dice.random() < 0.75:
            site.wait_for_work()
        time.sleep(site.dice.uniform(0.0, 1.5))
        if not site.kill(next(kinds)):
            continue
        n_killed += 1
        site.revive()
        if n_killed % 5 == 0:
            site.wait_for_work()
            next(others)()
    return senders


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--engine", choices=("fake", "moonshine"), default="fake")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    started = time.monotonic()
    out = calamities(options.folder, options.jobs, options.kills, options.engine, options.seed)
    report(out, time.monotonic() - started)
    raise SystemExit(bool(out.differing))


def report(out, seconds):
    """Print the figures."""
    jobs = out.client.accepted
    print(f"{seconds:.0f} s, done: {dict(out.site.done)}")
    print(f"the service ended and was started again {out.site.n_restarts} times")
    print(f"jobs: {len(jobs)} accepted, all succeeded, in {out.client.attempts} attempts")
    print(f"transcripts equal to a quiet run: {len(jobs) - len(out.differing)}")
    print(f"synchronous requests: {dict(out.synchronous)}")
    print(f"job requests refused meanwhile: {dict(out.client.refusals)}")


if __name__ == "__main__":
    main()
