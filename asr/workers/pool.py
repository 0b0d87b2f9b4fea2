"""Run jobs in child processes from asyncio: start, exchange messages, limit, kill.

    pool = ProcessPool(["asr.audio.recording"], max_jobs=2)
    async with pool.job("asr.audio.recording:decode_job", {"source": "a.mp3"}) as job:
        async for message in job: ...

At most `max_jobs` children run at once; further jobs wait. Leaving the ``async with`` block kills
the child, so cancelling the waiting task frees the CPU at once. An error of `asr.errors` in the
child is raised here. Any other failure raises `WorkerDied`, whose attributes say what happened: the
signal, the errno of an OSError, or a lack of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asr.errors import WorkerDied, rebuild
from asr.workers.template import FRAME, MAX_CONTROL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

logger = logging.getLogger(__name__)

EXIT_REPORT_SECONDS = 5.0
CLOSE_SECONDS = 3.0
MAX_PATIENT = 256
"""Largest number of patient jobs in a pool. Such a job mostly waits, as a sleeping process."""
_START = """
import json, sys
sys.path = json.loads(sys.argv[1])
from asr.workers.template import main
main(sys.argv[2:])
"""
Preload = str | tuple[str, ...]
MAX_MESSAGE = 64 << 20
"""Bytes. A compromised child may announce any length, and the parent must not wait for it."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Resource limits of one child; None means no limit."""

    cpu_seconds: int | None = None
    memory_bytes: int | None = None


