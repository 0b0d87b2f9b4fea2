"""A real Postgres server that tests can start, kill and restart."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.serving import free_port

START_SECONDS = 30


def find(program):
    """The path of a Postgres program; Debian keeps most of them out of PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    return shutil.which(program) or next((str(path) for path in places), None)


needs_postgres = pytest.mark.skipif(
    find("postgres") is None or find("initdb") is None,
    reason="Postgres is not installed (Debian: apt-get install postgresql)",
)


class Postgres:
    """A database server on its own port, in a temporary folder.

    Args:
        address: at which it listens.
        network: which may connect without a password, such as 10.0.0.0/24.
    """

    def __init__(self, address="127.0.0.1", network=None):
        self.address = address
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self.url = f"postgresql://test@{address}:{self.port}/postgres"
        self.process = None
        # Postgres refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self._run(find("initdb"), "-D", "data", "-U", "test", "-A", "trust", "--no-sync")
        if network is not None:
            with (self.folder / "data" / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {network} trust\n")

    def _run(self, *command):
        subprocess.run(command, cwd=self.folder, user=self.user, check=True, capture_output=True)

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(find("postgres"), "-D", "data", "-k", str(self.folder)),
                    *("-p", str(self.port), "-h", self.address),
                ],
                cwd=self.folder,
                user=self.user,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        ready = [find("pg_isready"), "-q", "-h", self.address, "-p", str(self.port)]
        while subprocess.run(ready).returncode != 0:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self):
        """Send SIGKILL to all its processes, as the kernel does when memory runs out."""
        victims = [self.process.pid, *children(self.process.pid)]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in victims):
            time.sleep(0.01)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)

    def remove(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def children(parent):
    """Pids of the child processes of `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


@contextlib.contextmanager
def postgres(**options):
    """A running server; the options are those of `Postgres`."""
    server = Postgres(**options)
    try:
        server.start()
        yield server
    finally:
        server.remove()
