"""Jobs in child processes, seen from asyncio: start, talk, limit, kill.

    pool = ProcessPool(["asr.recording"], max_jobs=2)
    async with pool.job("asr.recording:decode_job", {"source": "a.mp3"}) as job:
        async for message in job: ...

At most `max_jobs` children run at once; further jobs wait. Leaving the ``async with`` block kills
a child that still runs, so cancelling the task that waits frees the CPU at once. Errors of
`asr.errors` that the child raises are raised here; a child that dies raises `WorkerDied`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asr.errors import WorkerDied, rebuild
from asr.zygote import FRAME, MAX_CONTROL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

logger = logging.getLogger(__name__)

EXIT_REPORT_SECONDS = 5.0
CLOSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Resource limits of one child; None is no limit."""

    cpu_seconds: int | None = None
    memory_bytes: int | None = None


class Job:
    """A running child. Iterate over it for its messages."""

    def __init__(self, reader: asyncio.StreamReader, ended: asyncio.Future[int]) -> None:
        self._reader = reader
        self._ended = ended

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._messages()

    async def _messages(self) -> AsyncGenerator[dict[str, Any]]:
        while True:
            try:
                n_json, _ = FRAME.unpack(await self._reader.readexactly(FRAME.size))
                message = json.loads(await self._reader.readexactly(n_json))
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._check_exit()
                return
            if "error" in message:
                raise rebuild(message["error"], message["message"], message["facts"])
            yield message

    async def result(self) -> dict[str, Any]:
        """The only message of a job that answers once.

        Raises:
            WorkerDied: the child ended without one.
        """
        async for message in self:
            return message
        raise WorkerDied("a helper process ended without an answer")

    async def _check_exit(self) -> None:
        try:
            status = await asyncio.wait_for(asyncio.shield(self._ended), EXIT_REPORT_SECONDS)
        except TimeoutError:
            raise WorkerDied("a helper process vanished") from None
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.Signals(number).name
            raise WorkerDied(f"a helper process was ended by {name}", signal=number)
        if status != 0:
            raise WorkerDied(
                f"a helper process failed with status {os.waitstatus_to_exitcode(status)}"
            )


class ProcessPool:
    """Children forked from one template process that has loaded `preload`.

    Args:
        preload: modules to import, or ``module:function`` to call, before the first job.
        max_jobs: children that run at once.
    """

    def __init__(self, preload: Sequence[str], max_jobs: int) -> None:
        self._preload = tuple(preload)
        self._slots = asyncio.Semaphore(max_jobs)
        self._starting = asyncio.Lock()
        self._template: _Template | None = None

    async def open(self) -> None:
        """Start the template process, or start it again after its death, and wait until loaded.

        Raises:
            WorkerDied: it ended while loading.
        """
        async with self._starting:
            if self._template is None or self._template.dead:
                await self.close()
                self._template = _Template(self._preload)
            await self._template.wait_ready()

    @contextlib.asynccontextmanager
    async def job(
        self,
        call: str,
        request: dict[str, Any],
        payload: bytes = b"",
        limits: ProcessLimits = ProcessLimits(),
    ) -> AsyncGenerator[Job]:
        """Run ``module:function`` in a child and send it `request` with `payload`."""
        async with self._slots:
            await self.open()
            template = self._template
            if template is None:
                raise WorkerDied("the process pool was closed")
            async with template.fork(call, limits) as (job, writer):
                body = json.dumps(request).encode()
                writer.write(FRAME.pack(len(body), len(payload)) + body + payload)
                with contextlib.suppress(ConnectionError):  # its exit status will say why
                    await writer.drain()
                yield job

    async def close(self) -> None:
        """Kill every child and the template process."""
        template, self._template = self._template, None
        if template is not None:
            await template.close()


class _Template:
    """One zygote process and the parent's end of its control socket."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._ids = itertools.count()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        start = "import sys; from asr.zygote import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", start, str(theirs.fileno()), *preload]
        # One thread per child is enough; more would only fight over the cores.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                command,
                env=env,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the parent, which then closes us
            )
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.dead = False
        self._loop.add_reader(self._control, self._on_control)

    async def wait_ready(self) -> None:
        await asyncio.shield(self._ready)

    @contextlib.asynccontextmanager
    async def fork(
        self, call: str, limits: ProcessLimits
    ) -> AsyncGenerator[tuple[Job, asyncio.StreamWriter]]:
        job_id = next(self._ids)
        ended = self._exits[job_id] = self._loop.create_future()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        request = {
            "job": job_id,
            "call": call,
            "cpu_seconds": limits.cpu_seconds,
            "memory_bytes": limits.memory_bytes,
        }
        try:
            with theirs:
                self._send(request, [theirs.fileno()])
            yield Job(reader, ended), writer
        finally:
            if not ended.done():
                self._send({"kill": job_id}, [])
            writer.close()

    def _send(self, request: dict[str, Any], fds: list[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], fds)
        except OSError:
            self._died()

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
        if not ended.done():
            ended.set_result(report["status"])

    def _died(self) -> None:
        """Fail everything that waits: the template process is gone, and its children with it."""
        if self.dead:
            return
        self.dead = True
        self._loop.remove_reader(self._control)
        if not self._ready.done():
            self._ready.set_exception(WorkerDied("a helper process failed while loading"))
            self._ready.exception()  # retrieved here in case nobody waits
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
