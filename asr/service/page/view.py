"""A transcript as the page shows it: every word with its time, its doubt, and where it comes from.

The segments of a corrected transcript are stored as they are shown. Those of the engine are made
from its segments: a word is doubtful if a message of the witness is about the stretch where it is.
"""

from __future__ import annotations

import gzip
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from asr.align.witness import place_in
from asr.output.numbers import rounded, to_plain
from asr.pipeline.checkpoint import find_gaps, unpack_segment
from asr.service.jobs.documents import matches
from asr.service.jobs.edited import line_of, unpack
from asr.service.jobs.edits import Version
from asr.service.jobs.request import JobRequest
from asr.service.jobs.schemas import job_body
from asr.service.jobs.tables import SUCCEEDED
from asr.service.threads import FairThreads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from starlette.requests import Request

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs
    from asr.types import Segment, Word

GZIP: Final = "-gzip"
"""The end of the ETag of a compressed answer: other bytes need another strong tag."""
_MIN_GZIP: Final = 1400
_LEVEL: Final = 3
_NEAR: Final = 0.05
"""Seconds. The messages of the witness are rounded to a tenth of a second."""
_threads = FairThreads("views", 4, 2)

_NO_WARNINGS: Final = '"warnings": [], "channel"'
"""In the record of a segment without warnings. Few segments have any."""
MAX_DOUBT: Final = 60.0
"""Seconds. A doubt lies in one chunk, which is shorter."""

Stretch = tuple[float, float, str]
"""Start, end and message of a doubt."""


async def transcript(jobs: Jobs, job: Job, request: Request, *, original: bool = False) -> Response:
    """The transcript of a job as JSON, or 304.

    Args:
        jobs: all jobs.
        job: must be read before its segments.
        request: its headers say what the client knows, and whether it understands gzip.
        original: what the engine wrote, even if it was corrected.
    """
    version = Version() if original else await jobs.edits.version(job.id)
    is_gzip = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"cache-control": "private, no-cache", "vary": "Accept-Encoding"}
    if job.is_finished:  # while it runs, every answer may differ
        tag = f'"{version.tag}{GZIP if is_gzip else ""}"'
        headers["etag"] = tag
        if matches(tag, request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
    content = None
    if version.is_edited:
        version, content = await jobs.edits.read(job.id)
        headers["etag"] = f'"{version.tag}{GZIP if is_gzip else ""}"'
    records = [] if content else await jobs.store.segments(job.id)
    chunks = [] if job.summary else await jobs.store.chunks_around_gaps(job.id)
    head = _head(job, version, chunks)

    def write() -> bytes:
        if content:
            edited = unpack(content)
            lines, speakers = edited.lines, dict(edited.speakers)
        else:
            lines, speakers = list(original_lines(records)), {}
        return _joined(head | {"speakers": speakers}, lines)

    body = await _threads.run(job.owner, write)
    if is_gzip and len(body) >= _MIN_GZIP:
        body = await _threads.run(job.owner, gzip.compress, body, _LEVEL, mtime=0)
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers, media_type="application/json")


def _head(job: Job, version: Version, chunks: Sequence[str]) -> dict[str, Any]:
    """Everything but the segments and the speakers."""
    body, request = job_body(job, ""), JobRequest.unpack(job.request)
    gaps = body["gaps"] or to_plain(
        find_gaps(chunks, request.chunk.max_gap, split=request.channels == "split")
    )
    return {
        "object": "transcript",
        "job": job.id,
        "state": job.state,
        "complete": job.state == SUCCEEDED,
        "edited": version.is_edited,
        "revision": version.revision,
        "duration": rounded(length_of(job)),
        "language": body["language"],
        "engine": body["engine"],
        "gaps": gaps,
        "warnings": body["warnings"],
    }


def length_of(job: Job) -> float:
    """The seconds of a job's recording, as far as it is decoded."""
    seconds = job_body(job, "")["recording"]["seconds"]
    return max(seconds or 0.0, job.decoded, job.transcribed)


def _joined(head: Mapping[str, Any], lines: Iterable[str]) -> bytes:
    return f'{line_of(head)[:-1]},"segments":[{",".join(lines)}]}}'.encode()


def original_lines(records: Sequence[str]) -> Iterator[str]:
    """The segments that the engine wrote, each as the page shows it."""
    doubts = sorted(_stretches(records))
    for record in records:  # one after the other, so that other threads can run in between
        yield line_of(_shown(unpack_segment(record), doubts))


def _stretches(records: Iterable[str]) -> Iterator[Stretch]:
    """The doubts with a place. They come with a segment nearby, not always with their own."""
    for record in records:
        if _NO_WARNINGS in record:
            continue
        for message in unpack_segment(record).warnings:
            if (place := place_in(message)) is not None:
                yield *place, message


def _shown(segment: Segment, doubts: Sequence[Stretch]) -> dict[str, Any]:
    first = bisect_left(doubts, (segment.start - MAX_DOUBT,))
    last = bisect_left(doubts, (segment.end + _NEAR,))
    near = [it for it in doubts[first:last] if it[1] > segment.start - _NEAR]
    own = [message for message in segment.warnings if place_in(message) is None]
    return {
        "id": segment.id,
        "start": rounded(segment.start),
        "end": rounded(segment.end),
        "text": segment.text,
        "speaker": segment.speaker,
        "channel": segment.channel,
        "words": [_word(word, near) for word in segment.words],
        "doubts": list(dict.fromkeys([*own, *(message for *_, message in near)])),
    }


def _word(word: Word, near: Sequence[Stretch]) -> dict[str, Any]:
    middle = word.midpoint
    return {
        "word": word.text,
        "start": rounded(word.start),
        "end": rounded(word.end),
        "confidence": rounded(word.confidence),
        "timing": word.timing,
        "doubtful": any(s - _NEAR <= middle <= e + _NEAR for s, e, _ in near),
    }
