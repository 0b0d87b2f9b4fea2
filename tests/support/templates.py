"""Template processes for tests: forked from a process that has already loaded the modules.

`asr.workers.pool` starts a Python process for each pool, which imports and loads what the jobs
need. That costs 0.4 s of CPU time, or 1 s with an acoustic model, and hundreds of tests make a
pool. Here the first pool with a given list of names starts a *nursery*, a process that loads them.
This pool and all later pools with the same list get a fork of the nursery. The fork runs the same
code as in production: in its own session, with the environment, the working directory and the
standard error of the test.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from asr.workers import pool
from asr.workers.template import TemplateProcess, preload

_START = """
import json, sys
sys.path = json.loads(sys.argv[1])
from tests.support.templates import nurse
nurse(sys.argv[2:])
"""
MAX_REQUEST = 1 << 17


class Nursery:
    """A process that has loaded the modules, and forks itself on request."""

    def __init__(self, names):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_REQUEST)
        command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path)]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), *names],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def fork(self, control, env):
        """A template process that takes its commands from the socket `control`."""
        request = json.dumps({"env": dict(env), "folder": str(Path.cwd())}).encode()
        assert len(request) < MAX_REQUEST
        try:
            socket.send_fds(self._control, [request], [control, 2])
            return Template(int(self._control.recv(100)))
        except (OSError, ValueError):
            return None  # the nursery could not load its modules

    def close(self):
        self._control.close()
        self._process.wait(10)


class Template:
    """The part of `subprocess.Popen` that `asr.workers.pool` uses, for a process not our child."""

    def __init__(self, pid):
        self.pid = pid
        self._handle = None
        with contextlib.suppress(ProcessLookupError):  # the process has already ended
            self._handle = os.pidfd_open(pid)

    def wait(self, timeout=None):
        if self._handle is not None:
            if not select.select([self._handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a template process", timeout)
            os.close(self._handle)
            self._handle = None

    def kill(self):
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)


@contextlib.contextmanager
def forked_templates():
    """Every pool that starts in this block gets its template process from a nursery."""
    nurseries = {}

    def start(command, *, env, pass_fds, **options):
        key = (command[4], *command[6:])
        assert command[4] == json.dumps(sys.path)
        if key not in nurseries:
            nurseries[key] = Nursery(command[6:])
        if (template := nurseries[key].fork(*pass_fds, env)) is not None:
            return template
        nurseries.pop(key).close()
        return real.Popen(command, env=env, pass_fds=pass_fds, **options)

    real = pool.subprocess
    pool.subprocess = SimpleNamespace(
        Popen=start, DEVNULL=real.DEVNULL, TimeoutExpired=real.TimeoutExpired
    )
    try:
        yield
    finally:
        pool.subprocess = real
        for nursery in nurseries.values():
            nursery.close()


@contextlib.contextmanager
def started_templates():
    """Every pool that starts in this block starts its template process, as in production."""
    forked, pool.subprocess = pool.subprocess, subprocess
    try:
        yield
    finally:
        pool.subprocess = forked


# --- in the nursery -----------------------------------------------------------------------------


def nurse(arguments):
    """Load the named modules, then fork on request until the other side closes the socket."""
    control = socket.socket(fileno=int(arguments[0]))
    for entry in arguments[1:]:
        preload(entry)
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        data, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 2)
        if not data:
            return  # forks that still run end with their pools; their CPU time is not counted
        if (pid := os.fork()) == 0:
            control.close()
            _become_template(json.loads(data), *fds)
        for fd in fds:
            os.close(fd)
        control.send(str(pid).encode())


def _reap(*_):
    """Reap forks that have ended, so that their CPU time is added to ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become_template(request, control, errors):
    status = 1
    try:
        os.setsid()
        os.dup2(errors, 2)
        os.close(errors)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["folder"])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=control) as talk:
            TemplateProcess(talk).serve()
        status = 0
    finally:
        os._exit(status)
