"""Jobs as their owners see them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from asr.errors import StoreUnavailable
from asr.pipeline.checkpoint import MISSING_START
from asr.service.errors import Conflict, KeyReused, LimitReached, TooLarge
from asr.service.jobs.database import Database, lock_queue, now, position, upsert
from asr.service.jobs.labels import lines_of
from asr.service.jobs.rows import JOB_COLUMNS, Job, NewJob, read_job
from asr.service.jobs.tables import (
    CANCELLED,
    QUEUED,
    STATES,
    SUCCEEDED,
    UNFINISHED,
    callbacks,
    chunks,
    create_tables,
    deleted_jobs,
    edits,
    idempotency_keys,
    jobs,
    segments,
)
from asr.service.names import folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


FUTURE_SECONDS: Final = 60.0
"""A time further ahead was written while the clock was ahead."""
PAGING_SECONDS: Final = 86_400.0
"""A client may take this long from one page of jobs to the next, even if jobs are deleted."""
MAX_CALLBACKS: Final = 10
"""Callbacks of one job."""
MAX_PER_QUERY: Final = 100
"""Jobs in one query. SQLite accepts expressions of at most 1000 terms."""


class JobStore:
    """All jobs of all owners.

    Every method raises `StoreUnavailable` when the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Create the tables, if they do not exist.

        Raises:
            StoreUnavailable: the database is unavailable.
            StoreTooNew: a newer service made the tables.
        """
        await self._database.open(create_tables)

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
        *,
        max_kept: int | None = None,
    ) -> tuple[Job, bool]:
        """Create a job, or find the existing job for the same request.

        Args:
            new: the job. An unfinished or successful job of the same fingerprint is used instead.
            key: the client's idempotency key.
            callback: id and address of a callback.
            max_waiting: how many jobs may wait, including a new one. An owner with few waiting
                jobs may exceed it, so that others cannot fill the queue.
            sent: a digest of the request as the client sent it, to compare if the key comes again.
                The fingerprint is not enough: it depends on the server's settings, which may change
                before the client repeats the request.
            max_kept: the most bytes of kept recordings that the owner may have.

        Returns:
            The job, and whether it is new.

        Raises:
            KeyReused: the key came with another request before.
            LimitReached: too many jobs wait.
            Conflict: the job exists and has too many callbacks.
            TooLarge: the kept recordings of the owner would take too many bytes.
        """

        def work(connection: sa.Connection) -> tuple[Job, bool]:
            job, is_new = _create(connection, new, key, callback, max_waiting, sent)
            if is_new and job.keeps_recording and max_kept is not None:
                _check_kept(connection, new.owner, max_kept)
            return job, is_new

        return await self._database.run(work)

    async def find(self, owner: str, job: str) -> Job | None:
        """A job by its id; None if the owner has no such job."""
        query = sa.select(*JOB_COLUMNS).where(jobs.c.id == job, jobs.c.owner == owner)
        return await self._database.read(lambda c: read_job(c.execute(query).first()))

    async def page(
        self,
        owner: str,
        limit: int,
        after: str | None = None,
        state: str | None = None,
        *,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> list[Job]:
        """The owner's jobs, newest first, starting behind the job `after`.

        Args:
            owner: of the jobs.
            limit: the most jobs to return.
            after: id of a job, which may have been deleted meanwhile.
            state: of the jobs.
            name: a part of the file name. Upper and lower case are the same.
            metadata: pairs that the jobs must have.
        """
        query = sa.select(*JOB_COLUMNS).where(jobs.c.owner == owner)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if name:
            query = query.where(position(jobs.c.folded_name, folded(name)) > 0)
        for pair in (metadata or {}).items():
            found = (position(jobs.c.metadata, line) > 0 for line in lines_of(*pair))
            query = query.where(sa.or_(*found))
        if after is not None:
            places = (
                sa.select(table.c.created).where(table.c.id == after, table.c.owner == owner)
                for table in (jobs, deleted_jobs)
            )
            created = sa.union_all(*places).scalar_subquery()
            query = query.where(
                sa.or_(
                    jobs.c.created < created,
                    sa.and_(jobs.c.created == created, jobs.c.id < after),
                )
            )
        query = query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)
        return await self._database.read(lambda c: [Job(*tuple(row)) for row in c.execute(query)])

    async def n_waiting(self, owner: str | None = None) -> int:
        """The number of waiting jobs of one owner, or of all."""
        return await self._database.read(lambda c: _n_waiting(c, owner))

    async def counts(self) -> dict[str, float]:
        """The number of jobs of all owners by state."""
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        found = await self._database.read(lambda c: {str(k): float(n) for k, n in c.execute(query)})
        return dict.fromkeys(STATES, 0.0) | found

    async def segments(self, job: str) -> list[str]:
        """The records of a job's segments, in order."""
        query = sa.select(segments.c.record).where(segments.c.job == job).order_by(segments.c.index)
        return await self._database.read(lambda c: list(c.scalars(query)))

    async def n_segments(self, job: str) -> int:
        """The number of a job's segments."""
        query = sa.select(sa.func.count()).select_from(segments).where(segments.c.job == job)
        return await self._database.read(lambda c: int(c.scalar(query) or 0))

    async def read_many(self, wanted: Mapping[str, int]) -> dict[str, tuple[Job, list[str]]]:
        """Jobs of any owners by id, each with the records of its segments.

        Args:
            wanted: for each id, the index of the first segment to read.

        Returns:
            The jobs that exist.
        """
        pairs = list(wanted.items())
        batches = [pairs[n : n + MAX_PER_QUERY] for n in range(0, len(pairs), MAX_PER_QUERY)]
        return await self._database.read(lambda c: _read_many(c, batches))

    async def speech_seconds(self, job: str) -> float:
        """Seconds of speech in the finished chunks of an unfinished job."""
        query = sa.select(sa.func.sum(chunks.c.seconds)).where(chunks.c.job == job)
        return await self._database.read(lambda c: float(c.scalar(query) or 0.0))

    async def chunks_around_gaps(self, job: str) -> list[str]:
        """The records of all chunks of an unfinished job, or none if no chunk was given up."""
        of_job = chunks.c.job == job
        is_missing = sa.and_(of_job, chunks.c.record.startswith(MISSING_START, autoescape=True))
        found = sa.select(sa.literal(1)).where(is_missing).exists()
        query = sa.select(chunks.c.record).where(of_job, found)
        return await self._database.read(lambda c: list(c.scalars(query)))

    async def cancel(self, owner: str, job: str) -> Job | None:
        """Cancel a job, unless it has ended. Returns the job, or None if there is none."""
        statement = (
            sa.update(jobs)
            .where(jobs.c.id == job, jobs.c.owner == owner, jobs.c.state.in_(UNFINISHED))
            .values(state=CANCELLED, finished=now(), lease=None, lease_until=None)
        )
        await self._database.run(lambda c: c.execute(statement).rowcount)
        return await self.find(owner, job)

    async def delete(self, owner: str, job: str) -> Job | None:
        """Delete a job in any state. Returns it as it was, or None if there was none."""
        is_wanted = sa.and_(jobs.c.id == job, jobs.c.owner == owner)
        return await self._database.run(lambda c: next(iter(_delete(c, is_wanted)), None))

    async def kept_bytes(self, owner: str) -> int:
        """The bytes of all kept recordings of an owner, with the files made from them."""
        return await self._database.read(lambda c: _kept_bytes(c, owner))

    async def set_kept_bytes(self, job: str, n_bytes: int) -> None:
        """Note how much disk the kept recording of a job takes, with the files made from it."""
        is_kept = sa.and_(jobs.c.id == job, jobs.c.kept_bytes.is_not(None))
        statement = sa.update(jobs).where(is_kept).values(kept_bytes=n_bytes)
        await self._database.run(lambda c: c.execute(statement).rowcount)

    # --- housekeeping ---------------------------------------------------------------------------

    async def expire(self, seconds: float) -> list[str]:
        """Delete the jobs that ended more than `seconds` ago; returns their ids.

        A job whose transcript was corrected later is kept for `seconds` after the last correction.

        A job that ended or was corrected in the future, by a clock that was ahead, counts as if
        that were now.
        """
        await self._database.run(_set_back)
        is_new = sa.and_(edits.c.job == jobs.c.id, edits.c.saved >= now() - seconds)
        corrected = sa.select(edits.c.job).where(is_new)
        is_old = sa.and_(jobs.c.finished < now() - seconds, ~corrected.exists())
        some = sa.select(jobs.c.id).where(is_old).limit(MAX_PER_QUERY)
        are_old = sa.and_(jobs.c.id.in_(some), is_old)
        expired: list[str] = []
        # In batches, so that other writers do not wait for long.
        while batch := await self._database.run(lambda c: _delete(c, are_old)):
            expired += [job.id for job in batch]
        forgotten = sa.delete(deleted_jobs).where(
            deleted_jobs.c.deleted < now() - max(seconds, PAGING_SECONDS)
        )
        await self._database.run(lambda c: c.execute(forgotten).rowcount)
        return expired

    async def states_of(self, wanted: Iterable[str]) -> dict[str, str]:
        """The state of each job that exists, by its id."""
        ids = list(wanted)
        batches = [ids[n : n + MAX_PER_QUERY] for n in range(0, len(ids), MAX_PER_QUERY)]
        queries = [sa.select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(b)) for b in batches]
        return await self._database.read(
            lambda c: {str(job): str(state) for query in queries for job, state in c.execute(query)}
        )

    async def keeping(self, wanted: Iterable[str]) -> set[str]:
        """The ids of the jobs among `wanted` that keep their recordings."""
        ids = list(wanted)
        batches = [ids[n : n + MAX_PER_QUERY] for n in range(0, len(ids), MAX_PER_QUERY)]
        is_kept = jobs.c.kept_bytes.is_not(None)
        queries = [sa.select(jobs.c.id).where(jobs.c.id.in_(b), is_kept) for b in batches]
        return await self._database.read(
            lambda c: {str(job) for query in queries for job in c.scalars(query)}
        )


