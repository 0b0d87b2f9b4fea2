"""The queue of callbacks. A callback is due when its job has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from asr.service.jobs.database import Database, now
from asr.service.jobs.rows import JOB_COLUMNS, Callback, read_job
from asr.service.jobs.tables import UNFINISHED, callbacks, jobs

if TYPE_CHECKING:
    from typing import Literal

    Outcome = Literal["delivered", "failed", "pending"]


class CallbackQueue:
    """The callbacks of all jobs. `JobStore.create` adds them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next(self, seconds: float) -> Callback | None:
        """A callback that is due. It is due again after `seconds`, unless it is settled before.

        Raises:
            StoreUnavailable: the database is unavailable.
        """
        return await self._database.run(lambda c: _next(c, seconds))

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
            .values(state=outcome, next_try=now() + delay)
        )
        await self._database.run(lambda c: c.execute(statement).rowcount)


def _next(connection: sa.Connection, seconds: float) -> Callback | None:
    due = (
        sa.select(callbacks.c.id)
        .join(jobs, jobs.c.id == callbacks.c.job)
        .where(callbacks.c.state == "pending", callbacks.c.next_try <= now())
        .where(jobs.c.state.not_in(UNFINISHED))
        .order_by(callbacks.c.next_try)
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
