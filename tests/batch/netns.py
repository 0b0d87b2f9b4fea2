"""Two hosts on this machine: network namespaces with a Ray node each. Needs root and ``ip``."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

ADDRESSES = ("10.77.19.1", "10.77.19.2")
PORT = 6379
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The head notices a dead node within seconds."""


def _ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


class Hosts:
    """The two hosts.

    Args:
        folder: of Ray's temporary files; its name must be short, because sockets lie in it.
        env: added to the environment of the nodes.
    """

    def __init__(self, folder, env):
        self.names = [f"asr{os.getpid()}{letter}" for letter in "ab"]
        self.address = f"{ADDRESSES[0]}:{PORT}"
        self._folder = folder
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.env = {**os.environ, **QUICK, **token, **env}
        self._nodes = {}

    def __enter__(self):
        with contextlib.ExitStack() as failed:
            failed.push(self.__exit__)
            self._start()
            failed.pop_all()
        return self

    def _start(self):
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        first, second = self.names
        _ip("link", "add", "v0", "netns", first, "type", "veth", "peer", "v0", "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "v0")
            _ip("-n", name, "link", "set", "v0", "up")
        self.start_node(0)
        self.start_node(1)

    def __exit__(self, *_):
        for number in (1, 0):
            self.kill_node(number)
        for name in self.names:
            _ip("netns", "del", name, check=False)

    def popen(self, number, command, **options):
        """Start a program on a host."""
        inside = ["ip", "netns", "exec", self.names[number], *command]
        return subprocess.Popen(inside, env=self.env, start_new_session=True, **options)

    def start_node(self, number):
        """Start the Ray node of a host, and wait until the head accepts it."""
        ray = str(Path(sys.executable).parent / "ray")
        where = ["--address", self.address]
        if number == 0:
            where = ["--head", "--port", str(PORT), "--include-dashboard=false"]
            where += ["--temp-dir", str(self._folder)]
        log = (self._folder.parent / f"node{number}.log").open("ab")
        command = [ray, "start", *where, "--node-ip-address", ADDRESSES[number], "--block"]
        command += ["--num-cpus", "2", "--object-store-memory", str(200 << 20)]
        process = self.popen(number, command, stdout=log, stderr=log)
        log.close()
        self._nodes[number] = process
        # Ray writes this line when the node has joined.
        wait_for(lambda: self._has_joined(number, process), 240)

    def _has_joined(self, number, process):
        assert process.poll() is None, (self._folder.parent / f"node{number}.log").read_text()
        return any("raylet" in name for _, name in self.processes(number))

    def kill_node(self, number):
        """Kill every process on a host at once."""
        for pid, _ in self.processes(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process = self._nodes.pop(number, None)
        if process is not None:
            process.wait()

    def processes(self, number):
        """(pid, command) of every process on a host."""
        inside = Path(f"/run/netns/{self.names[number]}")
        if not inside.exists():
            return []
        inode = inside.stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if (entry / "ns/net").stat().st_ino == inode:
                        command = (entry / "cmdline").read_bytes().decode(errors="replace")
                        found.append((int(entry.name), command))
        return found

    def actors(self):
        """The processes of all actors that transcribe."""
        everything = self.processes(0) + self.processes(1)
        return [pid for pid, name in everything if name.startswith("ray::MapWorker")]


def wait_for(condition, seconds):
    """Wait until a condition holds; the limit is only there to end a test that hangs."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
    return found
