"""The HTTP routes: take the body, wait for a turn, follow the worker, answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from asr.audio.growing import GrowingFile
from asr.errors import AudioIncomplete, WorkerDied
from asr.output import formats, openai
from asr.pipeline.run import Event
from asr.service.access.admission import Admission
from asr.service.folders import temporary_folder
from asr.service.http.body import drain
from asr.service.http.middleware import origin_of, owner_of
from asr.service.http.problems import Problem
from asr.service.litserve.worker import Ask, EngineState, Transcribe
from asr.service.transcriptions.events import EventStream, to_sse
from asr.service.transcriptions.form import (
    AlignmentForm,
    ErrorBody,
    TranscriptBody,
    TranscriptionForm,
    transcription_body,
)
from asr.service.transcriptions.sharing import Caller, Sharing, Work
from asr.service.transcriptions.sources import Sources, client_left
from asr.types import Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
    from contextlib import AsyncExitStack
    from pathlib import Path

    from asr.service.litserve.spec import TranscriptionSpec
    from asr.service.litserve.worker import Happening
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.service.transcriptions.sources import Incoming, Source
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

logger = logging.getLogger(__name__)

ERRORS = (400, 401, 404, 409, 410, 413, 415, 429, 503)
READY_SECONDS = 3.0
HEADER_SECONDS = 10.0
"""After these an answer begins although nothing can be said yet of a recording that arrives."""

T = TypeVar("T")


class Service:
    """What the routes share in one API process.

    Args:
        spec: the way to the worker.
        settings: of the service.
        run_dir: where the files of requests lie while they are in work.
        uploads: which a request may name in the place of a file.
    """

    def __init__(
        self, spec: TranscriptionSpec, settings: Settings, run_dir: Path, uploads: Uploads
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._run_dir = run_dir
        self._admission = Admission(settings.max_active_requests, settings.max_waiting_requests)
        self._following = Admission(settings.max_followed, 0)
        self._sources = Sources(settings, uploads)
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
            async with asyncio.timeout(READY_SECONDS):
                state = await self._spec.ask(Ask())
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
            folder = await files.enter_async_context(temporary_folder(self._run_dir))
            source = await self._sources.open(request, folder, files, kind)
            checked, gone = source.checked, _departure(request, source)
            events = await self._join(request, source, folder, stack, files)
            patience = HEADER_SECONDS if isinstance(source.file, GrowingFile) else math.inf
            started = await self._unless_ended(gone, _start(events, patience), self._closed)
            if checked.stream:
                sse = to_sse(self._until_closed(started, source.incoming), checked.warnings)
                return EventStream(sse, stack.pop_all(), gone)
            transcript = await self._unless_ended(gone, _collect(started), self._closed)
            return await asyncio.to_thread(_answer, transcript, checked)

    async def _join(
        self,
        request: Request,
        source: Source,
        folder: Path,
        stack: AsyncExitStack,
        files: AsyncExitStack,
    ) -> AsyncGenerator[Happening]:
        """The events of new work, or of that which an earlier sending of the request began.

        Args:
            request: which may be sent again.
            source: its recording; one that still arrives is not shared.
            folder: its files.
            stack: what the request holds.
            files: what the work holds, which may outlive the request.
        """
        caller = Caller(request, owner_of(request))
        if isinstance(source.file, GrowingFile) or not caller.may_repeat:
            return await self._begin(request, source, folder, _departure(request, source), stack)
        mark = await asyncio.to_thread(caller.fingerprint, source.file, source.checked)
        # Nothing is awaited from here to `add`, and the work itself waits for its turn: what is
        # sent again meanwhile finds it.
        work = self._sharing.find(mark) if caller.is_repeated else None
        if work is None:
            # Whether somebody is left to wait for it is known to those who share it.
            begin = partial(self._begin, request, source, folder, _never)
            work = Work(begin, files.pop_all())
            self._sharing.add(mark, work)
        await stack.enter_async_context(self._sharing.following(work, caller))
        return await stack.enter_async_context(contextlib.aclosing(work.follow()))

    async def _begin(
        self,
        request: Request,
        source: Source,
        folder: Path,
        gone: Callable[[], Coroutine[Any, Any, None]],
        holder: AsyncExitStack,
    ) -> AsyncGenerator[Happening]:
        await self._wait_turn(source, gone, holder)
        command = Transcribe(
            uuid.uuid4().hex,
            source.file,
            folder,
            source.checked.options,
            source.text,
            **origin_of(request),
        )
        following = contextlib.aclosing(self._spec.transcribe(command))
        return await holder.enter_async_context(following)

    async def _wait_turn(
        self, source: Source, gone: Callable[[], Coroutine[Any, Any, None]], stack: AsyncExitStack
    ) -> None:
        """Wait to be worked on. What still arrives takes no turn: it may wait itself, for long."""
        if isinstance(source.file, GrowingFile):
            stack.enter_context(self._following.place())
        else:
            turn = stack.enter_async_context(self._admission.turn())
            await self._unless_ended(gone, turn, self._closing)

    async def _unless_ended(
        self,
        gone: Callable[[], Coroutine[Any, Any, None]],
        work: Coroutine[Any, Any, T],
        ended: asyncio.Event,
    ) -> T:
        """Wait for `work`, unless the client leaves or the service ends.

        Raises:
            ClientDisconnect: the client left.
            Problem: 503, the service ends.
        """
        task = asyncio.create_task(work)
        left = asyncio.create_task(gone())
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait({task, left, ending}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if left.done():
                left.result()
                raise ClientDisconnect
            raise _shutting_down()
        finally:
            for unfinished in (task, left, ending):
                unfinished.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    async def _until_closed(
        self, events: AsyncIterator[Happening], incoming: Incoming | None
    ) -> AsyncGenerator[Happening]:
        try:
            async for event in events:  # heartbeats come every second: this looks often enough
                if self._closed.is_set():
                    raise _shutting_down()
                yield event
        except AudioIncomplete:
            if incoming is None or incoming.error is None:
                raise
            raise incoming.error from None


def _departure(request: Request, source: Source) -> Callable[[], Coroutine[Any, Any, None]]:
    """What waits until the client has left."""
    return source.incoming.left if source.incoming else partial(client_left, request)


async def _never() -> None:
    await asyncio.Event().wait()


def _shutting_down() -> Problem:
    return Problem(503, "the service is shutting down", "shutting_down", None, 5)


async def _start(events: AsyncGenerator[Happening], patience: float) -> AsyncGenerator[Happening]:
    """Wait for the first real event, so that bad audio is told by the status of the answer.

    But no longer than `patience` seconds: proxies have little.
    """
    started = time.monotonic()
    first = await anext(events)
    while not isinstance(first, Event) and time.monotonic() - started < patience:
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
            return JSONResponse(openai.to_openai_json(transcript))
        case "verbose_json":
            return JSONResponse(openai.to_verbose_json(transcript, request.granularities))
        case "diarized_json":
            return JSONResponse(openai.to_diarized_json(transcript))
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

    @router.get("/v1/models/{name:path}", summary="The engine, under any name that a client uses")
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
        responses={status: {"model": ErrorBody} for status in ERRORS},
        response_class=Response,
    )
    async def create_transcription(request: Request) -> Response:
        """OpenAI's contract. Send multipart/form-data, or the bytes with the fields as query.

        A recording that was uploaded before, or is being uploaded, is named by its upload_id.
        """
        return await service.transcribe(request)

    @router.post(
        "/v1/align",
        summary="Time the words of a known text",
        openapi_extra={"requestBody": transcription_body(AlignmentForm)},
        responses={status: {"model": ErrorBody} for status in ERRORS},
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
