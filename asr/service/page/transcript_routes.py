"""The routes of a job's transcript for the page: read, save, forget, realign."""

from __future__ import annotations

import asyncio
import json
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request  # noqa: TC002  # FastAPI looks it up by its name
from starlette.responses import JSONResponse, Response

from asr import pcm
from asr.errors import AsrError
from asr.service.files import temporary_folder
from asr.service.http.body import drain, pieces
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem
from asr.service.jobs.description import ORIGINAL_PARAMETER, errors
from asr.service.jobs.documents import wants_original
from asr.service.jobs.edit_check import (
    MAX_SEGMENT_TEXT,
    Refused,
    check_words,
    clean_text,
    span_of,
)
from asr.service.jobs.routes import JobId  # noqa: TC001  # as above
from asr.service.litserve.messages import AlignWords
from asr.service.page.realign import MAX_WORDS, Line, realign
from asr.service.page.saving import Saving, saved_schema
from asr.service.page.view import length_of, transcript
from asr.service.threads import FairPlaces
from asr.types import Word

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asr.service.jobs.rows import Job
    from asr.service.jobs.service import Jobs
    from asr.service.litserve.client import WorkerClient
    from asr.service.page.media import Media

MAX_LINE_BYTES: Final = 256 << 10
"""The body of a request to realign. A parser holds the lock of the interpreter meanwhile."""
ALIGN_SECONDS: Final = 60.0
PATH: Final = "/{job_id}/transcript"


class PageWord(BaseModel):
    """A word as the page shows and sends it."""

    model_config = ConfigDict(extra="allow")

    word: str
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    confidence: float | None = None
    timing: str = Field("edited", description="aligned, engine, interpolated or edited.")
    doubtful: bool = Field(False, description="The witness doubts it, and nobody has accepted it.")


class PageSegment(BaseModel):
    """A segment as the page shows and sends it."""

    model_config = ConfigDict(extra="allow")

    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    text: str
    speaker: str | None = None
    channel: int | None = Field(None, description="If it is not sent, that of the speaker.")
    words: list[PageWord]
    line: bool = Field(False, description="It is one subtitle cue, with its own line breaks.")
    doubts: list[str] = Field([], description="Why the segment is doubtful.")


class PageTranscript(BaseModel):
    """A corrected transcript as a client sends it."""

    segments: list[PageSegment]
    speakers: dict[str, str] = Field({}, description="Names of speakers, such as A: Anna.")


class PageLine(BaseModel):
    """A line to realign."""

    words: list[PageWord] = Field(description="As they were.")
    text: str = Field(description="As it is now.")
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")


class Aligner:
    """Aligns words of a kept recording in the worker.

    Args:
        client: sends commands to the worker.
        media: the recordings.
        run_dir: a folder for files of one request.
    """

    def __init__(self, client: WorkerClient, media: Media, run_dir: Path) -> None:
        self._client = client
        self._media = media
        self._run_dir = run_dir
        self.places = FairPlaces(2)

    async def align(
        self, job: Job, start: float, end: float, texts: Sequence[str]
    ) -> Sequence[Word] | None:
        """The words with times of the recording; None if they cannot be aligned."""
        try:
            samples = await self._media.samples(job, start, end)
            async with temporary_folder(self._run_dir) as folder:
                source = folder / "span.pcm"
                await asyncio.to_thread(source.write_bytes, pcm.to_bytes(samples))
                command = AlignWords(uuid.uuid4().hex, source, tuple(texts))
                async with asyncio.timeout(ALIGN_SECONDS):
                    found = await self._client.align_words(command)
        except (AsrError, Problem, TimeoutError):
            return None
        return [_moved(word, start) for word in found]


def _moved(word: Word, start: float) -> Word:
    return Word(word.text, start + word.start, start + word.end, word.confidence, word.timing)


def add_transcript_routes(router: APIRouter, jobs: Jobs, saving: Saving, aligner: Aligner) -> None:
    """Add all routes of transcripts."""
    _add_reading(router, jobs)
    _add_saving(router, jobs, saving)
    _add_realign(router, jobs, aligner)


def _add_reading(router: APIRouter, jobs: Jobs) -> None:
    @router.get(
        PATH,
        summary="The transcript with its corrections, word by word",
        response_class=Response,
        responses={
            200: {"description": "The transcript", "content": _json(_SHOWN)},
            304: {"description": "not modified since the ETag"},
            **errors(400, 404),
        },
        openapi_extra={"parameters": [ORIGINAL_PARAMETER]},
    )
    async def get_page_transcript(request: Request, job_id: JobId) -> Response:
        """While the job runs, `complete` is false and the segments so far are there.

        Send the ETag back in If-Match when you save a correction.
        """
        original = wants_original(request.query_params)
        job = await jobs.find(owner_of(request), job_id)
        return await transcript(jobs, job, request, original=original)


