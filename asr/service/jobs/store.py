"""Jobs in the database: who may see one, who works on it, how far it has come.

A job in work has a lease. Whoever claims it gets a token that no claim had before, and writes only
while the job still names that token: a worker that was thought dead and is not writes nothing. The
lease runs out when its holder dies, and then anyone may claim the job. SQLite runs one writer at a
time; in Postgres ``FOR UPDATE SKIP LOCKED`` keeps two claims apart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from asr.errors import StoreUnavailable
from asr.service.jobs import tables
from asr.service.jobs.database import Database, now, upsert
from asr.service.jobs.tables import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    UNFINISHED,
    callbacks,
    chunks,
    idempotency_keys,
    jobs,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asr.service.litapi import ChunkDone


class LeaseLost(Exception):
    """The job was cancelled, deleted, or is someone else's by now."""


class KeyReused(Exception):
    """The idempotency key belongs to another recording or other options."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client asked for, and where its recording lies under the same id."""

    id: str
    owner: str
    request: str
    fingerprint: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `tables.jobs`."""

    id: str
    owner: str
    state: str
    request: str
    fingerprint: str
    sha256: str
    n_bytes: int
    created: float
    started: float | None
    finished: float | None
    lease: str | None
    attempts: int
    stalls: int
    decoded: float
    transcribed: float
    total: float | None
    work_seconds: float
    n_chunks: int | None
    summary: str | None
    error: str | None

    @property
    def is_finished(self) -> bool:
        """Nothing more will happen."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class Callback:
    """Whom to tell of a job that ended.

    Attributes:
        job: as it ended.
        id: the same at every attempt.
        url: where to.
        attempts: with this one.
        now: seconds since 1970.
    """

    job: Job
    id: str
    url: str
    attempts: int
    now: int


@dataclass(frozen=True, slots=True)
class Advance:
    """What came out of a job since the last time it was written down.

    Attributes:
        chunks: recognised.
        segments: index and record of each that became certain.
        progress: seconds decoded, transcribed, and in all.
        work_seconds: that it took.
    """

    chunks: Sequence[ChunkDone] = ()
    segments: Sequence[tuple[int, str]] = ()
    progress: tuple[float, float, float | None] | None = None
    work_seconds: float = 0.0


_JOB = tuple(jobs.c[field.name] for field in fields(Job))


def _job(row: sa.Row[Any] | None) -> Job | None:
    return None if row is None else Job(*tuple(row))


