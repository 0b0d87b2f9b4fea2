"""Real server processes for tests: start, watch, stop, and prove that nothing is left of them.

A real server costs 3 s of CPU time. Tests that are not about processes, signals or memory take
`tests.support.inprocess.serving`, which costs a tenth of that.
"""

import asyncio
import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import wave
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.paths import ROOT

FAKE = ("-m", "tests.support.fake_server")
REAL = ("server.py",)
MARK = "SERVING_TEST_MARK"  # names all processes of one server, whoever their parents are
START_SECONDS = 60
STOP_SECONDS = 10
PATH = "/v1/audio/transcriptions"
# In the place of httpx.get and its like, each of which makes a TLS context: 20 ms of CPU.
HTTP = httpx.Client(timeout=20, verify=False, limits=httpx.Limits(max_keepalive_connections=0))


def wait_for(condition, seconds, what="the condition"):
    """Poll until `condition()` is true and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {seconds} s")


async def until(condition, seconds=60.0):
    """Poll until `condition()` is true, while the event loop goes on."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def make_wav(seconds=2.0, rate=16_000, amplitude=3000):
    """A square wave of 100 Hz as a wav file; silence with amplitude 0."""
    period = amplitude.to_bytes(2, "little", signed=True) * (rate // 200)
    period += (-amplitude).to_bytes(2, "little", signed=True) * (rate // 200)
    n_bytes = int(seconds * rate) * 2
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((period * (n_bytes // len(period) + 1))[:n_bytes])
    return target.getvalue()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_env(extra):
    """Our environment without settings of whoever runs the tests."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "FAKE_ENGINE_"))}
    return env | extra


def marked_processes(mark):
    """Pids of all living processes that were started with this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@dataclass
class Site:
    """Where a service can be reached and what it leaves there, in whatever process it runs.

    Attributes:
        log_path: what it wrote to standard output and error.
        work_dir: its ASR_WORK_DIR.
        engine_log: where a fake engine notes what it does.
    """

    url: str
    log_path: Path
    work_dir: Path
    engine_log: Path
    start_seconds: float = START_SECONDS
    clients: list = field(default_factory=list)

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def client(self, **options):
        """An httpx client of this server, closed with it."""
        made = httpx.Client(base_url=self.url, timeout=30, verify=False, **options)
        self.clients.append(made)
        return made

    def is_ready(self, path="/ready"):
        with contextlib.suppress(httpx.TransportError):
            return HTTP.get(self.url + path, timeout=10).status_code == 200
        return False

    def has_ended(self):
        raise NotImplementedError

    def wait_ready(self, path="/ready"):
        def settled():
            return self.has_ended() or self.is_ready(path)

        wait_for(settled, self.start_seconds, f"an answer of {path}")
        assert not self.has_ended(), f"the server ended:\n{self.log}"

    def engine_did(self):
        """What the fake engine noted so far."""
        return self.engine_log.read_text().split() if self.engine_log.exists() else []

    def work_files(self):
        """Files of requests that lie on disk."""
        return [path for path in self.work_dir.rglob("*") if path.is_file()]

    def request_folders(self):
        return list(self.work_dir.glob("asr-serve-*/*"))

    def check_left_nothing(self):
        assert not list(self.work_dir.iterdir()), "the run directory was left behind"


@dataclass
class Server(Site):
    """A service in processes of its own.

    Attributes:
        process: the main process, leader of a session of its own.
        mark: names all its processes.
    """

    process: subprocess.Popen | None = None
    mark: str = ""

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        return marked_processes(self.mark)

    def worker_pid(self):
        """The process with the engine: the spawned one, which is not the resource tracker."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"multiprocessing.spawn" in command:
                    return pid
        return None

    def has_ended(self):
        return self.process.poll() is not None

    def stop(self, number=signal.SIGTERM, *, group=False):
        """Ask it to end, and wait for all its processes; returns (exit code, seconds)."""
        started = time.monotonic()
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.pid, number)
        code = self.process.wait(STOP_SECONDS)
        self.wait_gone(STOP_SECONDS - (time.monotonic() - started))
        return code, time.monotonic() - started

    def wait_gone(self, seconds=STOP_SECONDS):
        wait_for(lambda: not self.pids(), seconds, f"the end of all processes\n{self.log}")

    def kill_all(self):
        """Last resort, so that a failed test leaves nothing behind."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def variables_of(home, work):
    """What every service of the tests is told: places, and that any sound is speech."""
    return {
        "ASR_WORK_DIR": str(work),
        "ASR_DATA_DIR": str(home / "data"),
        "ASR_VAD": "off",
        "FAKE_ENGINE_LOG": str(home / "engine.log"),
    }


@contextlib.contextmanager
def launched(*command, work_dir=None, python=sys.executable, start_seconds=START_SECONDS, **env):
    """A server that has been started and may not be ready; killed at the end.

    Args:
        command: what follows ``python``.
        work_dir: shared with another server; by default its own.
        python: interpreter of another environment.
        start_seconds: what it gets to be ready.
        env: settings and other variables.
    """
    home = Path(tempfile.mkdtemp(prefix="serving-"))
    port, mark = free_port(), uuid.uuid4().hex
    work = home / "work" if work_dir is None else work_dir
    work.mkdir(exist_ok=True)
    chosen = {
        "ASR_PORT": str(port),
        **variables_of(home, work),
        # Words of engines that only pretend have times, and its models take a second to load.
        **({"ASR_ALIGNER": "none"} if command in ((), FAKE) else {}),
        "TMPDIR": str(home),
        MARK: mark,
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [python, *(command or FAKE)],
            env=clean_env(chosen | env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    places = (home / "log", work, home / "engine.log", start_seconds)
    server = Server(url, *places, process=process, mark=mark)
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        server.kill_all()
        shutil.rmtree(home)


@contextlib.contextmanager
def serving(*command, until="/ready", **env):
    """A server that answers `until` with 200; SIGTERM must end it within 10 s with code 0."""
    with launched(*command, **env) as server:
        server.wait_ready(until)
        yield server
        code, _ = server.stop()
        assert code == 0, server.log
        server.check_left_nothing()
