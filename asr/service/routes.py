"""The HTTP routes: take the body, wait for a turn, follow the worker, answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from asr import formats
from asr.errors import WorkerDied
from asr.pipeline import Event
from asr.service.admission import Admission
from asr.service.events import EventStream, to_sse
from asr.service.intake import MAX_FIELD_BYTES, drain, receive_body
from asr.service.litapi import Ask, EngineState, Transcribe
from asr.service.middleware import origin_of, owner_of
from asr.service.problems import Problem
from asr.service.schemas import (
    AlignmentForm,
    ErrorBody,
    TranscriptBody,
    TranscriptionForm,
    parse_fields,
    transcription_body,
)
from asr.service.sharing import Caller, Sharing, Work
from asr.types import Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine

    from asr.config import Settings
    from asr.service.litapi import Happening
    from asr.service.schemas import TranscriptionRequest
    from asr.service.spec import TranscriptionSpec

logger = logging.getLogger(__name__)

READY_SECONDS = 3.0
MAX_TEXT_BYTES = 8_000_000
T = TypeVar("T")


class Service:
    """What the routes share in one API process.

    Args:
        spec: the way to the worker.
        settings: of the service.
        run_dir: where the files of requests lie while they are in work.
    """

    def __init__(self, spec: TranscriptionSpec, settings: Settings, run_dir: Path) -> None:
        self._spec = spec
        self._settings = settings
        self._run_dir = run_dir
        self._admission = Admission(settings.max_active_requests, settings.max_waiting_requests)
        self._sharing = Sharing()
        self._closing = asyncio.Event()  # requests that wait are refused
        self._closed = asyncio.Event()  # requests in work are refused too

    async def close(self) -> None:
        """Refuse what waits at once, and what is in work after the grace period."""
        self._closing.set()
        await asyncio.sleep(self._settings.shutdown_grace)
        self._closed.set()
        await self._sharing.close()

    async def engine_state(self) -> EngineState:
        """How the engine is, asked of the worker itself."""
        name = self._settings.engine_name
        with contextlib.suppress(TimeoutError):
            state = await asyncio.wait_for(self._spec.ask(Ask()), READY_SECONDS)
            if isinstance(state, EngineState):
                return state
        return EngineState(name, name, ready=False, reason="the recogniser process is starting")

    def counts(self) -> dict[str, float]:
        """Recordings by state: active, waiting."""
        return self._admission.counts()

    async def transcribe(
        self, request: Request, kind: type[TranscriptionForm] = TranscriptionForm
    ) -> Response:
        """Answer ``POST /v1/audio/transcriptions``, or ``/v1/align`` by its form."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                if self._closing.is_set():
                    raise _shutting_down()
                stack.enter_context(self._admission.place())
            except Problem:
                await drain(request)
                raise
            files = await stack.enter_async_context(contextlib.AsyncExitStack())
            folder = await asyncio.to_thread(tempfile.mkdtemp, dir=self._run_dir)
            files.push_async_callback(asyncio.to_thread, shutil.rmtree, folder, ignore_errors=True)
            checked = await self._receive(request, Path(folder), kind)
            events = await self._join(request, checked, Path(folder), stack, files)
            started = await self._unless_ended(request, _start(events), self._closed)
            if checked.stream:
                sse = to_sse(self._until_closed(started), checked.warnings)
                return EventStream(sse, stack.pop_all())
            transcript = await self._unless_ended(request, _collect(started), self._closed)
            return await asyncio.to_thread(_answer, transcript, checked)

    async def _join(
        self,
        request: Request,
        checked: TranscriptionRequest,
        folder: Path,
        stack: contextlib.AsyncExitStack,
        files: contextlib.AsyncExitStack,
    ) -> AsyncGenerator[Happening]:
        """The events of new work, or of that which an earlier sending of the request began.

        Args:
            request: which may be sent again.
            checked: its fields.
            folder: its files.
            stack: what the request holds.
            files: what the work holds, which may outlive the request.
        """
        caller = Caller(request, owner_of(request))
        if not caller.may_repeat:
            return await self._begin(request, checked, folder, stack)
        mark = await asyncio.to_thread(caller.fingerprint, folder / "upload", checked)
        work = self._sharing.find(mark) if caller.is_repeated else None
        if work is None:
            events = await self._begin(request, checked, folder, files)
            work = Work(events, files.pop_all())
            self._sharing.add(mark, work)
        await stack.enter_async_context(self._sharing.following(work, caller))
        return await stack.enter_async_context(contextlib.aclosing(work.follow()))

    async def _begin(
        self,
        request: Request,
        checked: TranscriptionRequest,
        folder: Path,
        holder: contextlib.AsyncExitStack,
    ) -> AsyncGenerator[Happening]:
        turn = holder.enter_async_context(self._admission.turn())
        await self._unless_ended(request, turn, self._closing)
        command = Transcribe(
            uuid.uuid4().hex,
            f"{folder}/upload",
            str(folder),
            checked.options,
            "" if checked.text is None else f"{folder}/text",
            **origin_of(request),
        )
        following = contextlib.aclosing(self._spec.transcribe(command))
        return await holder.enter_async_context(following)

    async def _receive(
        self, request: Request, folder: Path, kind: type[TranscriptionForm]
    ) -> TranscriptionRequest:
        limit = self._settings.max_upload_bytes
        longest = MAX_TEXT_BYTES if kind is AlignmentForm else MAX_FIELD_BYTES
        body = await receive_body(request, folder / "upload", limit, longest)
        checked = parse_fields(body.fields, self._settings.vad, self._settings.limits, kind)
        if not body.has_file:
            raise Problem(400, "file: the recording is missing", "invalid_value", "file")
        if checked.text is not None:
            await asyncio.to_thread((folder / "text").write_text, checked.text, encoding="utf-8")
        return checked

    async def _unless_ended(
        self, request: Request, work: Coroutine[Any, Any, T], ended: asyncio.Event
    ) -> T:
        """Wait for `work`, unless the client leaves or the service ends.

        Raises:
            ClientDisconnect: the client left.
            Problem: 503, the service ends.
        """
        task = asyncio.create_task(work)
        left = asyncio.create_task(_client_left(request))
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({task, left, ending}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ClientDisconnect if left.done() else _shutting_down()
        finally:
            for unfinished in (task, left, ending):
                unfinished.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    async def _until_closed(self, events: AsyncIterator[Happening]) -> AsyncGenerator[Happening]:
        async for event in events:  # heartbeats come every second, so this looks often enough
            if self._closed.is_set():
                raise _shutting_down()
            yield event


def _shutting_down() -> Problem:
    return Problem(503, "the service is shutting down", "shutting_down", None, 5)


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _start(
    events: AsyncGenerator[Happening],
) -> AsyncGenerator[Happening]:
    """Wait for the first real event, so that bad audio is told by the status of the answer."""
    first = await anext(events)
    while not isinstance(first, Event):
        first = await anext(events)

    async def replay() -> AsyncGenerator[Happening]:
        yield first
        async for event in events:
            yield event

    return replay()


async def _collect(events: AsyncGenerator[Happening]) -> Transcript:
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Transcript):
                return event
    raise WorkerDied("the recogniser process ended without a transcript")


