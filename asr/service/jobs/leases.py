"""Jobs as the runners see them: who works on which job, and the results that are written.

A running job has a lease. Each claim gets a new token, and a runner can write only while the job
still carries its token. A runner renews its leases. If it dies, its leases expire, and any runner
may claim its jobs. A claim replaces the token. So a runner that was only slow, not dead, cannot
write any more.

Two runners never claim the same job: SQLite has one writer at a time, and Postgres uses
``FOR UPDATE SKIP LOCKED``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from asr.service.jobs.database import Database, now, upsert
from asr.service.jobs.rows import JOB_COLUMNS, Job, read_job
from asr.service.jobs.tables import FAILED, QUEUED, RUNNING, SUCCEEDED, chunks, jobs, segments

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asr.service.litserve.messages import ChunkDone


MAX_WAIT_SECONDS: Final = 600.0
"""The longest time until a released job may be claimed again. A later time was written while the
clock was ahead. So was a lease that is longer than the server's own ones."""
SHORTEST_SECONDS: Final = 5.0
"""No lease of another server is cut to less than this. Servers renew their leases every second."""


class LeaseLost(Exception):
    """The job was cancelled or deleted, or another runner claimed it."""


@dataclass(frozen=True, slots=True)
class NewResults:
    """The results of a job since the last write.

    Attributes:
        chunks: the newly recognised chunks.
        segments: index and record of each new segment.
        progress: seconds decoded, seconds transcribed, and seconds in total if known.
        work_seconds: time spent.
    """

    chunks: Sequence[ChunkDone] = ()
    segments: Sequence[tuple[int, str]] = ()
    progress: tuple[float, float, float | None] | None = None
    work_seconds: float = 0.0


