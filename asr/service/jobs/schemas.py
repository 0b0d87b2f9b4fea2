"""The response bodies of the job routes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from asr.output.formats import EXTENSIONS
from asr.output.numbers import rounded
from asr.service.jobs.request import JobRequest
from asr.service.transcriptions.bodies import (  # noqa: TC001  # pydantic looks them up
    ErrorDetail,
    GapBody,
)

if TYPE_CHECKING:
    from asr.service.jobs.rows import Job


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProgressBody(_Answer):
    """The progress of a job, in seconds of audio."""

    transcribed: float = Field(description="Everything before this time is in the transcript.")
    decoded: float
    total: float | None = Field(
        description="The length in the recording's header; after decoding, the real length."
    )


class RecordingBody(_Answer):
    """The recording of a job."""

    kept: bool = Field(description="It stays until the job is deleted or expires.")
    seconds: float | None = Field(description="Its length; null until it is decoded.")


class JobBody(_Answer):
    """A job."""

    id: str
    object: Literal["transcription.job"] = "transcription.job"
    name: str | None = Field(description="The file name that the client sent.")
    metadata: dict[str, str] = Field(description="What the client sent with the job.")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    created_at: float = Field(description="Seconds since 1970.")
    started_at: float | None
    finished_at: float | None
    progress: ProgressBody
    rtfx: float | None = Field(description="Seconds of audio transcribed per second of work.")
    attempts: int = Field(description="More than 1 after a failed attempt or a restart.")
    n_bytes: int
    sha256: str = Field(description="Of the recording.")
    recording: RecordingBody
    engine: str | None = Field(description="Null until the job is done.")
    language: str | None
    warnings: list[str]
    gaps: list[GapBody] = Field(
        description="What could not be transcribed; empty until the job is done."
    )
    error: ErrorDetail | None
    urls: dict[str, str]


class JobList(_Answer):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[JobBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedJob(_Answer):
    """The answer to a DELETE."""

    id: str
    object: Literal["transcription.job"] = "transcription.job"
    deleted: Literal[True] = True


def job_body(job: Job, prefix: str) -> dict[str, Any]:
    """A `JobBody` as plain values.

    Args:
        job: the job.
        prefix: the path under which the service is published; all URLs begin with it.
    """
    request = JobRequest.unpack(job.request)
    summary = json.loads(job.summary) if job.summary else {}
    rtfx = job.transcribed / job.work_seconds if job.work_seconds else None
    return {
        "id": job.id,
        "object": "transcription.job",
        "name": job.name,
        "metadata": json.loads(job.metadata) if job.metadata else {},
        "state": job.state,
        "created_at": rounded(job.created),
        "started_at": rounded(job.started),
        "finished_at": rounded(job.finished),
        "progress": progress_body(job),
        "rtfx": rounded(rtfx),
        "attempts": job.attempts,
        "n_bytes": job.n_bytes,
        "sha256": job.sha256,
        "recording": {"kept": job.keeps_recording, "seconds": rounded(_seconds(job))},
        "engine": summary.get("engine"),
        "language": summary.get("language") or request.decode.language,
        "warnings": [*request.warnings, *summary.get("warnings", [])],
        "gaps": [_rounded(gap) for gap in summary.get("gaps", [])],
        "error": json.loads(job.error) if job.error else None,
        "urls": _urls(job.id, prefix),
    }


def _seconds(job: Job) -> float | None:
    """The length of the recording: of a job that succeeded, or as far as it is decoded."""
    if job.summary:
        return float(json.loads(job.summary)["duration"])
    return job.decoded or None


def progress_body(job: Job) -> dict[str, Any]:
    """A `ProgressBody` as plain values."""
    return {
        "transcribed": rounded(job.transcribed),
        "decoded": rounded(job.decoded),
        "total": rounded(job.total),
    }


def _rounded(gap: dict[str, Any]) -> dict[str, Any]:
    return gap | {"start": rounded(gap["start"]), "end": rounded(gap["end"])}


def _urls(job: str, prefix: str) -> dict[str, str]:
    own = f"{prefix}/v1/jobs/{job}"
    transcripts = {extension: f"{own}/transcript.{extension}" for extension in EXTENSIONS}
    return {"self": own, "events": f"{own}/events", **transcripts}
