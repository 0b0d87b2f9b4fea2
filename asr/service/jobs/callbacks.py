"""The queue of callbacks. A callback is due when its job has ended.

`InFlight` knows the deliveries in progress in this process. The queue uses it to be fair: no owner
and no receiver gets all places, and the owner with the fewest deliveries in progress is served
first, then the one that was served longest ago.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from asr.service.jobs.database import Database, now
from asr.service.jobs.rows import JOB_COLUMNS, Callback, read_job
from asr.service.jobs.tables import UNFINISHED, callbacks, jobs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    Outcome = Literal["delivered", "failed", "pending"]

MAX_WAIT_SECONDS: Final = 3600.0
"""The longest wait for another attempt. A later time was written while the clock was ahead."""
N_REMEMBERED: Final = 100
"""Owners whose turns are remembered."""


class InFlight:
    """The deliveries in progress.

    Args:
        n_places: for all deliveries.
    """

    def __init__(self, n_places: int) -> None:
        self._n_places = n_places
        self.n_of_owner: Counter[str] = Counter()
        self._n_of_receiver: Counter[tuple[str, str]] = Counter()
        self.turns: dict[str, int] = {}
        """The number of the last delivery of each owner."""
        self._n_turns = 0

    def add(self, callback: Callback) -> None:
        """Begin a delivery."""
        owner = callback.job.owner
        self.n_of_owner[owner] += 1
        self._n_of_receiver[owner, _receiver(callback.url)] += 1
        self._n_turns += 1
        self.turns.pop(owner, None)
        self.turns[owner] = self._n_turns
        if len(self.turns) > N_REMEMBERED:
            del self.turns[next(iter(self.turns))]

    def remove(self, callback: Callback) -> None:
        """End a delivery."""
        owner = callback.job.owner
        self.n_of_owner -= Counter([owner])  # drops an owner without deliveries
        self._n_of_receiver -= Counter([(owner, _receiver(callback.url))])

    def busy_owners(self) -> list[str]:
        """Owners that have as many places as are free. So some always stay free for others."""
        return [owner for owner, n in self.n_of_owner.items() if n >= self._n_free]

    def busy_receivers(self) -> list[tuple[str, str]]:
        """Owners and receivers that have a quarter as many places as are free."""
        most = max(1, self._n_free // 4)
        return [pair for pair, n in self._n_of_receiver.items() if n >= most]

    @property
    def _n_free(self) -> int:
        return self._n_places - self.n_of_owner.total()


def _receiver(url: str) -> str:
    """Scheme, host and port of a URL, as it is written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class CallbackQueue:
    """The callbacks of all jobs. `JobStore.create` adds them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next(self, seconds: float, in_flight: InFlight | None = None) -> Callback | None:
        """A callback that is due. It is due again after `seconds`, unless it is settled before.

        Args:
            seconds: time for the delivery.
            in_flight: the deliveries in progress, if any; the callback is not yet among them.

        Raises:
            StoreUnavailable: the database is unavailable.
        """
        known = in_flight or InFlight(1)
        return await self._database.run(lambda c: _next(c, seconds, known))

    async def settle(self, callback: Callback, outcome: Outcome, delay: float = 0.0) -> None:
        """Store the outcome of an attempt.

        Args:
            callback: as `next` returned it.
            outcome: "pending" means that another attempt follows.
            delay: seconds until that attempt.

        Raises:
            StoreUnavailable: the database is unavailable.
        """
        statement = (
            sa.update(callbacks)
            .where(callbacks.c.job == callback.job.id, callbacks.c.url == callback.url)
            .values(state=outcome, next_try=now() + min(delay, MAX_WAIT_SECONDS))
        )
        await self._database.run(lambda c: c.execute(statement).rowcount)


def _next(connection: sa.Connection, seconds: float, in_flight: InFlight) -> Callback | None:
    is_due = sa.or_(
        callbacks.c.next_try <= now(), callbacks.c.next_try > now() + MAX_WAIT_SECONDS + 60
    )
    due = (
        sa.select(callbacks.c.id)
        .join(jobs, jobs.c.id == callbacks.c.job)
        .where(callbacks.c.state == "pending", is_due)
        .where(jobs.c.state.not_in(UNFINISHED), jobs.c.owner.not_in(in_flight.busy_owners()))
        .where(*(sa.not_(_goes_to(*pair)) for pair in in_flight.busy_receivers()))
        .order_by(_number(in_flight.n_of_owner), _number(in_flight.turns), callbacks.c.next_try)
        .limit(1)
        .with_for_update(skip_locked=True, of=callbacks)
    )
    statement = (
        sa.update(callbacks)
        .where(callbacks.c.id == due.scalar_subquery())
        .values(attempts=callbacks.c.attempts + 1, next_try=now() + seconds)
        .returning(callbacks.c.job, callbacks.c.id, callbacks.c.url, callbacks.c.attempts, now())
    )
    row = connection.execute(statement).first()
    if row is None:
        return None
    job_id, callback_id, url, attempts, time = row
    query = sa.select(*JOB_COLUMNS).where(jobs.c.id == job_id)
    job = read_job(connection.execute(query).first())
    return None if job is None else Callback(job, callback_id, url, attempts, int(time))


def _goes_to(owner: str, receiver: str) -> sa.ColumnElement[bool]:
    url = callbacks.c.url
    begins = (url.startswith(receiver + mark, autoescape=True) for mark in "/?#")
    return sa.and_(jobs.c.owner == owner, sa.or_(url == receiver, *begins))


def _number(of_owner: Mapping[str, int]) -> sa.ColumnElement[int]:
    """The number of each job's owner; 0 for owners that are not among them."""
    if not of_owner:
        return sa.literal(0)
    return sa.case(dict(of_owner), value=jobs.c.owner, else_=0)
