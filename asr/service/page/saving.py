"""Receives a corrected transcript, has a child process check it, and stores it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from asr.errors import WorkerDied
from asr.service.errors import Conflict
from asr.service.files import finished_in_thread, temporary_folder, write_all
from asr.service.http.body import drain, pieces
from asr.service.http.problems import Problem
from asr.service.jobs.edit_check import MAX_TEXT_BYTES
from asr.service.jobs.edits import Outdated, Version
from asr.service.jobs.request import JobRequest
from asr.service.page.view import GZIP, length_of
from asr.service.threads import FairPlaces
from asr.workers.call import call
from asr.workers.pool import ProcessLimits, ProcessPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs

LIMITS: Final = ProcessLimits(cpu_seconds=60, memory_bytes=3 << 30)
SECONDS: Final = 120.0
_PIECE: Final = 1 << 20


class Saving:
    """Stores corrected transcripts.

    Args:
        jobs: all jobs.
        pool: children that have loaded `asr.service.jobs.edit_check`.
        run_dir: a folder for files of one request.
    """

    def __init__(self, jobs: Jobs, pool: ProcessPool, run_dir: Path) -> None:
        self._jobs = jobs
        self._pool = pool
        self._run_dir = run_dir
        self._places = FairPlaces(2)

    async def save(self, request: Request, job: Job) -> Response:
        """Answer a PUT.

        Raises:
            Problem: 400 the transcript is malformed, 409 the job has not ended, 412 somebody else
                saved first, 413 it is too long, 415 the coding is unknown, 428 without If-Match.
        """
        try:
            may_replace = checked(request, job)
            is_gzip = _is_gzip(request)
        except (Problem, Conflict):
            await drain(request)
            raise
        async with temporary_folder(self._run_dir) as folder:
            await _receive(request, folder / "body")
            digest = await self._check(job, folder, is_gzip=is_gzip)
            content = await asyncio.to_thread((folder / "checked").read_bytes)
        return await self._store(job, may_replace, digest, content)

    async def forget(self, request: Request, job: Job) -> Response:
        """Answer a DELETE: the transcript is what the engine wrote again.

        Raises:
            Problem: as `save`.
        """
        return await self._store(job, checked(request, job))

    async def _store(
        self,
        job: Job,
        may_replace: Callable[[Version], bool],
        digest: str = "",
        content: bytes | None = None,
    ) -> Response:
        edits = self._jobs.edits
        try:
            version = await edits.save(job.owner, job.id, may_replace, digest, content)
        except Outdated as outdated:
            message = "If-Match: somebody else has saved this transcript; get it and try again"
            headers = {"etag": f'"{outdated.current.tag}"'}
            raise Problem(412, message, "transcript_changed", "If-Match", headers=headers) from None
        body = {
            "object": "transcript.saved",
            "job": job.id,
            "edited": version.is_edited,
            "revision": version.revision,
        }
        return JSONResponse(body, headers={"etag": f'"{version.tag}"'})

    async def _check(self, job: Job, folder: Path, *, is_gzip: bool) -> str:
        """Have a child check the body; returns the digest of the transcript to store."""
        request = {
            "body": str(folder / "body"),
            "target": str(folder / "checked"),
            "is_gzip": is_gzip,
            "seconds": round(length_of(job), 3),
            "channels": await self._channels(job),
        }
        function = "asr.service.jobs.edit_check:check_job"
        async with self._places.place(job.owner):
            try:
                answer = await call(self._pool, function, request, b"", LIMITS, SECONDS)
            except WorkerDied as error:
                if not error.out_of_memory and error.signal is None:
                    raise
                raise _too_large() from error
            except TimeoutError:
                raise _too_large() from None
        if "digest" not in answer:
            code = "too_large" if answer["status"] == 413 else "invalid_value"
            raise Problem(answer["status"], answer["message"], code, answer["param"])
        return str(answer["digest"])

    async def _channels(self, job: Job) -> dict[str, int]:
        """For each speaker of separate channels, the channel."""
        if JobRequest.unpack(job.request).channels != "split":
            return {}
        records = await self._jobs.store.segments(job.id)
        return await asyncio.to_thread(_channels_in, records)


def _channels_in(records: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for segment in map(json.loads, records):
        if segment["speaker"] is not None and segment["channel"] is not None:
            found.setdefault(segment["speaker"], segment["channel"])
    return found


def checked(request: Request, job: Job) -> Callable[[Version], bool]:
    """Whether the client may replace a version.

    Raises:
        Problem: 409 the job has not ended, 428 the client names no version.
    """
    if not job.is_finished:
        message = f"the job is {job.state}: a transcript can be corrected when its job has ended"
        raise Problem(409, message, "job_not_finished", "id")
    known = request.headers.get("if-match", "")
    if not known.strip():
        message = "If-Match: send the ETag of the transcript that you have changed"
        raise Problem(428, message, "if_match_required", "If-Match")
    if known.strip() == "*":
        return lambda _: True
    tags = {tag.strip() for tag in known.split(",")}
    # A weak tag never matches (RFC 9110). The tag of a compressed answer names the same version.
    return lambda version: bool({f'"{version.tag}"', f'"{version.tag}{GZIP}"'} & tags)


def _is_gzip(request: Request) -> bool:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("gzip", "x-gzip", "identity", ""):
        message = "Content-Encoding: only gzip is understood"
        headers = {"accept-encoding": "gzip"}
        raise Problem(415, message, "unsupported_body", "Content-Encoding", headers=headers)
    return coding.endswith("gzip")


async def _receive(request: Request, target: Path) -> None:
    """Write the body to a file as it arrives."""
    n_bytes, collected = 0, bytearray()
    with target.open("wb", buffering=0) as file:
        async for piece in pieces(request):
            n_bytes += len(piece)
            if n_bytes > MAX_TEXT_BYTES:
                await drain(request)
                raise _too_large()
            collected += piece
            if len(collected) >= _PIECE:
                await finished_in_thread(write_all, file, bytes(collected))
                collected.clear()
        await finished_in_thread(write_all, file, bytes(collected))


def _too_large() -> Problem:
    message = f"the transcript is too large: send at most {MAX_TEXT_BYTES} bytes of JSON"
    return Problem(413, message, "too_large")


def saved_schema() -> dict[str, Any]:
    """The answer in the OpenAPI document."""
    properties = {
        "object": {"type": "string", "const": "transcript.saved"},
        "job": {"type": "string"},
        "edited": {"type": "boolean"},
        "revision": {"type": "integer"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
