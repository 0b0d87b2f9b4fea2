"""``/v1/speakers``: the stored voices of a key."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path as PathField
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request  # noqa: TC002  # FastAPI evaluates the annotation
from starlette.responses import JSONResponse, Response

from asr.config import MAX_NAME, check
from asr.errors import AsrError
from asr.service.access.admission import Admission
from asr.service.files import temporary_folder
from asr.service.http.body import Body, drain, receive_body
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem
from asr.service.speakers.store import check_name
from asr.speakers.enrolment import LIMITS
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from pathlib import Path

    from asr.service.speakers.known import KnownSpeakers
    from asr.service.speakers.store import StoredVoice, VoiceStore
    from asr.settings import Settings

Name = Annotated[str, PathField(description="The name of the speaker.", max_length=MAX_NAME)]
AT_ONCE: Final = 2
MAX_WAITING: Final = 16
"""Recordings of voices that are embedded at once, and those that may wait."""


class SpeakerBody(BaseModel):
    """A stored voice. The embedding itself is never sent."""

    model_config = ConfigDict(extra="forbid")

    object: str = "speaker"
    name: str
    seconds: float = Field(description="Seconds of speech from which the voice was made.")
    model: str = Field(description="The speaker model. Voices of another one must be stored again.")
    created_at: int = Field(description="Unix time.")


class SpeakerList(BaseModel):
    """All stored voices of a key."""

    model_config = ConfigDict(extra="forbid")

    object: str = "list"
    data: list[SpeakerBody]


class DeletedSpeaker(BaseModel):
    """The answer to a deletion."""

    model_config = ConfigDict(extra="forbid")

    object: str = "speaker"
    name: str
    deleted: bool = True


_UPLOAD: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }
        },
        "audio/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


def make_speaker_router(known: KnownSpeakers, settings: Settings, run_dir: Path) -> APIRouter:
    """The routes of stored voices.

    Args:
        known: embeds and stores.
        settings: of the service.
        run_dir: the folder for the files of requests.
    """
    router = APIRouter(prefix="/v1/speakers")
    enrolment = _Enrolment(known, settings, run_dir)
    _add_reading_routes(router, known.store)

    @router.put(
        "/{name}",
        summary="Store a voice",
        response_model=SpeakerBody,
        openapi_extra={"requestBody": _UPLOAD},
        responses={201: {"model": SpeakerBody}},
    )
    async def store_speaker(request: Request, name: Name) -> Response:
        """Send a recording of this person alone, best 10 s or more of speech.

        Only an embedding is stored. A voice of the same name is replaced.
        """
        return await enrolment.store(request, name)

    return router


def _add_reading_routes(router: APIRouter, store: VoiceStore) -> None:
    @router.get("", summary="The stored voices", response_model=SpeakerList)
    async def speakers(request: Request) -> Response:
        """Each key sees its own voices only."""
        found = await asyncio.to_thread(store.all, owner_of(request))
        return JSONResponse(SpeakerList(data=[_body(it) for it in found]).model_dump())

    @router.get("/{name}", summary="A stored voice", response_model=SpeakerBody)
    async def speaker(request: Request, name: Name) -> Response:
        found = await asyncio.to_thread(store.get, owner_of(request), name)
        return JSONResponse(_body(found).model_dump())

    @router.delete("/{name}", summary="Delete a stored voice", response_model=DeletedSpeaker)
    async def delete_speaker(request: Request, name: Name) -> Response:
        await asyncio.to_thread(store.delete, owner_of(request), name)
        return JSONResponse(DeletedSpeaker(name=name).model_dump())


class _Enrolment:
    """Receives recordings of voices and stores their embeddings."""

    def __init__(self, known: KnownSpeakers, settings: Settings, run_dir: Path) -> None:
        self._known = known
        self._settings = settings
        self._run_dir = run_dir
        self._admission = Admission(AT_ONCE, MAX_WAITING)

    async def store(self, request: Request, name: str) -> Response:
        """Answer a request to store a voice.

        Raises:
            AsrError: the name or the recording cannot be used, or there is no speaker model.
            Problem: 400, the body is wrong.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                check_name(name)
                reason = obstacle(self._settings.speaker_model)
                check(not reason, "speakers", reason)
                stack.enter_context(self._admission.place(owner_of(request)))
            except AsrError:
                await drain(request)
                raise
            folder = await stack.enter_async_context(temporary_folder(self._run_dir))
            return await self._receive(request, name, folder)

    async def _receive(self, request: Request, name: str, folder: Path) -> Response:
        target, owner = folder / "voice", owner_of(request)
        body = await _received(request, target, self._settings.max_upload_bytes)
        if not body.has_file:
            message = "file: the recording is missing; send a file"
            raise Problem(400, message, "invalid_value", "file")
        async with self._admission.turn(owner):
            voice = await self._known.embed(target, name, folder)
        put, model = self._known.store.put, self._known.model
        stored, is_new = await asyncio.to_thread(put, owner, voice, model)
        return JSONResponse(_body(stored).model_dump(), 201 if is_new else 200)


async def _received(request: Request, target: Path, max_upload_bytes: int) -> Body:
    """Receive a recording within the limit of voices, or of all uploads if that is lower."""
    try:
        return await receive_body(request, target, min(LIMITS.max_bytes, max_upload_bytes))
    except Problem as error:
        if error.code != "too_large" or max_upload_bytes < LIMITS.max_bytes:
            raise
        message = f"file: the recording of a voice may have at most {LIMITS.max_bytes >> 20} MiB"
        raise Problem(413, message, error.code, "file") from error


def _body(stored: StoredVoice) -> SpeakerBody:
    voice = stored.voice
    return SpeakerBody(
        name=voice.name,
        seconds=voice.seconds,
        model=stored.model,
        created_at=int(stored.created_at),
    )