def _add_saving(router: APIRouter, jobs: Jobs, saving: Saving) -> None:
    match = Header(None, alias="If-Match", description="The ETag of the version that you changed.")

    @router.put(
        PATH,
        summary="Save the corrected transcript",
        response_class=Response,
        responses={
            200: {"description": "Saved", "content": _json(saved_schema())},
            **errors(400, 404, 409, 412, 413, 415, 428),
        },
        openapi_extra={
            "requestBody": {"required": True, "content": _json(_schema(PageTranscript))}
        },
    )
    async def save_transcript(
        request: Request,
        job_id: JobId,
        if_match: str | None = match,  # noqa: ARG001  # described here, and read with the headers
    ) -> Response:
        """Send the whole transcript, perhaps as gzip. The answer has its new ETag.

        If somebody else saved first, the answer is 412 with the current ETag.
        """
        job = await _found(request, jobs, job_id)
        return await saving.save(request, job)

    @router.delete(
        PATH,
        summary="Forget the corrections",
        response_class=Response,
        responses={
            200: {"description": "Forgotten", "content": _json(saved_schema())},
            **errors(404, 409, 412, 428),
        },
    )
    async def forget_corrections(
        request: Request,
        job_id: JobId,
        if_match: str | None = match,  # noqa: ARG001  # as above
    ) -> Response:
        """The transcript is what the engine wrote again."""
        job = await _found(request, jobs, job_id)
        return await saving.forget(request, job)


async def _found(request: Request, jobs: Jobs, job_id: str) -> Job:
    try:
        return await jobs.find(owner_of(request), job_id)
    except AsrError:
        await drain(request)
        raise


def _add_realign(router: APIRouter, jobs: Jobs, aligner: Aligner) -> None:
    @router.post(
        "/{job_id}/realign",
        summary="Times for the changed words of a line",
        response_class=Response,
        responses={
            200: {"description": "The words", "content": _json(_schema(PageWords))},
            **errors(400, 404, 413),
        },
        openapi_extra={"requestBody": {"required": True, "content": _json(_schema(PageLine))}},
    )
    async def realign_line(request: Request, job_id: JobId) -> Response:
        """Words that did not change keep their times.

        The others are aligned with the audio between them. Without a recording their times are
        estimates, and `timing` is interpolated.
        """
        job = await _found(request, jobs, job_id)
        line, text = await _read_line(request, job)
        async with aligner.places.place(job.owner):
            words = await realign(line, text, partial(aligner.align, job))
        return JSONResponse({"words": words})


async def _read_line(request: Request, job: Job) -> tuple[Line, str]:
    data = bytearray()
    async for piece in pieces(request):
        data += piece
        if len(data) > MAX_LINE_BYTES:
            await drain(request)
            raise Problem(413, f"a line may have {MAX_LINE_BYTES} bytes of JSON", "too_large")
    try:
        return await asyncio.to_thread(_parse_line, bytes(data), length_of(job))
    except Refused as refused:
        raise Problem(refused.status, str(refused), "invalid_value", refused.param) from None


def _parse_line(data: bytes, seconds: float) -> tuple[Line, str]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object with words, text, start and end")
    span = span_of(body, "", 0.0, seconds, "the recording")
    words = body.get("words")
    if not isinstance(words, list) or len(words) > MAX_WORDS:
        raise Refused(f"words: must be a list of at most {MAX_WORDS} words", "words")
    text = clean_text(body.get("text"), "text", MAX_SEGMENT_TEXT)
    if len(text.split()) > MAX_WORDS:
        raise Refused(f"text: at most {MAX_WORDS} words", "text")
    return Line(check_words(words, "", span), *span), text


# --- OpenAPI ------------------------------------------------------------------------------------


class PageWords(BaseModel):
    """The words of a line."""

    words: list[PageWord]


_SHOWN: Final = {
    "type": "object",
    "required": ["object", "job", "edited", "revision", "segments", "speakers", "complete"],
    "properties": {
        "object": {"type": "string", "const": "transcript"},
        "job": {"type": "string"},
        "state": {"type": "string"},
        "complete": {"type": "boolean"},
        "edited": {"type": "boolean"},
        "revision": {"type": "integer", "description": "The number of changes so far."},
        "duration": {"type": "number", "description": "Seconds."},
        "language": {"type": ["string", "null"]},
        "engine": {"type": ["string", "null"]},
        "gaps": {"type": "array", "items": {"type": "object"}},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "speakers": {"type": "object", "additionalProperties": {"type": "string"}},
        "segments": {"type": "array", "items": {"type": "object"}},
    },
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model, with each ``$ref`` replaced by what it refers to."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(parts[value["$ref"].rpartition("/")[2]])
            return {key: inlined(item) for key, item in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = inlined(schema)
    return found
