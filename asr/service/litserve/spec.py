"""The API process's end of LitServe's queue.

`LitSpec` is LitServe's extension point for other APIs; its own OpenAI chat API uses it. It is not
documented and not stable, so pyproject.toml pins litserve exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.managers import RemoteError
from typing import TYPE_CHECKING, Any

from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem

from asr.errors import WorkerLost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asr.service.litserve.messages import Command, Report

START_SECONDS = 30.0
"""How long a command may wait for a worker to take it. A worker that died is replaced within about
5 s, and its successor takes the commands that wait in the queue."""
_TAKEN = object()
"""Marks the moment in a stream of reports when a worker took the command."""


class _Answers(ResponseBufferItem):  # type: ignore[misc]  # litserve has no types
    """The reports to one command, and a mark when a worker takes the command.

    LitServe sets `worker_id` when a worker takes the command, before that worker asks for another.
    So if a worker dies, each of its commands is marked as taken or goes to the next worker.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "worker_id" and value is not None:
            self.response_queue.append((_TAKEN, LitAPIStatus.OK))
            self.event.set()


class TranscriptionSpec(LitSpec):  # type: ignore[misc]  # litserve has no types
    """Sends commands to the worker and hands out its reports.

    Args:
        silence: after this many seconds without a report the worker counts as dead.
    """

    def __init__(self, silence: float) -> None:
        super().__init__()
        self.api_path = "/v1/audio/transcriptions"
        self._silence = silence
        # One thread, so that a `Cancel` cannot overtake the command it cancels.
        self._sender = ThreadPoolExecutor(1, "asr-commands")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the thread, which the worker process does not need."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_sender": None}

    @property
    def stream(self) -> bool:
        """Always true: a command has several reports."""
        return True

    def as_async(self) -> TranscriptionSpec:
        """Return this object, which is asynchronous already."""
        return self

    async def submit(self, command: Command) -> AsyncGenerator[Report]:
        """Send a command and yield its reports.

        Raises:
            WorkerLost: no report came for too long, LitServe reported an error, or the queue is
                broken.
        """
        uid = str(uuid.uuid4())
        item = _Answers(event=asyncio.Event(), response_queue=deque())
        self.response_buffer[uid] = item
        envelope = (self.response_queue_id, uid, time.monotonic(), command)
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._sender, self._put, envelope)
            stream = self.data_streamer(item.response_queue, item.event, send_status=True)
            async with contextlib.aclosing(stream):
                async for report in self._checked(stream):
                    yield report
        finally:
            self.response_buffer.pop(uid, None)

    def _put(self, envelope: Any) -> None:
        try:
            self.request_queue.put(envelope)
        except (OSError, EOFError, RemoteError) as error:  # its manager process died or ails
            raise WorkerLost(f"the queue of commands is broken: {error!r}") from error

    async def _checked(
        self, stream: AsyncIterator[tuple[Report, LitAPIStatus]]
    ) -> AsyncGenerator[Report]:
        limit = START_SECONDS
        while True:
            try:
                async with asyncio.timeout(limit):
                    report, status = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise WorkerLost("the recogniser process died on this request") from None
            if status == LitAPIStatus.ERROR:
                raise WorkerLost("the recogniser process failed on this request")
            limit = self._silence
            if report is not _TAKEN:
                yield report