def _answer(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """The transcript in the format that was asked for."""
    transcript = replace(transcript, warnings=(*request.warnings, *transcript.warnings))
    match request.response_format:
        case "json":
            return JSONResponse(formats.to_openai_json(transcript))
        case "verbose_json":
            return JSONResponse(formats.to_verbose_json(transcript, request.granularities))
        case "diarized_json":
            return JSONResponse(formats.to_diarized_json(transcript))
        case "full_json":
            body = formats.render(transcript, "json")
            return Response(body, media_type="application/json")
        case name:
            body = formats.render(transcript, name, request.subtitles)
            return Response(body, media_type=formats.FORMATS[name].content_type)


def make_router(service: Service) -> APIRouter:
    """All routes of this service."""
    router = APIRouter()
    _add_audio_routes(router, service)

    @router.get("/health", summary="Whether the service is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Whether the engine is loaded", response_model=None)
    async def ready() -> Response:
        state = await service.engine_state()
        body = {"status": "ready" if state.ready else "loading", "engine": state.name}
        if state.ready:
            return JSONResponse(body)
        return JSONResponse(body | {"reason": state.reason}, 503, {"retry-after": "1"})

    @router.get("/v1/models", summary="The engine, as OpenAI lists models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(await service.engine_state())]}

    @router.get("/v1/models/{name}", summary="The engine, under any name that a client uses")
    async def model(name: str) -> dict[str, Any]:
        return _model(await service.engine_state()) | {"id": name}

    @router.get("/v1/schemas/transcript.json", summary="JSON Schema of full_json")
    async def transcript_schema() -> dict[str, Any]:
        return TranscriptBody.model_json_schema()

    return router


def _add_audio_routes(router: APIRouter, service: Service) -> None:
    @router.post(
        "/v1/audio/transcriptions",
        summary="Transcribe a recording",
        openapi_extra={"requestBody": transcription_body(TranscriptionForm)},
        responses={status: {"model": ErrorBody} for status in (400, 401, 413, 415, 429, 503)},
        response_class=Response,
    )
    async def create_transcription(request: Request) -> Response:
        """OpenAI's contract. Send multipart/form-data, or the bytes with the fields as query."""
        return await service.transcribe(request)

    @router.post(
        "/v1/align",
        summary="Time the words of a known text",
        openapi_extra={"requestBody": transcription_body(AlignmentForm)},
        responses={status: {"model": ErrorBody} for status in (400, 401, 413, 415, 429, 503)},
        response_class=Response,
    )
    async def create_alignment(request: Request) -> Response:
        """The recording as file, and as text what is said in it: a script, lyrics, a book."""
        return await service.transcribe(request, AlignmentForm)


def _model(state: EngineState) -> dict[str, Any]:
    return {
        "id": state.model,
        "object": "model",
        "created": 0,
        "owned_by": "asr-service",
        "engine": state.name,
        "ready": state.ready,
    }