def too_many_jobs() -> LimitReached:
    """The error for a job that would exceed the queue."""
    return LimitReached("too many jobs are waiting", "too_many_jobs", retry_after=30)


def _key_reused() -> KeyReused:
    message = "Idempotency-Key: it came with another recording or other options before"
    return KeyReused(message, "idempotency_key_reused", "Idempotency-Key")


def _read_many(
    connection: sa.Connection, batches: Iterable[Sequence[tuple[str, int]]]
) -> dict[str, tuple[Job, list[str]]]:
    found: dict[str, tuple[Job, list[str]]] = {}
    for batch in batches:
        ids = [job for job, _ in batch]
        rows = connection.execute(sa.select(*JOB_COLUMNS).where(jobs.c.id.in_(ids)))
        found |= {job.id: (job, []) for job in (Job(*tuple(row)) for row in rows)}
        is_new = (sa.and_(segments.c.job == job, segments.c.index >= n) for job, n in batch)
        query = sa.select(segments.c.job, segments.c.record).where(sa.or_(*is_new))
        for job, record in connection.execute(query.order_by(segments.c.job, segments.c.index)):
            found[job][1].append(record)
    return found


def reserved(max_waiting: int) -> int:
    """How many jobs of an owner may wait although the jobs of others fill the queue."""
    return max(1, max_waiting // 20)


def _n_waiting(connection: sa.Connection, owner: str | None = None) -> int:
    # Jobs that wait for their owner's limit are not counted, so they cannot fill the queue.
    may_begin = sa.or_(jobs.c.not_before <= now(), jobs.c.attempts > 0)
    is_waiting = sa.and_(jobs.c.state == QUEUED, may_begin)
    query = sa.select(sa.func.count()).select_from(jobs).where(is_waiting)
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    return int(connection.execute(query).scalar_one())


def _create(
    connection: sa.Connection,
    new: NewJob,
    key: str | None,
    callback: tuple[str, str] | None,
    max_waiting: int | None,
    sent: str,
) -> tuple[Job, bool]:
    job = _find_by_key(connection, new, key, sent) if key else None
    is_new = False
    if job is None:
        if max_waiting is not None:
            lock_queue(connection)
        job, is_new = _insert(connection, new)
        # Whether the job is new is known only after the insert. The error rolls the insert back.
        if is_new and max_waiting is not None and _exceeds(connection, new.owner, max_waiting):
            raise too_many_jobs()
        if key and _store_key(connection, new, key, job, sent) != job.id:
            raise _key_reused()
    if callback:
        _add_callback(connection, job.id, *callback)
    return job, is_new


def _set_back(connection: sa.Connection) -> None:
    """Replace times that were written while the clock was ahead."""
    for table, column in ((jobs, jobs.c.finished), (edits, edits.c.saved)):
        from_future = sa.update(table).where(column > now() + FUTURE_SECONDS)
        connection.execute(from_future.values({column: now()}))


def _kept_bytes(connection: sa.Connection, owner: str) -> int:
    total = sa.select(sa.func.sum(jobs.c.kept_bytes)).where(jobs.c.owner == owner)
    return int(connection.execute(total).scalar() or 0)


def _check_kept(connection: sa.Connection, owner: str, max_bytes: int) -> None:
    """Check the kept recordings of an owner after an insert, which an error rolls back."""
    if (n_bytes := _kept_bytes(connection, owner)) > max_bytes:
        message = f"keep_recording: your kept recordings would take {n_bytes} bytes; {max_bytes}"
        advice = "are allowed. Delete jobs, or do not keep this recording"
        raise TooLarge(f"{message} {advice}", "recordings_too_large", "keep_recording")


def _exceeds(connection: sa.Connection, owner: str, max_waiting: int) -> bool:
    is_full = _n_waiting(connection) > max_waiting
    return is_full and _n_waiting(connection, owner) > reserved(max_waiting)


def _add_callback(connection: sa.Connection, job: str, callback: str, url: str) -> None:
    row = {"job": job, "id": callback, "url": url, "state": "pending"}
    upsert(connection, callbacks, [row])  # the same URL again changes nothing
    query = sa.select(sa.func.count()).select_from(callbacks).where(callbacks.c.job == job)
    if connection.execute(query).scalar_one() > MAX_CALLBACKS:  # the error rolls the insert back
        message = f"callback_url: this job already has {MAX_CALLBACKS} callbacks"
        raise Conflict(message, "too_many_callbacks", "callback_url")


def _find_by_key(connection: sa.Connection, new: NewJob, key: str, sent: str) -> Job | None:
    columns = idempotency_keys.c
    is_wanted = sa.and_(columns.owner == new.owner, columns.key == key)
    found = connection.execute(sa.select(columns.job, columns.fingerprint).where(is_wanted)).first()
    if found is None:
        return None
    query = sa.select(*JOB_COLUMNS).where(jobs.c.id == found.job)
    job = read_job(connection.execute(query).first())
    if job is not None and found.fingerprint != sent and job.fingerprint != new.fingerprint:
        raise _key_reused()
    return job


def _delete(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[Job]:
    """Delete jobs, and keep their places in the list of jobs for a while."""
    rows = connection.execute(sa.delete(jobs).where(which).returning(*JOB_COLUMNS)).all()
    found = [Job(*tuple(row)) for row in rows]
    time = connection.execute(sa.select(now())).scalar_one()
    places = [
        {"id": it.id, "owner": it.owner, "created": it.created, "deleted": time} for it in found
    ]
    upsert(connection, deleted_jobs, places)
    return found


def _insert(connection: sa.Connection, new: NewJob) -> tuple[Job, bool]:
    values = {field.name: getattr(new, field.name) for field in fields(NewJob)}
    same = sa.select(*JOB_COLUMNS).where(
        jobs.c.fingerprint == new.fingerprint, jobs.c.state.in_((*UNFINISHED, SUCCEEDED))
    )
    created = connection.execute(sa.select(now())).scalar_one()
    upsert(connection, jobs, [{**values, "state": QUEUED, "created": created}])
    job = read_job(connection.execute(same).first())
    if job is None:
        raise StoreUnavailable("the same job ended or was deleted meanwhile: send it again")
    return job, job.id == new.id


def _store_key(connection: sa.Connection, new: NewJob, key: str, job: Job, sent: str) -> str:
    """Store the key of a job. Returns the id of the job that has the key.

    It is another job if a concurrent request stored the key first.
    """
    row = {"owner": new.owner, "key": key, "job": job.id, "fingerprint": sent or new.fingerprint}
    upsert(connection, idempotency_keys, [row])
    columns = idempotency_keys.c
    query = sa.select(columns.job).where(columns.owner == new.owner, columns.key == key)
    return str(connection.execute(query).scalar_one())
