"""Jobs in the database, as their owners see them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from asr.errors import StoreUnavailable
from asr.service.jobs.database import Database, lock_queue, now, upsert
from asr.service.jobs.migrations import bring_up
from asr.service.jobs.rows import JOB, Callback, Job, NewJob, read_job
from asr.service.jobs.tables import (
    CANCELLED,
    QUEUED,
    STATES,
    SUCCEEDED,
    UNFINISHED,
    callbacks,
    chunks,
    idempotency_keys,
    jobs,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


LOOK_SIZE: Final = 100
"""Jobs in one query; SQLite takes an expression of at most 1000 parts."""


class KeyReused(Exception):
    """The idempotency key belongs to another recording or other options."""


class QueueFull(Exception):
    """As many jobs wait as may."""


class JobStore:
    """All jobs of all owners."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Make the tables, or bring those that are there to our version.

        Raises:
            StoreUnavailable: the database is away.
            StoreTooNew: the tables are of a later version.
        """
        await self._database.open(bring_up)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    # --- clients --------------------------------------------------------------------------------

    async def create(
        self,
        new: NewJob,
        key: str | None = None,
        callback: tuple[str, str] | None = None,
        max_waiting: int | None = None,
        sent: str = "",
    ) -> tuple[Job, bool]:
        """The job for this request, and whether it is a new one.

        Args:
            new: the request. A job of the same fingerprint that did not fail is taken instead.
            key: the client's idempotency key.
            callback: id and address of a webhook.
            max_waiting: jobs that may wait, a new one included.
            sent: a mark of what came with the key. The fingerprint is of what our settings made of
                it, and they may be others when the request is sent again.

        Raises:
            KeyReused: the key came with another request before.
            QueueFull: a new one would be one too many.
        """
        return await self._database.run(lambda c: _create(c, new, key, callback, max_waiting, sent))

    async def find(self, owner: str, job: str) -> Job | None:
        """The job, if it is the owner's."""
        query = sa.select(*JOB).where(jobs.c.id == job, jobs.c.owner == owner)
        return await self._database.read(lambda c: read_job(c.execute(query).first()))

    async def page(
        self, owner: str, limit: int, after: str | None = None, state: str | None = None
    ) -> list[Job]:
        """The owner's jobs, newest first, behind the job `after`."""
        query = sa.select(*JOB).where(jobs.c.owner == owner)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if after is not None:
            place = sa.select(jobs.c.created, jobs.c.id).where(
                jobs.c.id == after, jobs.c.owner == owner
            )
            query = query.where(sa.tuple_(jobs.c.created, jobs.c.id) < place.scalar_subquery())
        query = query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)
        return await self._database.read(lambda c: [Job(*tuple(row)) for row in c.execute(query)])

    async def n_waiting(self) -> int:
        """Jobs that wait for their turn."""
        return await self._database.read(_n_waiting)

    async def counts(self) -> dict[str, float]:
        """Jobs of all owners by their state."""
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        found = await self._database.read(lambda c: {str(k): float(n) for k, n in c.execute(query)})
        return dict.fromkeys(STATES, 0.0) | found

    async def segments(self, job: str) -> list[str]:
        """The records of the segments, in order."""
        query = sa.select(segments.c.record).where(segments.c.job == job).order_by(segments.c.index)
        return await self._database.read(lambda c: list(c.scalars(query)))

    async def look(self, wanted: Mapping[str, int]) -> dict[str, tuple[Job, list[str]]]:
        """Jobs of any owners by their ids, each with the records of its segments.

        Args:
            wanted: by the ids, from which index on.
        """
        pairs = list(wanted.items())
        pieces = [pairs[n : n + LOOK_SIZE] for n in range(0, len(pairs), LOOK_SIZE)]
        return await self._database.read(lambda c: _look(c, pieces))

    async def speech_seconds(self, job: str) -> float:
        """Seconds in the chunks that are kept."""
        query = sa.select(sa.func.sum(chunks.c.seconds)).where(chunks.c.job == job)
        return await self._database.read(lambda c: float(c.scalar(query) or 0.0))

    async def cancel(self, owner: str, job: str) -> Job | None:
        """End it where it is; one that has ended stays as it was."""
        statement = (
            sa.update(jobs)
            .where(jobs.c.id == job, jobs.c.owner == owner, jobs.c.state.in_(UNFINISHED))
            .values(state=CANCELLED, finished=now(), lease=None, lease_until=None)
        )
        await self._database.run(lambda c: c.execute(statement).rowcount)
        return await self.find(owner, job)

    async def delete(self, owner: str, job: str) -> Job | None:
        """Forget it, whatever its state; as it was."""
        mine = jobs.c.id == job, jobs.c.owner == owner
        statement = sa.delete(jobs).where(*mine).returning(*JOB)
        return await self._database.run(lambda c: read_job(c.execute(statement).first()))

    # --- callbacks ------------------------------------------------------------------------------

    async def next_callback(self, seconds: float) -> Callback | None:
        """One that is due. It is due again after `seconds`, unless it is settled before."""
        return await self._database.run(lambda c: _next_callback(c, seconds))

    async def settle_callback(self, callback: Callback, state: str, delay: float = 0.0) -> None:
        """Say how it went: delivered, failed, or pending again after `delay` seconds."""
        statement = (
            sa.update(callbacks)
            .where(callbacks.c.job == callback.job.id, callbacks.c.url == callback.url)
            .values(state=state, next_try=now() + delay)
        )
        await self._database.run(lambda c: c.execute(statement).rowcount)

    # --- housekeeping ---------------------------------------------------------------------------

    async def expire(self, seconds: float) -> list[str]:
        """Forget the jobs that ended longer ago than that; their ids."""
        statement = sa.delete(jobs).where(jobs.c.finished < now() - seconds).returning(jobs.c.id)
        return await self._database.run(lambda c: [str(job) for job in c.scalars(statement)])

    async def unfinished(self) -> set[str]:
        """All that still need their recordings."""
        query = sa.select(jobs.c.id).where(jobs.c.state.in_(UNFINISHED))
        return await self._database.read(lambda c: {str(job) for job in c.scalars(query)})


