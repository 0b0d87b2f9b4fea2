"""Rows of the tables as values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from asr.service.jobs.tables import UNFINISHED, jobs

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be created. Its recording already lies on disk under the same id."""

    id: str
    owner: str
    request: str
    fingerprint: str
    sha256: str
    n_bytes: int
    name: str | None = None
    folded_name: str | None = None
    metadata: str | None = None
    kept_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `tables.jobs`, which explains the columns."""

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
    name: str | None = None
    metadata: str | None = None
    kept_bytes: int | None = None

    @property
    def keeps_recording(self) -> bool:
        """Whether the recording stays until the job is deleted or expires."""
        return self.kept_bytes is not None

    @property
    def is_finished(self) -> bool:
        """Whether the job succeeded, failed or was cancelled."""
        return self.state not in UNFINISHED


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that is due.

    Attributes:
        job: the job in its final state.
        id: of the callback; the same at every attempt.
        url: of the receiver.
        attempts: including this one.
        now: seconds since 1970.
    """

    job: Job
    id: str
    url: str
    attempts: int
    now: int


JOB_COLUMNS = tuple(jobs.c[field.name] for field in fields(Job))
"""The columns of a `Job`, in the order of its fields."""


def read_job(row: sa.Row[Any] | None) -> Job | None:
    """The job in a row of `JOB_COLUMNS`."""
    return None if row is None else Job(*tuple(row))
