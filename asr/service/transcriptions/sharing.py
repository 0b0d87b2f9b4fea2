"""A retried request joins the work that its first attempt began.

OpenAI's clients give up after 600 s of silence and send the request again. Without sharing, each
attempt would start from the beginning while the earlier ones still run. A request is a retry if its
client counts its attempts (``x-stainless-retry-count``) or names the request (``Idempotency-Key``).
A retry joins earlier work if both have the same API key, content, options and ``Idempotency-Key``
(or both have no such key). That work may wait, run, or have just ended. Other requests begin their
own work.

The work is known to one API process only. Use a job for work that must outlive the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Final

from asr.pipeline.run import Event
from asr.service.litserve.messages import HEARTBEAT_SECONDS, Heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.litserve.messages import WorkerEvent
    from asr.service.transcriptions.form import TranscriptionRequest

LINGER_SECONDS: Final = 60.0
"""After the last client left, work and its result are kept for this time if a retry is expected."""
SLACK_SECONDS: Final = 1.0
"""A client counts as timed out if it leaves after its own time limit, or this time before it."""

_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class Caller:
    """The headers of a request that concern retries.

    Args:
        request: the request.
        owner: the name of its API key.

    Attributes:
        is_repeated: the request may be a retry.
        may_repeat: the client may retry this request.
        patience: seconds of silence after which the client gives up, or None if unknown.
    """

    def __init__(self, request: Request, owner: str) -> None:
        self._owner = owner
        self._key = request.headers.get("idempotency-key", "")
        attempt = request.headers.get("x-stainless-retry-count", "")
        patience = request.headers.get("x-stainless-read-timeout", "")
        self.is_repeated = bool(self._key) or attempt.strip("0") != ""
        self.patience = float(patience) if _SECONDS.fullmatch(patience) else None
        self.may_repeat = bool(self._key or attempt)

    def fingerprint(self, recording: Path, request: TranscriptionRequest) -> str:
        """Hash the API key, the recording and the options. This reads the whole file."""
        with recording.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        given = request.text, request.keep_lines
        identity = repr((self._owner, self._key, content, request.options, *given))
        return hashlib.sha256(identity.encode()).hexdigest()

    def will_return(self, waited: float) -> bool:
        """Whether a client that left after `waited` seconds of silence is expected to retry."""
        timed_out = self.patience is not None and waited >= self.patience - SLACK_SECONDS
        return bool(self._key) or timed_out


class Work:
    """A transcription that several requests can follow. Each gets all events from the first one.

    Args:
        begin: waits until the work may start, starts it, and returns its events. It puts on
            `resources` what must be freed when the work ends.
        resources: the stack that is freed when the work ends.

    Attributes:
        n_followers: the number of requests that follow now.
        has_begun: the work got its turn.
        ending: a task that ends the work some time after the last follower left.
    """

    def __init__(
        self,
        begin: Callable[[AsyncExitStack], Awaitable[AsyncGenerator[WorkerEvent]]],
        resources: AsyncExitStack,
    ) -> None:
        self.n_followers = 0
        self.has_begun = False
        self.ending: asyncio.Task[None] | None = None
        self._resources = resources
        self._past: list[Event] = []
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._run(begin))

    async def _run(
        self, begin: Callable[[AsyncExitStack], Awaitable[AsyncGenerator[WorkerEvent]]]
    ) -> None:
        try:
            async with self._resources as resources:
                events = await begin(resources)
                self.has_begun = True
                async for event in events:
                    if isinstance(event, Event):
                        self._past.append(event)
                        self._notify()
        except Exception as error:  # noqa: BLE001  # `follow` raises it
            self._error = error
        finally:
            asyncio.get_running_loop().call_soon(self._notify)  # after the task is done

    @property
    def has_failed(self) -> bool:
        """Whether the work ended with an error."""
        return self._error is not None

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncGenerator[WorkerEvent]:
        """Yield all events from the beginning, and heartbeats between them."""
        n_sent = 0
        while n_sent < len(self._past) or not self._task.done():
            if n_sent < len(self._past):
                n_sent += 1
                yield self._past[n_sent - 1]
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                yield Heartbeat()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Cancel the work and wait for its end."""
        self._task.cancel()
        await asyncio.wait({self._task})


class Sharing:
    """The shared work of one API process, by fingerprint."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def find(self, fingerprint: str) -> Work | None:
        """The work with this fingerprint, or None if there is none or it failed."""
        found = self._works.get(fingerprint)
        return None if found is None or found.has_failed else found

    def add(self, fingerprint: str, work: Work) -> None:
        """Let retries find `work`."""
        self._works[fingerprint] = work

    @contextlib.asynccontextmanager
    async def following(self, work: Work, caller: Caller) -> AsyncGenerator[None]:
        """Count the caller as a follower of `work` inside the block.

        The work ends when its last follower leaves, or `LINGER_SECONDS` later if that follower is
        expected to retry. Work that still waits for its turn ends at once: it has no result to
        lose. If it stayed, its files would stay too, but no limit would count them any more.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        work.n_followers += 1
        if work.ending is not None:
            work.ending.cancel()
        try:
            yield
        finally:
            work.n_followers -= 1
            if not work.n_followers:
                stays = work.has_begun and caller.will_return(loop.time() - since)
                task = asyncio.create_task(self._end(work, LINGER_SECONDS if stays else 0.0))
                work.ending = task
                self._endings.add(task)
                task.add_done_callback(self._endings.discard)

    async def _end(self, work: Work, linger: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger):
                await self._closing.wait()
        # From here on no retry finds this work, so none cancels this task.
        self._works = {name: item for name, item in self._works.items() if item != work}
        await work.close()

    async def close(self) -> None:
        """End all work that is kept for a retry."""
        self._closing.set()
        await asyncio.gather(*self._endings, return_exceptions=True)
