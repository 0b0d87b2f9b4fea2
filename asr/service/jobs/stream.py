"""What happens in a job, as server-sent events.

    progress   how far it has come; without an id, since only the latest counts
    segment    one more segment; its id is the number of segments so far
    warning    what the client should know
    done       the job, succeeded
    error      the job failed, was cancelled, or was deleted

All of it is read from the database, so any API process of any server can tell it, and a client
that comes back with ``Last-Event-ID`` goes on behind the segment that it saw last.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from asr.errors import StoreUnavailable
from asr.output.full_json import to_plain
from asr.pipeline.checkpoint import unpack_segment
from asr.service.jobs.schemas import job_body, progress_body
from asr.service.jobs.tables import SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs

KEEP_ALIVE_SECONDS: Final = 15.0


async def follow(jobs: Jobs, job: Job, n_seen: int) -> AsyncGenerator[str]:
    """The events of a job behind the first `n_seen` segments, until it ends."""
    teller = _Teller(n_seen)
    sent = time.monotonic()
    while True:
        try:
            found, records = await jobs.watch.news(job.id, teller.n_segments)
        except StoreUnavailable:
            pass  # it will be back, and nothing was missed
        else:
            for event in teller.news(found, records):
                sent = time.monotonic()
                yield event
            if found is None or found.is_finished:
                return
        if jobs.is_closing:
            return  # the client comes back with its Last-Event-ID
        if time.monotonic() - sent >= KEEP_ALIVE_SECONDS:
            sent = time.monotonic()
            yield ": keep-alive\n\n"


class _Teller:
    """Knows what one client has been told."""

    def __init__(self, n_seen: int) -> None:
        self.n_segments = n_seen
        self._progress: dict[str, Any] | None = None
        self._n_warnings = 0

    def news(self, job: Job | None, records: list[str]) -> Iterator[str]:
        """What is new since the last time.

        Args:
            job: as it was when `records` were read, or None when it is gone.
            records: of the segments from the last one told on.
        """
        for record in records:
            segment = unpack_segment(record)
            self.n_segments += 1
            yield _event("segment", to_plain(segment), self.n_segments)
            for warning in segment.warnings:
                yield _event("warning", {"message": warning, "segment": segment.id})
        if job is None:
            yield _error("the job was deleted", "job_deleted")
            return
        yield from self._warnings(job)
        progress = {"state": job.state, **progress_body(job)}
        if progress != self._progress:
            self._progress = progress
            yield _event("progress", progress)
        yield from self._end(job)

    def _warnings(self, job: Job) -> Iterator[str]:
        warnings = job_body(job)["warnings"]
        for warning in warnings[self._n_warnings :]:
            yield _event("warning", {"message": warning})
        self._n_warnings = len(warnings)

    def _end(self, job: Job) -> Iterator[str]:
        if job.state == SUCCEEDED:
            yield _event("done", job_body(job), self.n_segments + 1)
        elif job.error is not None:
            yield _event("error", {"error": json.loads(job.error)}, self.n_segments + 1)
        elif job.is_finished:
            yield _error("the job was cancelled", "job_cancelled")


def _error(message: str, code: str) -> str:
    kind = "invalid_request_error"
    return _event(
        "error", {"error": {"message": message, "type": kind, "param": None, "code": code}}
    )


def _event(name: str, body: dict[str, Any], number: int | None = None) -> str:
    head = f"event: {name}\n" if number is None else f"id: {number}\nevent: {name}\n"
    return f"{head}data: {json.dumps(body, ensure_ascii=False)}\n\n"
