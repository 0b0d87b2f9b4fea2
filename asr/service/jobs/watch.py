"""Polls the database for all clients of this process that follow jobs.

A client asks for news and waits for the next poll. One poll answers all clients that wait for it,
so the number of queries does not grow with the number of clients. Each process polls for itself:
processes share nothing but the database.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.service.jobs.rows import Job
    from asr.service.jobs.store import JobStore

POLL_SECONDS: Final = 0.3

News = tuple["Job | None", list[str]]
"""A job, or None if it was deleted, and the records of its new segments."""


@dataclass(frozen=True, slots=True)
class _Question:
    job: str
    n_seen: int
    answer: asyncio.Future[News]


class Watch:
    """Answers the clients of one process.

    Args:
        store: the jobs to poll.
        poll_seconds: seconds between two polls.
    """

    def __init__(self, store: JobStore, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._questions: list[_Question] = []
        self._polling: asyncio.Task[None] | None = None
        self._next_poll = 0.0

    async def news(self, job: str, n_seen: int) -> News:
        """Wait for the next poll.

        Args:
            job: its id.
            n_seen: number of segments that the client has. Later segments are returned.

        Raises:
            StoreUnavailable: the database is unavailable; ask again.
        """
        question = _Question(job, n_seen, asyncio.get_running_loop().create_future())
        self._questions.append(question)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        return await question.answer

    async def _poll(self) -> None:
        """Poll again and again while anyone asks."""
        while self._questions:
            await asyncio.sleep(max(0.0, self._next_poll - time.monotonic()))
            self._next_poll = time.monotonic() + self._poll_seconds
            questions, self._questions = self._questions, []
            await self._answer([it for it in questions if not it.answer.done()])

    async def _answer(self, questions: list[_Question]) -> None:
        first = _first_wanted(questions)
        try:
            found = await self._store.read_many(first)
        except Exception as error:  # noqa: BLE001  # raised in each client's task instead
            for it in questions:
                if not it.answer.done():  # done when the client left meanwhile
                    it.answer.set_exception(error)
            return
        for it in questions:
            job, records = found.get(it.job, (None, []))
            if not it.answer.done():
                it.answer.set_result((job, records[it.n_seen - first[it.job] :]))


def _first_wanted(questions: Iterable[_Question]) -> dict[str, int]:
    """For each job, the index of the first segment that anyone asks for."""
    first: dict[str, int] = {}
    for it in questions:
        first[it.job] = min(it.n_seen, first.get(it.job, it.n_seen))
    return first