def _look(
    connection: sa.Connection, pieces: Iterable[Sequence[tuple[str, int]]]
) -> dict[str, tuple[Job, list[str]]]:
    found: dict[str, tuple[Job, list[str]]] = {}
    for piece in pieces:
        rows = connection.execute(sa.select(*JOB).where(jobs.c.id.in_([job for job, _ in piece])))
        found |= {job.id: (job, []) for job in (Job(*tuple(row)) for row in rows)}
        behind = (sa.and_(segments.c.job == job, segments.c.index >= n) for job, n in piece)
        query = sa.select(segments.c.job, segments.c.record).where(sa.or_(*behind))
        for job, record in connection.execute(query.order_by(segments.c.job, segments.c.index)):
            found[job][1].append(record)
    return found


def _n_waiting(connection: sa.Connection) -> int:
    # What an owner's limit puts off before it is begun must not close the queue to all.
    may_begin = sa.or_(jobs.c.not_before <= now(), jobs.c.attempts > 0)
    waits = sa.and_(jobs.c.state == QUEUED, may_begin)
    query = sa.select(sa.func.count()).select_from(jobs).where(waits)
    return int(connection.execute(query).scalar_one())


def _create(
    connection: sa.Connection,
    new: NewJob,
    key: str | None,
    callback: tuple[str, str] | None,
    max_waiting: int | None,
    sent: str,
) -> tuple[Job, bool]:
    job = _of_key(connection, new, key, sent) if key else None
    is_new = False
    if job is None:
        if max_waiting is not None:
            lock_queue(connection)
        job, is_new = _insert(connection, new)
        # Only now it is known to be new; the error takes it back.
        if is_new and max_waiting is not None and _n_waiting(connection) > max_waiting:
            raise QueueFull
        if key and _keep_key(connection, new, key, job, sent) != job.id:
            raise KeyReused
    if callback:
        row = {"job": job.id, "id": callback[0], "url": callback[1], "state": "pending"}
        upsert(connection, callbacks, [row])
    return job, is_new


def _of_key(connection: sa.Connection, new: NewJob, key: str, sent: str) -> Job | None:
    columns = idempotency_keys.c
    mine = sa.and_(columns.owner == new.owner, columns.key == key)
    found = connection.execute(sa.select(columns.job, columns.fingerprint).where(mine)).first()
    if found is None:
        return None
    job = read_job(connection.execute(sa.select(*JOB).where(jobs.c.id == found.job)).first())
    if job is not None and found.fingerprint != sent and job.fingerprint != new.fingerprint:
        raise KeyReused
    return job


def _insert(connection: sa.Connection, new: NewJob) -> tuple[Job, bool]:
    values = {field.name: getattr(new, field.name) for field in fields(NewJob)}
    same = sa.select(*JOB).where(
        jobs.c.fingerprint == new.fingerprint, jobs.c.state.in_((*UNFINISHED, SUCCEEDED))
    )
    created = connection.execute(sa.select(now())).scalar_one()
    upsert(connection, jobs, [{**values, "state": QUEUED, "created": created}])
    job = read_job(connection.execute(same).first())
    if job is None:
        raise StoreUnavailable("the same job ended or was deleted meanwhile: send it again")
    return job, job.id == new.id


def _keep_key(connection: sa.Connection, new: NewJob, key: str, job: Job, sent: str) -> str:
    """Remember the key for the job; whose it is, since another request may have been faster."""
    row = {"owner": new.owner, "key": key, "job": job.id, "fingerprint": sent or new.fingerprint}
    upsert(connection, idempotency_keys, [row])
    columns = idempotency_keys.c
    query = sa.select(columns.job).where(columns.owner == new.owner, columns.key == key)
    return str(connection.execute(query).scalar_one())


def _next_callback(connection: sa.Connection, seconds: float) -> Callback | None:
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
    job = read_job(connection.execute(sa.select(*JOB).where(jobs.c.id == job_id)).first())
    return None if job is None else Callback(job, callback_id, url, attempts, int(time))
