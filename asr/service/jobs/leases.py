"""Who works on which job, and what came of it.

A job in work has a lease. Whoever claims it gets a token that no claim had before, and writes only
while the job still names that token: a worker that was thought dead and is not writes nothing. The
lease runs out when its holder dies, and then anyone may claim the job. SQLite runs one writer at a
time; in Postgres ``FOR UPDATE SKIP LOCKED`` keeps two claims apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from asr.service.jobs.database import Database, now, upsert
from asr.service.jobs.rows import JOB, Job, read_job
from asr.service.jobs.tables import FAILED, QUEUED, RUNNING, SUCCEEDED, chunks, jobs, segments

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asr.service.litserve.messages import ChunkDone


class LeaseLost(Exception):
    """The job was cancelled, deleted, or is someone else's by now."""


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


class Leases:
    """The side of the jobs that the runners see."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
            .returning(*JOB)
        )
        return await self._database.run(lambda c: read_job(c.execute(statement).first()))

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
        query = (
            sa.select(chunks.c.record)
            .where(chunks.c.job == job)
            .order_by(chunks.c.channel, chunks.c.index)
        )
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

    async def put_off(self, job: str, lease: str, owner: str, delay: float) -> None:
        """Give back a job that was not begun, and let none of its owner be claimed for a while.

        All at once: to claim each of thousands only to give it back would keep the others waiting.

        Args:
            job: its id.
            lease: of the worker that gives it back.
            owner: whose jobs in wait are put off with it.
            delay: seconds.

        Raises:
            LeaseLost: it is not the worker's to give.
        """
        until = now() + delay
        values: dict[str, Any] = {
            "state": QUEUED,
            "not_before": until,
            "attempts": jobs.c.attempts - 1,
            "stalls": jobs.c.stalls - 1,
            "started": sa.case((jobs.c.attempts > 1, jobs.c.started), else_=None),
        }
        others = sa.and_(jobs.c.owner == owner, jobs.c.state == QUEUED, jobs.c.not_before < until)

        def work(connection: sa.Connection) -> None:
            _change(connection, job, lease, values | _NO_LEASE)
            connection.execute(sa.update(jobs).where(others).values(not_before=until))

        await self._database.run(work)


_NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


def _change(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    mine = sa.and_(jobs.c.id == job, jobs.c.lease == lease, jobs.c.state == RUNNING)
    if connection.execute(sa.update(jobs).where(mine).values(values)).rowcount != 1:
        raise LeaseLost


def _end(connection: sa.Connection, job: str, lease: str, values: dict[str, Any]) -> None:
    _change(connection, job, lease, {"finished": now(), **values, **_NO_LEASE})


def _at_least(column: sa.Column[float], value: float) -> sa.Case[float]:
    return sa.case((column > value, column), else_=value)


def _record(connection: sa.Connection, job: str, lease: str, advance: Advance) -> None:
    values: dict[str, Any] = {"work_seconds": jobs.c.work_seconds + advance.work_seconds}
    if advance.progress is not None:
        decoded, transcribed, values["total"] = advance.progress
        # An attempt begins at 0 and passes quickly through what is kept; none is further back.
        values["decoded"] = _at_least(jobs.c.decoded, decoded)
        values["transcribed"] = _at_least(jobs.c.transcribed, transcribed)
    if advance.chunks:
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
        for chunk in advance.chunks
    ]
    upsert(connection, chunks, rows, "seconds", "record")
    rows = [{"job": job, "index": index, "record": record} for index, record in advance.segments]
    upsert(connection, segments, rows, "record")
