"""A request that is sent again joins the work that the first one began.

OpenAI's clients give up after 600 s of silence and send the request again, and again; each would
start from the beginning what the others were still at. A client that counts its attempts
(``x-stainless-retry-count``) or names the request (``Idempotency-Key``) finds the work that the
same key's same content and options began, waiting, running or just ended. All others
begin their own.

In the memory of one API process: what must outlive it is a job.
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
"""How long work goes on, and its result stays, for a client that is expected again."""
SLACK_SECONDS: Final = 1.0

_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class Caller:
    """What a request says about its being sent again.

    Args:
        request: its headers.
        owner: the name of its key.
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
        """Of the same key's same recording with the same options; reads the file."""
        with recording.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        parts = repr((self._owner, self._key, content, request.options, request.text))
        return hashlib.sha256(parts.encode()).hexdigest()

    def will_return(self, waited: float) -> bool:
        """Whether one that left after waiting so long in silence is expected again."""
        lost_patience = self.patience is not None and waited >= self.patience - SLACK_SECONDS
        return bool(self._key) or lost_patience


class Work:
    """A transcription that several requests may follow, each from its beginning.

    Args:
        begin: waits for a turn and gives the events; what they hold goes into the stack.
        resources: freed when it has ended.

    Attributes:
        n_followers: now.
        has_begun: whether it has had its turn.
        farewell: ends it after the last follower has left, unless another comes.
    """

    def __init__(
        self,
        begin: Callable[[AsyncExitStack], Awaitable[AsyncGenerator[WorkerEvent]]],
        resources: AsyncExitStack,
    ) -> None:
        self.n_followers = 0
        self.has_begun = False
        self.farewell: asyncio.Task[None] | None = None
        self._resources = resources
        self._past: list[Event] = []
        self._news = asyncio.Event()
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
                        self._tell()
        except Exception as error:  # noqa: BLE001  # raised again by whoever follows
            self._error = error
        finally:
            asyncio.get_running_loop().call_soon(self._tell)  # when the task is done

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a transcript."""
        return self._error is not None

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncGenerator[WorkerEvent]:
        """All events, those that were before this call too."""
        n_told = 0
        while n_told < len(self._past) or not self._task.done():
            if n_told < len(self._past):
                n_told += 1
                yield self._past[n_told - 1]
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                yield Heartbeat()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """End it, however far it is."""
        self._task.cancel()
        await asyncio.wait({self._task})


class Sharing:
    """The work of one process that may be followed again."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def find(self, fingerprint: str) -> Work | None:
        """The work with this fingerprint, if there is one that has not failed."""
        found = self._works.get(fingerprint)
        return None if found is None or found.has_failed else found

    def add(self, fingerprint: str, work: Work) -> None:
        """Let others find it."""
        self._works[fingerprint] = work

    @contextlib.asynccontextmanager
    async def following(self, work: Work, caller: Caller) -> AsyncGenerator[None]:
        """Follow `work` in this block; when the last follower has left it, it ends.

        Not at once if the caller will return. But what waits for its turn holds files beside the
        requests that are counted, and has nothing yet that could be lost.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        work.n_followers += 1
        if work.farewell is not None:
            work.farewell.cancel()
        try:
            yield
        finally:
            work.n_followers -= 1
            if not work.n_followers:
                stays = work.has_begun and caller.will_return(loop.time() - since)
                task = asyncio.create_task(self._end(work, LINGER_SECONDS if stays else 0.0))
                work.farewell = task
                self._farewells.add(task)
                task.add_done_callback(self._farewells.discard)

    async def _end(self, work: Work, linger: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linger):
                await self._closing.wait()
        # Nobody finds it from here on, so nobody cancels this either.
        self._works = {name: item for name, item in self._works.items() if item != work}
        await work.close()

    async def close(self) -> None:
        """End what waits for someone to return."""
        self._closing.set()
        await asyncio.gather(*self._farewells, return_exceptions=True)
