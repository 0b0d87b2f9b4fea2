"""The events of a job as server-sent events.

    progress   state and progress; without an id, because only the latest one counts
    segment    a new segment; its id is the number of segments so far
    warning    a warning about the job or a segment
    gap        a stretch that could not be transcribed; sent just before done
    speakers   all segments with their final speakers, if those of earlier events were provisional;
               sent just before done
    done       the job succeeded; its id is one more than the number of segments
    error      the job failed, was cancelled, or was deleted; its id likewise

Everything is read from the database. So any API process of any server can send the events, and a
client that reconnects with ``Last-Event-ID`` continues behind the last segment it received.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from asr.errors import StoreUnavailable
from asr.output.full_json import segment_record
from asr.pipeline.checkpoint import unpack_segment
from asr.service.http.sse import KEEP_ALIVE, KEEP_ALIVE_SECONDS, encode_event
from asr.service.jobs.request import JobRequest
from asr.service.jobs.schemas import job_body, progress_body
from asr.service.jobs.tables import SUCCEEDED
from asr.service.threads import FairThreads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs

N_AT_ONCE: Final = 100
"""Segments that are encoded at once. A client that begins late gets thousands."""
_threads = FairThreads("events", 4, 2)


async def follow(jobs: Jobs, job: Job, n_seen: int, prefix: str = "") -> AsyncGenerator[str]:
    """Yield the events of a job until it ends.

    Args:
        jobs: all jobs.
        job: the job.
        n_seen: the number of segments to skip.
        prefix: of the URLs in `job_body`.
    """
    encoder = _EventEncoder(n_seen, prefix)
    sent = time.monotonic()
    while True:
        try:
            found, records = await jobs.watch.news(job.id, encoder.n_segments)
        except StoreUnavailable:
            pass  # the next poll reads what this one missed
        else:
            async for events in _news(jobs, encoder, found, records):
                yield events
                sent = time.monotonic()
            if found is None or found.is_finished:
                return
        if jobs.is_closing:
            return  # the client reconnects with its Last-Event-ID
        if time.monotonic() - sent >= KEEP_ALIVE_SECONDS:
            sent = time.monotonic()
            yield KEEP_ALIVE


async def _news(
    jobs: Jobs, encoder: _EventEncoder, job: Job | None, records: list[str]
) -> AsyncGenerator[str]:
    """Yield the events of new segments, and then those of the job, which may be the last ones."""
    owner = "" if job is None else job.owner
    if job is not None and encoder.has_provisional(job):
        final = await jobs.store.segments(job.id)
        yield await _threads.run(owner, encoder.speakers, final)
        records = []
    for n in range(0, len(records), N_AT_ONCE):
        yield await _threads.run(owner, encoder.segments, records[n : n + N_AT_ONCE])
    for event in encoder.changes(job):
        yield event


class _EventEncoder:
    """Turns the state of a job into events, and remembers what one client has received."""

    def __init__(self, n_seen: int, prefix: str) -> None:
        self.n_segments = n_seen
        self._prefix = prefix
        self._job: Job | None = None
        self._progress: dict[str, Any] | None = None
        self._n_warnings = 0

    def segments(self, records: list[str]) -> str:
        """The events of new segments, and of their warnings."""
        return "".join(event for record in records for event in self._segment(record))

    def _segment(self, record: str) -> Iterator[str]:
        segment = unpack_segment(record)
        self.n_segments += 1
        yield encode_event(segment_record(segment), name="segment", number=self.n_segments)
        for warning in segment.warnings:
            yield encode_event({"message": warning, "segment": segment.id}, name="warning")

    def has_provisional(self, job: Job) -> bool:
        """Whether the job has ended, and the client may have segments with provisional speakers."""
        is_over = job.state == SUCCEEDED and self.n_segments > 0
        return is_over and JobRequest.unpack(job.request).speakers is not None

    def speakers(self, records: list[str]) -> str:
        """The event that replaces all segments sent before."""
        self.n_segments = len(records)
        final = [segment_record(unpack_segment(record)) for record in records]
        return encode_event({"segments": final}, name="speakers")

    def changes(self, job: Job | None) -> Iterator[str]:
        """Yield events for what has changed in the job itself.

        Args:
            job: the job now, or None if it was deleted.
        """
        if job is None:
            yield self._error("the job was deleted", "job_deleted")
            return
        if job == self._job:
            return
        self._job = job
        yield from self._warnings(job)
        progress = {"state": job.state, **progress_body(job)}
        if progress != self._progress:
            self._progress = progress
            yield encode_event(progress, name="progress")
        yield from self._end(job)

    def _warnings(self, job: Job) -> Iterator[str]:
        warnings = job_body(job, self._prefix)["warnings"]
        for warning in warnings[self._n_warnings :]:
            yield encode_event({"message": warning}, name="warning")
        self._n_warnings = len(warnings)

    def _end(self, job: Job) -> Iterator[str]:
        if job.state == SUCCEEDED:
            body = job_body(job, self._prefix)
            for gap in body["gaps"]:
                yield encode_event(gap, name="gap")
            yield encode_event(body, name="done", number=self.n_segments + 1)
        elif job.error is not None:
            yield encode_event(
                {"error": json.loads(job.error)}, name="error", number=self.n_segments + 1
            )
        elif job.is_finished:
            yield self._error("the job was cancelled", "job_cancelled")

    def _error(self, message: str, code: str) -> str:
        kind = "invalid_request_error"
        error = {"message": message, "type": kind, "param": None, "code": code}
        return encode_event({"error": error}, name="error", number=self.n_segments + 1)