class JobStore:
    """All jobs of all owners."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Make the tables if they are not there."""
        await self._database.create(tables.metadata)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    # --- clients --------------------------------------------------------------------------------

    async def create(
        self, new: NewJob, key: str | None = None, callback: tuple[str, str] | None = None
    ) -> tuple[Job, bool]:
        """The job for this request, and whether it is a new one.

        Args:
            new: the request. A job of the same fingerprint that did not fail is taken instead.
            key: the client's idempotency key.
            callback: id and address of a webhook.

        Raises:
            KeyReused: the key came with another request before.
        """
        return await self._database.run(lambda c: _create(c, new, key, callback))

    async def find(self, owner: str, job: str) -> Job | None:
        """The job, if it is the owner's."""
        query = sa.select(*_JOB).where(jobs.c.id == job, jobs.c.owner == owner)
        return await self._database.read(lambda c: _job(c.execute(query).first()))

    async def page(
        self, owner: str, limit: int, after: str | None = None, state: str | None = None
    ) -> list[Job]:
        """The owner's jobs, newest first, behind the job `after`."""
        query = sa.select(*_JOB).where(jobs.c.owner == owner)
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
        query = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == QUEUED)
        return await self._database.read(lambda c: int(c.execute(query).scalar_one()))

    async def segments(self, job: str, after: int = 0) -> list[str]:
        """The records of the segments from index `after` on, in order."""
        query = sa.select(segments.c.record).where(segments.c.job == job, segments.c.index >= after)
        query = query.order_by(segments.c.index)
        return await self._database.read(lambda c: list(c.scalars(query)))

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

    async def delete(self, owner: str, job: str) -> bool:
        """Forget it, whatever its state; whether it was there."""
        statement = sa.delete(jobs).where(jobs.c.id == job, jobs.c.owner == owner)
        return await self._database.run(lambda c: c.execute(statement).rowcount) > 0

    # --- workers --------------------------------------------------------------------------------

    async def claim(self, lease: str, seconds: float) -> Job | None:
        """Take the next job: of the owner with the fewest in work, the oldest."""
        other = jobs.alias()
        in_work = sa.and_(other.c.state == RUNNING, other.c.lease_until >= now())
        n_in_work = (
            sa.select(sa.func.count())
            .select_from(other)
            .where(other.c.owner == jobs.c.owner, in_work)
            .scalar_subquery()
        )
        waits = sa.and_(jobs.c.state == QUEUED, jobs.c.not_before <= now())
        left = sa.and_(jobs.c.state == RUNNING, jobs.c.lease_until < now())
        found = (
            sa.select(jobs.c.id)
            .where(sa.or_(waits, left))
            .order_by(n_in_work, jobs.c.created, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        statement = (
            sa.update(jobs)
            .where(jobs.c.id == found.scalar_subquery())
            .values(
                state=RUNNING,
                lease=lease,
                lease_until=now() + seconds,
                started=sa.func.coalesce(jobs.c.started, now()),
                attempts=jobs.c.attempts + 1,
                stalls=jobs.c.stalls + 1,
            )
            .returning(*_JOB)
        )
        return await self._database.run(lambda c: _job(c.execute(statement).first()))

    async def hold(self, leases: Collection[str], seconds: float) -> set[str]:
        """Prolong the leases; those that are not given back are lost."""
        statement = (
            sa.update(jobs)
            .where(jobs.c.lease.in_(leases), jobs.c.state == RUNNING)
            .values(lease_until=now() + seconds)
            .returning(jobs.c.lease)
        )
        return await self._database.run(lambda c: {str(name) for name in c.scalars(statement)})

    async def kept(self, job: str) -> list[str]:
        """The records of its finished chunks."""
        query = sa.select(chunks.c.record).where(chunks.c.job == job).order_by(chunks.c.index)
        return await self._database.read(lambda c: list(c.scalars(query)))

    async def record(self, job: str, lease: str, advance: Advance) -> None:
        """Write down what came out; twice is the same as once.

        Raises:
            LeaseLost: nothing was written.
        """
        await self._database.run(lambda c: _record(c, job, lease, advance))

    async def succeed(
        self, job: str, lease: str, advance: Advance, n_segments: int, summary: str
    ) -> None:
        """Write down the rest, and that it is done. The chunks have served their purpose.

        Raises:
            LeaseLost: nothing was written.
        """

        def work(connection: sa.Connection) -> None:
            _record(connection, job, lease, advance)
            mine = chunks.c.job == job
            n_chunks = sa.select(sa.func.count()).select_from(chunks).where(mine)
            _end(
                connection,
                job,
                lease,
                {"state": SUCCEEDED, "summary": summary, "n_chunks": n_chunks.scalar_subquery()},
            )
            connection.execute(sa.delete(chunks).where(mine))
            # Of an earlier attempt with another engine, which cut the speech elsewhere.
            left_over = segments.c.index >= n_segments
            connection.execute(sa.delete(segments).where(segments.c.job == job, left_over))

        await self._database.run(work)

    async def fail(self, job: str, lease: str, error: str) -> None:
        """Write down that it failed, and why.

        Raises:
            LeaseLost: nothing was written.
        """
        await self._database.run(lambda c: _end(c, job, lease, {"state": FAILED, "error": error}))

    async def give_back(self, job: str, lease: str, delay: float, *, counts: bool) -> None:
        """Let it be claimed again, after `delay` seconds.

        Args:
            job: its id.
            lease: of the worker that gives it back.
            delay: seconds.
            counts: whether this was an attempt that may be the job's own fault.

        Raises:
            LeaseLost: it is not the worker's to give.
        """
        values: dict[str, Any] = {"state": QUEUED, "not_before": now() + delay}
        if not counts:
            values["stalls"] = jobs.c.stalls - 1
        await self._database.run(lambda c: _change(c, job, lease, values | _NO_LEASE))

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

    async def unfinished(self, ids: Collection[str]) -> set[str]:
        """Those that still need their recordings."""
        query = sa.select(jobs.c.id).where(jobs.c.id.in_(ids), jobs.c.state.in_(UNFINISHED))
        return await self._database.read(lambda c: {str(job) for job in c.scalars(query)})


_NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


def _create(
    connection: sa.Connection, new: NewJob, key: str | None, callback: tuple[str, str] | None
) -> tuple[Job, bool]:
    job = _of_key(connection, new, key) if key else None
    is_new = False
    if job is None:
        job, is_new = _insert(connection, new)
        if key and _keep_key(connection, new, key, job) != job.id:
            raise KeyReused
    if callback:
        row = {"job": job.id, "id": callback[0], "url": callback[1], "state": "pending"}
        upsert(connection, callbacks, [row])
    return job, is_new


def _of_key(connection: sa.Connection, new: NewJob, key: str) -> Job | None:
    columns = idempotency_keys.c
    mine = sa.and_(columns.owner == new.owner, columns.key == key)
    found = connection.execute(sa.select(columns.job, columns.fingerprint).where(mine)).first()
    if found is None:
        return None
    if found.fingerprint != new.fingerprint:
        raise KeyReused
    return _job(connection.execute(sa.select(*_JOB).where(jobs.c.id == found.job)).first())


def _insert(connection: sa.Connection, new: NewJob) -> tuple[Job, bool]:
    values = {field.name: getattr(new, field.name) for field in fields(NewJob)}
    same = sa.select(*_JOB).where(
        jobs.c.fingerprint == new.fingerprint, jobs.c.state.in_((*UNFINISHED, SUCCEEDED))
    )
    created = connection.execute(sa.select(now())).scalar_one()
    upsert(connection, jobs, [{**values, "state": QUEUED, "created": created}])
    job = _job(connection.execute(same).first())
    if job is None:
        raise StoreUnavailable("the same job ended or was deleted meanwhile: send it again")
    return job, job.id == new.id


def _keep_key(connection: sa.Connection, new: NewJob, key: str, job: Job) -> str:
    """Remember the key for the job; whose it is, since another request may have been faster."""
    row = {"owner": new.owner, "key": key, "job": job.id, "fingerprint": new.fingerprint}
    upsert(connection, idempotency_keys, [row])
    columns = idempotency_keys.c
    query = sa.select(columns.job).where(columns.owner == new.owner, columns.key == key)
    return str(connection.execute(query).scalar_one())


def _change(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    mine = sa.and_(jobs.c.id == job, jobs.c.lease == lease, jobs.c.state == RUNNING)
    if connection.execute(sa.update(jobs).where(mine).values(values)).rowcount != 1:
        raise LeaseLost


def _end(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    _change(connection, job, lease, {"finished": now(), **values, **_NO_LEASE})


def _record(connection: sa.Connection, job: str, lease: str, advance: Advance) -> None:
    values: dict[str, Any] = {"work_seconds": jobs.c.work_seconds + advance.work_seconds}
    if advance.progress is not None:
        values |= dict(zip(("decoded", "transcribed", "total"), advance.progress, strict=True))
    if advance.chunks:
        values["stalls"] = 0
    _change(connection, job, lease, values)
    rows = [
        {"job": job, "index": chunk.index, "seconds": chunk.seconds, "record": chunk.record}
        for chunk in advance.chunks
    ]
    upsert(connection, chunks, rows, "seconds", "record")
    rows = [{"job": job, "index": index, "record": record} for index, record in advance.segments]
    upsert(connection, segments, rows, "record")


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
    job = _job(connection.execute(sa.select(*_JOB).where(jobs.c.id == job_id)).first())
    return None if job is None else Callback(job, callback_id, url, attempts, int(time))
