"""The transcript of a job as a file to download, complete or partial."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from asr.config import SubtitleOptions, check
from asr.output import formats
from asr.output.formats import EXTENSIONS
from asr.pipeline.checkpoint import find_gaps, unpack_segment, unpack_summary
from asr.service.collector import paused
from asr.service.http.warning_header import warning_header
from asr.service.jobs.edited import unpack
from asr.service.jobs.request import JobRequest
from asr.service.jobs.tables import SUCCEEDED
from asr.service.names import attachment
from asr.service.threads import FairThreads
from asr.service.transcriptions.form import reshaped
from asr.service.transcriptions.unused import unused_subtitle_fields
from asr.types import Gap, Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asr.service.jobs.edits import Edits
    from asr.service.jobs.rows import Job
    from asr.service.jobs.store import JobStore

_threads = FairThreads("documents", 4, 2)
UNKNOWN_LANGUAGE = "und"  # ISO 639-2: undetermined
ORIGINAL = "original"
"""A parameter of the query: show what the engine wrote, without the corrections."""


async def document(
    store: JobStore,
    job: Job,
    extension: str,
    query: Mapping[str, str],
    known_tags: str,
    edits: Edits | None = None,
) -> Response:
    """The transcript in one format, or 304 if the client has these bytes already.

    Args:
        store: all jobs.
        job: must be read before its segments. This function reads the segments.
        extension: one of `EXTENSIONS`.
        query: may override the job's options for subtitles. The header with warnings names the
            fields that have no effect.
        known_tags: the header If-None-Match.
        edits: the corrections. None leaves them out.
    """
    request = JobRequest.unpack(job.request)
    subtitles = reshaped(request.subtitles, query)
    corrected = None if wants_original(query) or edits is None else await edits.read(job.id)
    edited = corrected and corrected[1]
    records = [] if edited else await store.segments(job.id)
    speech = 0.0 if job.summary else await store.speech_seconds(job.id)
    chunks = [] if job.summary else await store.chunks_around_gaps(job.id)

    def write() -> tuple[bytes, tuple[str, ...]]:
        with paused():
            return rendered()

    def rendered() -> tuple[bytes, tuple[str, ...]]:
        if edited:
            segments = tuple(unpack(edited).segments())
        else:
            segments = tuple(unpack_segment(record) for record in records)
        gaps = find_gaps(chunks, request.chunk.max_gap, split=request.channels == "split")
        transcript = _transcript(job, request, segments, speech, gaps)
        text = formats.render(transcript, EXTENSIONS[extension], subtitles)
        return text.encode(), (*transcript.warnings, *_without_effect(query, extension))

    body, warnings = await _threads.run(job.owner, write)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "etag": tag,
        "cache-control": "private, no-cache",
        "content-disposition": attachment(job.name, extension)
        if job.name
        else f'attachment; filename="{job.id}.{extension}"',
        "x-job-state": job.state,
        "x-transcript-complete": "true" if job.state == SUCCEEDED else "false",
        **warning_header(warnings),
    }
    if matches(tag, known_tags):
        return Response(status_code=304, headers=headers)
    content_type = formats.FORMATS[EXTENSIONS[extension]].content_type
    return Response(body, media_type=content_type, headers=headers)


def wants_original(query: Mapping[str, str]) -> bool:
    """Whether the query asks for what the engine wrote.

    Raises:
        InvalidOption: the parameter is neither true nor false.
    """
    value = query.get(ORIGINAL, "false").lower()
    check(value in ("true", "1", "false", "0"), ORIGINAL, "must be true or false")
    return value in ("true", "1")


def _without_effect(query: Mapping[str, str], extension: str) -> Iterator[str]:
    names = {ORIGINAL, *(item.name for item in fields(SubtitleOptions))}
    for name in query:
        if name not in names:
            yield f"field {name!r} is not known and was ignored"
    for name in unused_subtitle_fields(query, EXTENSIONS[extension]):
        yield f"{name} has no effect on transcript.{extension}"


def matches(tag: str, known: str) -> bool:
    """Whether a client that sends `known` as If-None-Match has the version with this ETag."""
    tags = {item.strip().removeprefix("W/") for item in known.split(",")}
    return tag in tags or "*" in tags


def _transcript(
    job: Job,
    request: JobRequest,
    segments: tuple[Segment, ...],
    speech: float,
    gaps: tuple[Gap, ...],
) -> Transcript:
    """The complete transcript, or a partial one that ends where the job's progress ends."""
    if job.summary:
        whole = unpack_summary(job.summary, segments)
        return replace(whole, warnings=(*request.warnings, *whole.warnings))
    # Segments may be ahead of the progress, which was read before them.
    ends = [job.transcribed, *(segment.end for segment in segments)]
    if job.is_finished:  # no attempt will come as far as the gaps
        ends += [gap.end for gap in gaps]
    seconds = max(ends)
    note = f"the job is {job.state}: this is the transcript of its first {seconds:.1f} s"
    return Transcript(
        segments=segments,
        language=request.decode.language or UNKNOWN_LANGUAGE,
        duration=seconds,
        speech_seconds=speech,
        dropped_seconds=max(0.0, seconds - speech),
        engine=_engine(job),
        warnings=(*request.warnings, note),
        gaps=tuple(replace(it, end=min(it.end, seconds)) for it in gaps if it.start < seconds),
    )


def _engine(job: Job) -> str:
    return str(json.loads(job.summary)["engine"]) if job.summary else "unknown"
