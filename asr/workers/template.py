"""The template process: imports and loads once, then forks one child per job.

`asr.workers.pool` starts it with the file descriptor of a control socket and the names to load. It
loads them, then forks a child for each request on the control socket. So a child starts within
milliseconds, has its own resource limits, can be killed alone, and starts in the same state as all
others.

`multiprocessing` does not fit. Its children import the user's main module again, which breaks
``asr.transcribe()`` in a script without a main guard. Its pools cannot kill one task or give a task
fresh state.

The process has one thread, because forking with several is unsafe. Children decode hostile files,
and a compromised child must not control the parent. So children answer in JSON frames, never in
pickles.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import traceback
from typing import Any

from asr.errors import AsrError, WorkerDied

FRAME = struct.Struct("!II")
"""Frame header: length of the JSON, and length of the binary payload after it."""

MAX_CONTROL = 65536
_PR_SET_PDEATHSIG = 1


class Channel:
    """The child's end of its job: blocking frames over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        body = json.dumps(message).encode()
        self._sock.sendall(FRAME.pack(len(body), 0) + body)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """Wait for one message and its payload."""
        n_json, n_payload = FRAME.unpack(self._exactly(FRAME.size))
        return json.loads(self._exactly(n_json)), self._exactly(n_payload)

    def _exactly(self, n_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < n_bytes:
            piece = self._sock.recv(n_bytes - len(data))
            if not piece:
                raise EOFError("the parent closed the channel")
            data += piece
        return bytes(data)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends.

    Args:
        parent: id of the parent. If it has ended before this call, the process ends now.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def preload(entry: str) -> None:
    """Load one entry of a pool's `preload`: a JSON string, or a list of function and arguments."""
    name, *arguments = [parsed] if isinstance(parsed := json.loads(entry), str) else parsed
    loaded = load(name)
    if callable(loaded):
        loaded(*arguments)


def load(name: str) -> Any:
    """Import ``module``, or return the function in ``module:function``."""
    module, _, attribute = name.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded


def _run_child(request: dict[str, Any], channel: socket.socket) -> int:
    """Run one job in the forked child, and return its exit status."""
    if request.get("cpu_seconds"):
        seconds = int(request["cpu_seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    if request.get("memory_bytes"):
        limit = int(request["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    talk = Channel(channel)
    try:
        load(request["call"])(talk)
    except (EOFError, BrokenPipeError):
        return 0  # the parent no longer waits for the answer
    except Exception as error:  # noqa: BLE001  # the outermost frame: nothing else reports it
        return _report_error(error, talk)
    return 0


def _report_error(error: Exception, talk: Channel) -> int:
    """Send the error to the parent if its class is known there, and return the exit status."""
    # When a client leaves, the files of its request are removed while the child still uses them.
    if not isinstance(error, AsrError | MemoryError | FileNotFoundError):
        with contextlib.suppress(OSError):  # the file of the log may be on a full disk
            traceback.print_exc()
    if isinstance(error, MemoryError):
        error = WorkerDied("a helper process ran out of memory", out_of_memory=True)
    elif isinstance(error, OSError):  # leave out the path: clients must not see it
        message = f"a helper process failed: {error.strerror or type(error).__name__}"
        error = WorkerDied(message, errno=error.errno)
    if not isinstance(error, AsrError):
        return 1
    try:
        talk.send({"error": type(error).__name__, "message": str(error), "facts": vars(error)})
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


class TemplateProcess:
    """Forks children on request and reports their exit statuses."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._job_of_pid: dict[int, int] = {}
        self._wake_out, self._wake_in = socket.socketpair()

    def serve(self) -> None:
        """Answer requests until the parent closes the control socket."""
        self._wake_in.setblocking(False)
        signal.set_wakeup_fd(self._wake_in.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(BrokenPipeError):  # closed while this loaded; the loop ends
            self._control.send(b'{"ready": true}')
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wake_out in ready:
                    self._wake_out.recv(4096)
                    self._reap()
                if self._control in ready and not self._answer():
                    break
        self._kill_all()

    def _answer(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, MAX_CONTROL, 1)
        except ConnectionResetError:  # the parent closed before it read all reports
            return False
        if not data:
            return False
        request = json.loads(data)
        if "kill" in request:
            self._kill(request["kill"])
        else:
            self._fork(request, fds)
        return True

    def _fork(self, request: dict[str, Any], fds: list[int]) -> None:
        if not fds:  # the kernel drops the socket when this process has no free descriptor
            self._report({"exit": request["job"], "errno": errno.EMFILE})
            return
        fd = fds[0]
        try:
            pid = os.fork()
        except OSError as error:  # no memory or no process id: only this job fails
            os.close(fd)
            self._report({"exit": request["job"], "errno": error.errno or errno.EAGAIN})
            return
        if pid == 0:
            self._become_child(request, fd)
        os.close(fd)
        self._job_of_pid[pid] = request["job"]

    def _become_child(self, request: dict[str, Any], fd: int) -> None:
        status = 1
        try:
            die_with_parent(self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            status = _run_child(request, socket.socket(fileno=fd))
        finally:
            with contextlib.suppress(OSError):  # its file may be on a full disk
                sys.stderr.flush()
            os._exit(status)

    def _kill(self, job: int) -> None:
        # The table holds only children that were not reaped, so their ids are not reused.
        for pid, job_of_child in self._job_of_pid.items():
            if job_of_child == job:
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._job_of_pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._report({"exit": self._job_of_pid.pop(pid), "status": status})

    def _report(self, report: dict[str, int]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent has ended, and serve() ends next
            self._control.send(json.dumps(report).encode())

    def _kill_all(self) -> None:
        """Kill the children and wait for their end: they may hold files that are removed next."""
        for pid in self._job_of_pid:
            os.kill(pid, signal.SIGKILL)
        for pid in self._job_of_pid:
            os.waitpid(pid, 0)


def main(arguments: list[str]) -> None:
    """Load the entries of `preload`, then serve."""
    control = socket.socket(fileno=int(arguments[0]))
    for entry in arguments[1:]:
        preload(entry)
    gc.freeze()  # the collector skips loaded objects, so their pages stay shared
    with control:
        TemplateProcess(control).serve()