class Leases:
    """Claims jobs and writes their results.

    Every method raises `StoreUnavailable` when the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, lease: str, seconds: float) -> Job | None:
        """Claim a job: the oldest one of the owner with the fewest running jobs.

        Args:
            lease: the token of this claim.
            seconds: until the lease expires.
        """
        other = jobs.alias()
        is_running = sa.and_(other.c.state == RUNNING, other.c.lease_until >= now())
        n_running = (
            sa.select(sa.func.count())
            .select_from(other)
            .where(other.c.owner == jobs.c.owner, is_running)
            .scalar_subquery()
        )
        may_begin = sa.or_(jobs.c.not_before <= now(), jobs.c.not_before > now() + MAX_WAIT_SECONDS)
        is_due = sa.and_(jobs.c.state == QUEUED, may_begin)
        has_expired = sa.and_(jobs.c.state == RUNNING, jobs.c.lease_until < now())
        found = (
            sa.select(jobs.c.id)
            .where(sa.or_(is_due, has_expired))
            .order_by(n_running, jobs.c.created, jobs.c.id)
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
            )
            .returning(*JOB_COLUMNS)
        )

        def work(connection: sa.Connection) -> Job | None:
            _shorten_leases(connection, seconds)
            return read_job(connection.execute(statement).first())

        return await self._database.run(work)

    async def renew(self, leases: Collection[str], seconds: float) -> set[str]:
        """Renew the leases for `seconds`; returns those that are still held."""
        statement = (
            sa.update(jobs)
            .where(jobs.c.lease.in_(leases), jobs.c.state == RUNNING)
            .values(lease_until=now() + seconds)
            .returning(jobs.c.lease)
        )
        return await self._database.run(lambda c: {str(name) for name in c.scalars(statement)})

    async def finished_chunks(self, job: str) -> list[str]:
        """The records of the chunks that earlier attempts finished."""
        query = (
            sa.select(chunks.c.record)
            .where(chunks.c.job == job)
            .order_by(chunks.c.channel, chunks.c.index)
        )
        return await self._database.read(lambda c: list(c.scalars(query)))

    async def record(self, job: str, lease: str, results: NewResults) -> None:
        """Write results. The call is idempotent, except that it adds the work seconds each time.

        Raises:
            LeaseLost: nothing was written.
        """
        await self._database.run(lambda c: _record(c, job, lease, results))

    async def succeed(
        self, job: str, lease: str, results: NewResults, n_segments: int, summary: str
    ) -> None:
        """Write the last results and end the job. Its chunks are deleted: nobody needs them now.

        Args:
            job: its id.
            lease: of the runner.
            results: the last ones.
            n_segments: of the whole transcript.
            summary: as `asr.pipeline.checkpoint` packs it.

        Raises:
            LeaseLost: nothing was written.
        """

        def work(connection: sa.Connection) -> None:
            _record(connection, job, lease, results)
            of_job = chunks.c.job == job
            n_chunks = sa.select(sa.func.count()).select_from(chunks).where(of_job)
            _end(
                connection,
                job,
                lease,
                {"state": SUCCEEDED, "summary": summary, "n_chunks": n_chunks.scalar_subquery()},
            )
            connection.execute(sa.delete(chunks).where(of_job))
            # An earlier attempt with another engine may have cut the speech into more segments.
            surplus = segments.c.index >= n_segments
            connection.execute(sa.delete(segments).where(segments.c.job == job, surplus))

        await self._database.run(work)

    async def fail(self, job: str, lease: str, error: str) -> None:
        """End the job as failed. `error` is OpenAI's error object as JSON.

        Raises:
            LeaseLost: nothing was written.
        """
        await self._database.run(lambda c: _end(c, job, lease, {"state": FAILED, "error": error}))

    async def release(
        self, job: str, lease: str, delay: float, n_failures: int | None = None
    ) -> None:
        """Let the job be claimed again after `delay` seconds.

        Args:
            job: its id.
            lease: of the runner.
            delay: seconds.
            n_failures: since the last new chunk, those that only the recording explains. None
                leaves the number as it is.

        Raises:
            LeaseLost: nothing was written.
        """
        values: dict[str, Any] = {
            "state": QUEUED,
            "not_before": now() + min(delay, MAX_WAIT_SECONDS),
        }
        if n_failures is not None:
            values["stalls"] = n_failures
        await self._database.run(lambda c: _change(c, job, lease, values | _NO_LEASE))

    async def postpone(self, job: str, lease: str, owner: str, delay: float) -> None:
        """Release a job that was not begun, and postpone all queued jobs of its owner.

        One statement postpones all queued jobs. Claiming and releasing thousands of jobs one by one
        would delay the jobs of other owners.

        Args:
            job: its id.
            lease: of the runner.
            owner: whose queued jobs are postponed.
            delay: seconds.

        Raises:
            LeaseLost: nothing was written.
        """
        until = now() + min(delay, MAX_WAIT_SECONDS)
        values: dict[str, Any] = {
            "state": QUEUED,
            "not_before": until,
            "attempts": jobs.c.attempts - 1,
            "started": sa.case((jobs.c.attempts > 1, jobs.c.started), else_=None),
        }
        others = sa.and_(jobs.c.owner == owner, jobs.c.state == QUEUED, jobs.c.not_before < until)

        def work(connection: sa.Connection) -> None:
            _change(connection, job, lease, values | _NO_LEASE)
            connection.execute(sa.update(jobs).where(others).values(not_before=until))

        await self._database.run(work)


def _shorten_leases(connection: sa.Connection, seconds: float) -> None:
    """Let no lease last longer than `seconds` from now.

    A server that died while its clock was ahead leaves a lease that would strand its job. A server
    that lives renews its leases long before they expire, even if it uses longer ones.
    """
    most = max(seconds, SHORTEST_SECONDS)
    is_long = sa.and_(jobs.c.state == RUNNING, jobs.c.lease_until > now() + most + 1)
    connection.execute(sa.update(jobs).where(is_long).values(lease_until=now() + most))


_NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


def _change(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    is_ours = sa.and_(jobs.c.id == job, jobs.c.lease == lease, jobs.c.state == RUNNING)
    if connection.execute(sa.update(jobs).where(is_ours).values(values)).rowcount != 1:
        raise LeaseLost


def _end(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    _change(connection, job, lease, {"finished": now(), **values, **_NO_LEASE})


def _at_least(column: sa.Column[float], value: float) -> sa.Case[float]:
    return sa.case((column > value, column), else_=value)


def _record(connection: sa.Connection, job: str, lease: str, results: NewResults) -> None:
    values: dict[str, Any] = {"work_seconds": jobs.c.work_seconds + results.work_seconds}
    if results.progress is not None:
        decoded, transcribed, values["total"] = results.progress
        # A new attempt starts at 0 and passes quickly through the finished chunks. Clients must
        # not see progress fall back.
        values["decoded"] = _at_least(jobs.c.decoded, decoded)
        values["transcribed"] = _at_least(jobs.c.transcribed, transcribed)
    if results.chunks:
        values["stalls"] = 0
    _change(connection, job, lease, values)
    rows: list[dict[str, Any]] = [
        {
            "job": job,
            "channel": chunk.channel,
            "index": chunk.index,
            "seconds": chunk.seconds,
            "record": chunk.record,
        }
        for chunk in results.chunks
    ]
    upsert(connection, chunks, rows, "seconds", "record")
    rows = [{"job": job, "index": index, "record": record} for index, record in results.segments]
    upsert(connection, segments, rows, "record")
