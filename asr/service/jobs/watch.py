"""One look at the database for all who listen to jobs in this process.

Whoever wants news asks, and waits for the next look. It answers everybody who has asked by then, so
that the queries do not grow with the listeners. Each process looks for itself: the database is all
that they share.
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
"""A job, or None when it is gone, and the records of its segments from some index on."""


@dataclass(frozen=True, slots=True)
class _Asked:
    job: str
    n_seen: int
    answer: asyncio.Future[News]


class Watch:
    """The listeners of one process."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._asked: list[_Asked] = []
        self._looking: asyncio.Task[None] | None = None
        self._next_look = 0.0

    async def news(self, job: str, n_seen: int) -> News:
        """How the job is at the next look, and the records of its segments from `n_seen` on.

        Raises:
            StoreUnavailable: the database is away; ask again.
        """
        asked = _Asked(job, n_seen, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        return await asked.answer

    async def _look_on(self) -> None:
        """Look again and again while somebody waits."""
        while self._asked:
            await asyncio.sleep(max(0.0, self._next_look - time.monotonic()))
            self._next_look = time.monotonic() + POLL_SECONDS
            asked, self._asked = self._asked, []
            await self._answer([it for it in asked if not it.answer.done()])

    async def _answer(self, asked: list[_Asked]) -> None:
        first = _least_seen(asked)
        try:
            found = await self._store.look(first)
        except Exception as error:  # noqa: BLE001  # it is raised where somebody waits
            for it in asked:
                if not it.answer.done():  # else the listener has left
                    it.answer.set_exception(error)
            return
        for it in asked:
            job, records = found.get(it.job, (None, []))
            if not it.answer.done():
                it.answer.set_result((job, records[it.n_seen - first[it.job] :]))


def _least_seen(asked: Iterable[_Asked]) -> dict[str, int]:
    """For each job the index from which on somebody wants its segments."""
    first: dict[str, int] = {}
    for it in asked:
        first[it.job] = min(it.n_seen, first.get(it.job, it.n_seen))
    return first
