"""Rows of the tables as values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from asr.service.jobs.tables import UNFINISHED, jobs

if TYPE_CHECKING:
    import sqlalchemy as sa


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


JOB = tuple(jobs.c[field.name] for field in fields(Job))
"""The columns that make one."""


def read_job(row: sa.Row[Any] | None) -> Job | None:
    """The job in a row of the columns `JOB`."""
    return None if row is None else Job(*tuple(row))
