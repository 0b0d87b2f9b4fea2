"""Real server processes for tests: start, inspect and stop them, and check that nothing is left.

A real server costs 3 s of CPU time. Tests that are not about processes, signals or memory use
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
MARK = "SERVING_TEST_MARK"  # identifies all processes of one server, whatever their parents are
START_SECONDS = 60
STOP_SECONDS = 10
PATH = "/v1/audio/transcriptions"
# Use it instead of httpx.get and the like: each call of those makes a TLS context, 20 ms of CPU.
HTTP = httpx.Client(timeout=20, verify=False, limits=httpx.Limits(max_keepalive_connections=0))


def wait_for(condition, seconds, what="the condition"):
    """Poll until `condition()` returns a true value, and return that value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {seconds} s")


async def until(condition, seconds=60.0):
    """Poll until `condition()` is true, without blocking the event loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def make_wav(seconds=2.0, rate=16_000, amplitude=3000):
    """A square wave of 100 Hz as a WAV file; amplitude 0 gives silence."""
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
    """The current environment without the service settings of the developer, plus `extra`."""
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
    """The URL and the files of a running service, in this or in another process.

    Attributes:
        log_path: its standard output and standard error.
        work_dir: its ASR_WORK_DIR.
        engine_log: the file in which a fake engine records what it does.
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
        """An httpx client for this server. It is closed when the server stops."""
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
        """What the fake engine has recorded so far."""
        return self.engine_log.read_text().split() if self.engine_log.exists() else []

    def work_files(self):
        """The files of requests that are on disk."""
        return [path for path in self.work_dir.rglob("*") if path.is_file()]

    def request_folders(self):
        return list(self.work_dir.glob("asr-serve-*/*"))

    def check_left_nothing(self):
        assert not list(self.work_dir.iterdir()), "the run directory was left behind"


@dataclass
class Server(Site):
    """A service in its own processes.

    Attributes:
        process: the main process, which leads its own session.
        mark: identifies all its processes.
    """

    process: subprocess.Popen | None = None
    mark: str = ""

    @property
    def pid(self):
        return self.process.pid

    def pids(self):
        return marked_processes(self.mark)

    def worker_pid(self):
        """The pid of the process with the engine: the spawned one that is no resource tracker."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"multiprocessing.spawn" in command:
                    return pid
        return None

    def has_ended(self):
        return self.process.poll() is not None

    def stop(self, number=signal.SIGTERM, *, group=False):
        """Send a signal and wait until all processes have ended; returns (exit code, seconds)."""
        started = time.monotonic()
        if self.process.poll() is None:
            (os.killpg if group else os.kill)(self.pid, number)
        code = self.process.wait(STOP_SECONDS)
        self.wait_gone(STOP_SECONDS - (time.monotonic() - started))
        return code, time.monotonic() - started

    def wait_gone(self, seconds=STOP_SECONDS):
        wait_for(lambda: not self.pids(), seconds, f"the end of all processes\n{self.log}")

    def kill_all(self):
        """Kill all processes, so that a failed test leaves none behind."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def variables_of(home, work):
    """Settings of every service in the tests: its folders, and no VAD, so all audio is speech."""
    return {
        "ASR_WORK_DIR": str(work),
        "ASR_DATA_DIR": str(home / "data"),
        "ASR_VAD": "off",
        "FAKE_ENGINE_LOG": str(home / "engine.log"),
    }


@contextlib.contextmanager
def launched(
    *command,
    work_dir=None,
    python=sys.executable,
    start_seconds=START_SECONDS,
    machine=None,
    **env,
):
    """A server that has been started and may not be ready yet. It is killed at the end.

    Args:
        command: the arguments of ``python``.
        work_dir: a directory that another server uses too; by default a new one.
        python: the interpreter, for example that of another environment.
        start_seconds: how long it may take to become ready.
        machine: the network namespace in which it runs, and its address there.
        env: settings and other environment variables.
    """
    namespace, address = machine or (None, "127.0.0.1")
    wrapper = [] if namespace is None else ["ip", "netns", "exec", namespace]
    home = Path(tempfile.mkdtemp(prefix="serving-"))
    port, mark = free_port(), uuid.uuid4().hex
    work = home / "work" if work_dir is None else work_dir
    work.mkdir(exist_ok=True)
    chosen = {
        "ASR_PORT": str(port),
        **variables_of(home, work),
        # Fake engines return word times, so no aligner is needed; its models load for a second.
        **({"ASR_ALIGNER": "none"} if command in ((), FAKE) else {}),
        "TMPDIR": str(home),
        MARK: mark,
    }
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*wrapper, python, *(command or FAKE)],
            env=clean_env(chosen | env),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://{address}:{port}"
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
