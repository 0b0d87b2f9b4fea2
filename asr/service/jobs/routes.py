"""The HTTP routes of jobs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request  # noqa: TC002  # FastAPI looks it up by its name
from starlette.responses import JSONResponse, Response

from asr.config import check
from asr.errors import InvalidOption
from asr.output.formats import EXTENSIONS
from asr.service.errors import NotFound
from asr.service.http.disconnect import client_left
from asr.service.http.middleware import owner_of
from asr.service.http.proxy import public_path
from asr.service.http.sse import EventStream
from asr.service.jobs.description import (
    EVENTS,
    IDEMPOTENCY_KEY,
    LAST_EVENT,
    METADATA_PARAMETER,
    creation_body,
    errors,
    subtitle_parameters,
    transcripts,
)
from asr.service.jobs.documents import document
from asr.service.jobs.labels import is_label, read_metadata
from asr.service.jobs.schemas import (
    DeletedJob,
    JobBody,
    JobList,
    job_body,
)
from asr.service.jobs.stream import follow

if TYPE_CHECKING:
    from asr.service.jobs.service import Jobs

FILTERS: Final = ("limit", "after", "state", "name")
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobId = Annotated[str, Path(description="The id of a job.")]
Extension = Annotated[str, Path(description="srt, vtt, json, txt or tsv.")]


def make_job_router(jobs: Jobs) -> APIRouter:
    """All routes under /v1/jobs."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    _add_creation(router, jobs)
    _add_records(router, jobs)
    _add_contents(router, jobs)
    _add_cancellation(router, jobs)
    return router


def _add_creation(router: APIRouter, jobs: Jobs) -> None:
    @router.post(
        "",
        summary="Transcribe a recording in the background",
        status_code=202,
        response_model=JobBody,
        responses={200: {"model": JobBody}, **errors(400, 404, 408, 409, 410, 413, 422, 429)},
        openapi_extra={"requestBody": creation_body(), "parameters": [IDEMPOTENCY_KEY]},
    )
    async def create_job(request: Request) -> Response:
        """Answer 202 with a new job, or 200 with the existing job for the same request."""
        job, is_new = await jobs.create(request)
        body = job_body(job, public_path(request, ""))
        return JSONResponse(body, 202 if is_new else 200, {"location": body["urls"]["self"]})


def _check_filters(request: Request) -> None:
    """Refuse what a list would ignore, because a client would take the result for filtered.

    Raises:
        InvalidOption: a parameter is not known, or was sent more than once.
    """
    names = [name for name, _ in request.query_params.multi_items() if not is_label(name)]
    for name in names:
        known = ", ".join(FILTERS)
        check(name in FILTERS, name[:64], f"is no filter; send {known} or metadata[KEY]")
        check(names.count(name) == 1, name, "sent more than once")


def _add_records(router: APIRouter, jobs: Jobs) -> None:
    @router.get(
        "",
        summary="Jobs, newest first",
        response_model=JobList,
        responses=errors(400),
        openapi_extra={"parameters": [METADATA_PARAMETER]},
    )
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
        state: State | None = None,
        name: Annotated[str, Query(description="A part of the file name.")] = "",
    ) -> Response:
        """Jobs whose name contains `name`, in upper or lower case, and that have all `metadata`.

        Send metadata as `metadata[key]=value`.
        """
        _check_filters(request)
        wanted = read_metadata(request.query_params.multi_items())
        found = await jobs.store.page(
            owner_of(request), limit + 1, after, state, name=name, metadata=wanted
        )
        prefix = public_path(request, "")
        page = [job_body(job, prefix) for job in found[:limit]]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        more = len(found) > limit
        ids = {"first_id": first, "last_id": last, "has_more": more}
        return JSONResponse({"object": "list", "data": page, **ids})

    @router.get("/{job_id}", summary="A job", response_model=JobBody, responses=errors(404))
    async def get_job(request: Request, job_id: JobId) -> Response:
        job = await jobs.find(owner_of(request), job_id)
        return JSONResponse(job_body(job, public_path(request, "")))


def _add_contents(router: APIRouter, jobs: Jobs) -> None:
    @router.get(
        "/{job_id}/events",
        summary="The events of a job, as server-sent events",
        response_class=Response,
        responses={**EVENTS, **errors(400, 404)},
        openapi_extra={"parameters": [LAST_EVENT]},
    )
    async def get_events(request: Request, job_id: JobId) -> Response:
        """Send Last-Event-ID to continue where another connection ended.

        The answer is 204 if that was the last event, so that an EventSource does not connect again.
        """
        job = await jobs.find(owner_of(request), job_id)
        seen = request.headers.get("last-event-id", "")
        if seen and not (seen.isascii() and seen.isdecimal() and len(seen) < 10):
            raise InvalidOption("Last-Event-ID", "must be the id of an event of this job")
        n_seen = int(seen or 0)
        if n_seen and job.is_finished and n_seen > await jobs.store.n_segments(job.id):
            return Response(status_code=204)
        events = follow(jobs, job, n_seen, public_path(request, ""))
        return EventStream(events, AsyncExitStack(), partial(client_left, request))

    @router.get(
        "/{job_id}/transcript.{extension}",
        summary="The transcript, complete or partial",
        response_class=Response,
        responses={**transcripts(), **errors(400, 404)},
        openapi_extra={"parameters": subtitle_parameters()},
    )
    async def get_transcript(request: Request, job_id: JobId, extension: Extension) -> Response:
        """The header `x-transcript-complete` tells whether the transcript is complete.

        The query may override the job's options for subtitles. The transcript is the corrected one,
        if there is one.
        """
        if extension not in EXTENSIONS:
            message = f"there is no transcript.{extension}: ask for {', '.join(EXTENSIONS)}"
            raise NotFound(message, "no_such_format", "extension")
        job = await jobs.find(owner_of(request), job_id)
        tags = request.headers.get("if-none-match", "")
        return await document(jobs.store, job, extension, request.query_params, tags, jobs.edits)


def _add_cancellation(router: APIRouter, jobs: Jobs) -> None:
    @router.post(
        "/{job_id}/cancel",
        summary="Cancel a job and keep its partial transcript",
        response_model=JobBody,
        responses=errors(404),
    )
    async def cancel_job(request: Request, job_id: JobId) -> Response:
        job = await jobs.cancel(owner_of(request), job_id)
        return JSONResponse(job_body(job, public_path(request, "")))

    @router.delete(
        "/{job_id}",
        summary="Cancel and delete a job",
        response_model=DeletedJob,
        responses=errors(404),
    )
    async def delete_job(request: Request, job_id: JobId) -> Response:
        job = await jobs.delete(owner_of(request), job_id)
        body = DeletedJob(id=job.id).model_dump()
        return JSONResponse(body)