class Job:
    """A running child. Iterate over it for its messages."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ended: asyncio.Future[int],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._ended = ended

    async def send(self, request: dict[str, Any], payload: bytes = b"") -> None:
        """Send the child one more request. `ProcessPool.job` sends the first."""
        body = json.dumps(request).encode()
        self._writer.write(FRAME.pack(len(body), len(payload)) + body + payload)
        with contextlib.suppress(ConnectionError):  # its exit status will say why
            await self._writer.drain()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._messages()

    async def _messages(self) -> AsyncGenerator[dict[str, Any]]:
        while True:
            try:
                n_json, _ = FRAME.unpack(await self._reader.readexactly(FRAME.size))
                if n_json > MAX_MESSAGE:
                    raise WorkerDied("a helper process announced an answer that is too long")
                body = await self._reader.readexactly(n_json)
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._check_exit()
                return
            yield _message(body)

    async def result(self) -> dict[str, Any]:
        """Return the message of a job that sends only one.

        Raises:
            WorkerDied: the child ended without a message.
        """
        async for message in self:
            return message
        raise WorkerDied("a helper process ended without an answer")

    async def _check_exit(self) -> None:
        try:
            async with asyncio.timeout(EXIT_REPORT_SECONDS):
                status = await asyncio.shield(self._ended)
        except TimeoutError:
            raise WorkerDied("a helper process vanished") from None
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = _signal_name(number)
            raise WorkerDied(f"a helper process was ended by {name}", signal=number)
        if status != 0:
            raise WorkerDied(
                f"a helper process failed with status {os.waitstatus_to_exitcode(status)}"
            )


def _message(body: bytes) -> dict[str, Any]:
    """Parse a message of a child. A compromised child may send anything.

    Raises:
        AsrError: the error that the child raised.
        WorkerDied: the message is malformed.
    """
    try:
        message = json.loads(body)
        error = rebuild(*_error_of(message)) if "error" in message else None
    except (ValueError, TypeError, LookupError, RecursionError) as nonsense:
        raise WorkerDied("a helper process sent a malformed answer") from nonsense
    if error is not None:
        raise error
    if not isinstance(message, dict):
        raise WorkerDied("a helper process sent a malformed answer")
    return message


def _error_of(message: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    return str(message["error"]), str(message["message"]), dict(message["facts"])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


class ProcessPool:
    """Children forked from one template process that has loaded `preload`.

    Args:
        preload: what to load before the first job. A name is a module to import or a
            ``module:function`` to call. A tuple is such a function and its arguments.
        max_jobs: largest number of children that run at once.
    """

    def __init__(self, preload: Sequence[Preload], max_jobs: int) -> None:
        self._preload = tuple(preload)
        self._slots = asyncio.Semaphore(max_jobs)
        self._patient_slots = asyncio.Semaphore(MAX_PATIENT)
        self._starting = asyncio.Lock()
        self._template: _Template | None = None
        self._closed = False

    async def open(self) -> None:
        """Start the template process if it does not run, and wait until it has loaded.

        Raises:
            WorkerDied: the process ended while loading.
        """
        self._closed = False
        await self._live_template()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, and `open` was not called since."""
        return self._closed

    async def _live_template(self) -> _Template:
        async with self._starting:
            if self._template is not None and self._template.dead:
                await self._retire()
            if self._closed:  # a job that waited must not restart it
                raise WorkerDied("the process pool was closed", errno=errno.ECHILD)
            template = self._template = self._template or _Template(self._preload)
            await template.wait_ready()
            return template

    @contextlib.asynccontextmanager
    async def job(
        self,
        call: str,
        request: dict[str, Any],
        payload: bytes = b"",
        limits: ProcessLimits = ProcessLimits(),
        *,
        patient: bool = False,
    ) -> AsyncGenerator[Job]:
        """Run ``module:function`` in a child and send it `request` with `payload`.

        A patient job mostly waits, and does not count against `max_jobs`.
        """
        async with self._patient_slots if patient else self._slots:
            template = await self._live_template()
            async with template.fork(call, limits) as job:
                await job.send(request, payload)
                yield job

    async def close(self) -> None:
        """Kill the template process and all children. Waiting jobs fail."""
        self._closed = True
        await self._retire()

    async def _retire(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            await template.close()


class _Template:
    """A template process and the parent's end of its control socket."""

    def __init__(self, preload: Sequence[Preload]) -> None:
        self._ids = itertools.count()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._outbox: deque[tuple[bytes, socket.socket | None]] = deque()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        # It uses our sys.path. Without -P, "-c" would search the current directory first, where a
        # user may have a wave.py next to the recordings.
        command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path)]
        command += [str(theirs.fileno()), *map(json.dumps, preload)]
        # One thread per child is enough; more would only compete for the cores.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                command,
                env=env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C must reach only the parent, which then closes this
            )
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.dead = False
        self._loop.add_reader(self._control, self._on_control)

    async def wait_ready(self) -> None:
        await asyncio.shield(self._ready)

    @contextlib.asynccontextmanager
    async def fork(self, call: str, limits: ProcessLimits) -> AsyncGenerator[Job]:
        job_id = next(self._ids)
        request = {
            "job": job_id,
            "call": call,
            "cpu_seconds": limits.cpu_seconds,
            "memory_bytes": limits.memory_bytes,
        }
        ours, theirs = socket.socketpair()
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            theirs.close()
            raise
        ended = self._exits[job_id] = self._loop.create_future()
        self._send(request, theirs)
        try:
            yield Job(reader, writer, ended)
        finally:
            writer.transport.abort()  # nobody reads the rest of the request
            await self._end(job_id, ended)

    async def _end(self, job_id: int, ended: asyncio.Future[int]) -> None:
        """Kill the child and wait for its end, because the caller may delete its files next."""
        if not ended.done():
            self._send({"kill": job_id})
            await asyncio.wait([ended], timeout=EXIT_REPORT_SECONDS)

    def _send(self, request: dict[str, Any], passed: socket.socket | None = None) -> None:
        """Send a request to the template process, and hand over a socket."""
        self._outbox.append((json.dumps(request).encode(), passed))
        self._flush()

    def _flush(self) -> None:
        """Send what fits; the rest follows when the template process has read.

        About 280 messages fit, which the jobs of a host with many cores may exceed. Waiting here
        could deadlock: the template process may be waiting for us to read its reports.
        """
        try:
            while self._outbox and not self.dead:
                data, passed = self._outbox[0]
                socket.send_fds(self._control, [data], [passed.fileno()] if passed else [])
                self._outbox.popleft()
                if passed is not None:
                    passed.close()
        except BlockingIOError:
            self._loop.add_writer(self._control, self._flush)
            return
        except OSError:
            self._died()
        if self.dead:
            self._fail_jobs()
        else:
            self._loop.remove_writer(self._control)

    def _on_control(self) -> None:
        try:
            data = self._control.recv(MAX_CONTROL)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        report = json.loads(data)
        if "ready" in report:
            self._ready.set_result(None)
            return
        ended = self._exits.pop(report["exit"])
        if ended.done():
            return
        if "errno" in report:
            number = report["errno"]
            failed = f"no helper process could start: {os.strerror(number)}"
            ended.set_exception(WorkerDied(failed, errno=number))
            ended.exception()  # marks it as retrieved, in case nobody waits
        else:
            ended.set_result(report["status"])

    def _died(self) -> None:
        """Fail everything that waits: the template process and its children are gone."""
        if self.dead:
            return
        self.dead = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        if not self._ready.done():
            failed = WorkerDied("a helper process failed while loading", errno=errno.ECHILD)
            self._ready.set_exception(failed)
            self._ready.exception()  # marks it as retrieved, in case nobody waits
        self._fail_jobs()

    def _fail_jobs(self) -> None:
        for _, passed in self._outbox:
            if passed is not None:
                passed.close()
        self._outbox.clear()
        for ended in self._exits.values():
            if not ended.done():
                ended.set_result(signal.SIGKILL)
        self._exits.clear()

    async def close(self) -> None:
        self._died()
        self._control.close()
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("helper process %d did not end and is killed", self._process.pid)
            self._process.kill()
            self._process.wait()
