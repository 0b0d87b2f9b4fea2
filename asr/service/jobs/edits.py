"""The corrected transcripts of jobs in the database.

Every change gets the next revision. A client names the version that it has changed, and is refused
if somebody saved another one first. The row of the job is locked meanwhile, so of two clients that
save at once exactly one succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from asr.service.errors import Conflict, NotFound
from asr.service.jobs.database import Database, now, upsert
from asr.service.jobs.tables import UNFINISHED, edits, jobs

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a transcript.

    Attributes:
        revision: the number of changes so far; 0 for what the engine wrote.
        digest: SHA-256 of the corrected transcript in hexadecimal; "" for what the engine wrote.
    """

    revision: int = 0
    digest: str = ""

    @property
    def is_edited(self) -> bool:
        """Whether this is a corrected transcript."""
        return bool(self.digest)

    @property
    def tag(self) -> str:
        """The ETag without quotes."""
        return f"{self.revision}-{self.digest[:32] or 'original'}"


class Outdated(Exception):
    """Somebody else changed the transcript first.

    Attributes:
        current: the version that is stored.
    """

    def __init__(self, current: Version) -> None:
        super().__init__("the transcript has changed")
        self.current = current


class Edits:
    """The corrected transcripts of all jobs.

    Every method raises `StoreUnavailable` when the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def version(self, job: str) -> Version:
        """The version of a job's transcript."""
        return await self._database.read(lambda c: _version(c, job))

    async def read(self, job: str) -> tuple[Version, bytes | None]:
        """The version of a job's transcript, and the content if it was corrected."""
        query = sa.select(edits.c.content).where(edits.c.job == job)
        return await self._database.read(lambda c: (_version(c, job), c.scalar(query)))

    async def save(
        self,
        owner: str,
        job: str,
        may_replace: Callable[[Version], bool],
        digest: str = "",
        content: bytes | None = None,
    ) -> Version:
        """Store a corrected transcript, or with neither digest nor content forget it.

        If exactly this is stored already, nothing changes: the answer to an earlier request may
        have been lost.

        Args:
            owner: of the job.
            job: its id.
            may_replace: whether the client knows this version.
            digest: of the content.
            content: as `edited.pack` writes it.

        Returns:
            The version that is stored now.

        Raises:
            NotFound: the owner has no such job, or not any more.
            Conflict: the job has not ended.
            Outdated: the client has changed another version.
        """

        def work(connection: sa.Connection) -> Version:
            _lock(connection, owner, job)
            current = _version(connection, job)
            if digest == current.digest:
                return current
            if not may_replace(current):
                raise Outdated(current)
            new = Version(current.revision + 1, digest)
            row: dict[str, Any] = {
                "job": job,
                "revision": new.revision,
                "digest": digest,
                "content": content,
                "saved": connection.execute(sa.select(now())).scalar_one(),
            }
            upsert(connection, edits, [row], "revision", "digest", "content", "saved")
            return new

        return await self._database.run(work)


def _version(connection: sa.Connection, job: str) -> Version:
    query = sa.select(edits.c.revision, edits.c.digest).where(edits.c.job == job)
    found = connection.execute(query).first()
    return Version() if found is None else Version(found.revision, found.digest)


def _lock(connection: sa.Connection, owner: str, job: str) -> None:
    """Let neither the job nor its transcript change until the end of the transaction.

    Raises:
        NotFound: the owner has no such job.
        Conflict: the job has not ended.
    """
    query = sa.select(jobs.c.state).where(jobs.c.id == job, jobs.c.owner == owner)
    state = connection.execute(query.with_for_update()).scalar()
    if state is None:
        raise NotFound("there is no job with this id", "no_such_job", "id")
    if state in UNFINISHED:
        message = f"the job is {state}: a transcript can be corrected when its job has ended"
        raise Conflict(message, "job_not_finished", "id")
