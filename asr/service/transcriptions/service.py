"""Takes a request from its body to its answer: receive, wait for a turn, follow the worker."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from starlette.responses import JSONResponse, Response

from asr.audio.growing import GrowingFile
from asr.errors import AudioIncomplete, WorkerDied
from asr.output import formats, openai
from asr.pipeline.run import Event
from asr.service.access.admission import Admission
from asr.service.errors import Refused, ShuttingDown
from asr.service.files import temporary_folder
from asr.service.http.body import drain
from asr.service.http.disconnect import client_left, unless
from asr.service.http.middleware import origin_of, owner_of
from asr.service.http.sse import EventStream
from asr.service.http.warning_header import warning_header
from asr.service.litserve.messages import EngineState, Transcribe
from asr.service.threads import FairThreads
from asr.service.transcriptions.events import EventEncoder
from asr.service.transcriptions.form import TranscriptionForm
from asr.service.transcriptions.sharing import Caller, Sharing, Work
from asr.service.transcriptions.sources import Sources
from asr.speakers.folder import obstacle
from asr.types import Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.http.disconnect import Interruption
    from asr.service.litserve.client import WorkerClient
    from asr.service.litserve.messages import WorkerEvent
    from asr.service.speakers.known import KnownSpeakers
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.service.transcriptions.sources import Incoming, Source
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

    Receiver = Callable[[Request, Path, AsyncExitStack], Awaitable[Source]]
    Renderer = Callable[[Transcript, TranscriptionRequest], Response]

READY_SECONDS: Final = 3.0
HEADER_SECONDS: Final = 10.0
"""The answer to a recording that still arrives begins after this time, even without an event."""


class Service:
    """Answers transcription requests in one API process.

    Args:
        client: the way to the worker.
        settings: the settings of the service.
        run_dir: the folder for the files of requests.
        uploads: the uploads that a request can name instead of sending a file.
        known: finds the voices that a request names.
    """

    def __init__(
        self,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        uploads: Uploads,
        known: KnownSpeakers,
    ) -> None:
        self._client = client
        self._known = known
        self._settings = settings
        self._run_dir = run_dir
        self._admission = Admission(settings.max_active_requests, settings.max_waiting_requests)
        self._growing = Admission(settings.max_followed, 0)
        self._sources = Sources(settings, uploads)
        self._sharing = Sharing()
        self._threads = FairThreads("digests", 8, 2)  # a digest reads a whole recording
        self._closing = asyncio.Event()  # refuse requests that wait
        self._closed = asyncio.Event()  # refuse requests in progress, too

    async def close(self) -> None:
        """Refuse waiting requests now, and requests in progress after the grace period."""
        self._closing.set()
        await asyncio.sleep(self._settings.shutdown_grace)
        self._closed.set()
        await self._sharing.close()

    @property
    def tells_speakers(self) -> bool:
        """Whether speakers can be told apart by voice."""
        return not obstacle(self._settings.speaker_model)

    async def engine_state(self) -> EngineState:
        """Ask the worker whether its engine is loaded."""
        name = self._settings.engine_name
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                state = await self._client.engine_state()
            if state is not None:
                return state
        return EngineState(name, name, ready=False, reason="the recogniser process is starting")

    async def counts(self) -> dict[str, float]:
        """Recordings by state: active, waiting."""
        return self._admission.counts()

    async def transcribe(
        self, request: Request, kind: type[TranscriptionForm] = TranscriptionForm
    ) -> Response:
        """Answer ``POST /v1/audio/transcriptions``, or ``POST /v1/align`` with its form as `kind`.

        Raises:
            Exception: see `asr.service.http.problems`.
            ClientDisconnect: the client left.
        """
        return await self.answer(request, partial(self._sources.open, kind=kind), _render)

    async def answer(self, request: Request, receive: Receiver, render: Renderer) -> Response:
        """Answer a request for the transcript of a recording.

        Args:
            request: the request.
            receive: receives and checks its body.
            render: makes the answer, unless the request asks for a stream.

        Raises:
            Exception: see `asr.service.http.problems`.
            ClientDisconnect: the client left.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._admit(request, stack)
            files = await stack.enter_async_context(contextlib.AsyncExitStack())
            folder = await files.enter_async_context(temporary_folder(self._run_dir))
            source = await self._with_voices(await receive(request, folder, files), request, folder)
            started = await self._follow(request, source, folder, stack, files)
            if source.checked.stream:
                return self._stream(request, source, started, stack)
            interruptions = self._interruptions(request, source)
            transcript = await unless(_collect(started), *interruptions)
            return await asyncio.to_thread(render, transcript, source.checked)

    async def _with_voices(self, source: Source, request: Request, folder: Path) -> Source:
        """The request with the voices of the speakers that it names."""
        checked = source.checked
        if not (checked.known_names or checked.references):
            return source
        options = await unless(
            self._known.resolve(
                checked.options,
                checked.known_names,
                checked.references,
                owner_of(request),
                folder,
            ),
            *self._interruptions(request, source),
        )
        # Only the embeddings are kept.
        return replace(source, checked=replace(checked, options=options, references=()))

    async def check(self, request: Request, receive: Receiver) -> TranscriptionRequest:
        """Receive and check a request, and forget its recording.

        Raises:
            Exception: see `asr.service.http.problems`.
            ClientDisconnect: the client left.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._admit(request, stack)
            folder = await stack.enter_async_context(temporary_folder(self._run_dir))
            return (await receive(request, folder, stack)).checked

    async def _admit(self, request: Request, stack: AsyncExitStack) -> None:
        """Put a place for the request on the stack."""
        try:
            if self._closing.is_set():
                raise ShuttingDown
            stack.enter_context(self._admission.place(owner_of(request)))
        except Refused:
            await drain(request)
            raise

    def _interruptions(self, request: Request, source: Source) -> tuple[Interruption, ...]:
        return _departure(request, source), partial(_shutdown, self._closed)

    async def _follow(
        self,
        request: Request,
        source: Source,
        folder: Path,
        stack: AsyncExitStack,
        files: AsyncExitStack,
    ) -> AsyncGenerator[WorkerEvent]:
        """The events of the work, once the first of them has come."""
        events = await self._join(request, source, folder, stack, files)
        patience = HEADER_SECONDS if isinstance(source.file, GrowingFile) else math.inf
        return await unless(_start(events, patience), *self._interruptions(request, source))

    def _stream(
        self,
        request: Request,
        source: Source,
        started: AsyncGenerator[WorkerEvent],
        stack: AsyncExitStack,
    ) -> Response:
        events = self._until_closed(started, source.incoming)
        checked = source.checked
        encoder = EventEncoder(checked.warnings, checked.granularities, logprobs=checked.logprobs)
        encoded = encoder.encode(events)
        left = source.incoming.left if source.incoming else partial(client_left, request)
        return EventStream(encoded, stack.pop_all(), left)

    async def _join(
        self,
        request: Request,
        source: Source,
        folder: Path,
        stack: AsyncExitStack,
        files: AsyncExitStack,
    ) -> AsyncGenerator[WorkerEvent]:
        """The events of new work, or of the work that an earlier attempt at this request began.

        Args:
            request: may be a retry.
            source: its recording. A recording that still arrives is never shared.
            folder: its files.
            stack: freed when the request ends.
            files: freed when the work ends, which may be later.
        """
        caller = Caller(request, owner_of(request))
        if isinstance(source.file, GrowingFile) or not caller.may_repeat:
            return await self._begin(request, source, folder, stack, _departure(request, source))
        fingerprint = await self._threads.run(
            owner_of(request), caller.fingerprint, source.file, source.checked
        )
        # No await from here to `add`, so that a retry which arrives meanwhile finds this work.
        work = self._sharing.find(fingerprint) if caller.is_repeated else None
        if work is None:
            # `Sharing` ends the work when all its clients have left, so no client interrupts it.
            work = Work(partial(self._begin, request, source, folder), files.pop_all())
            self._sharing.add(fingerprint, work)
        await stack.enter_async_context(self._sharing.following(work, caller))
        return await stack.enter_async_context(contextlib.aclosing(work.follow()))

    async def _begin(
        self,
        request: Request,
        source: Source,
        folder: Path,
        stack: AsyncExitStack,
        *interruptions: Interruption,
    ) -> AsyncGenerator[WorkerEvent]:
        """Wait for a turn and start the work. `stack` holds both until the work ends."""
        if isinstance(source.file, GrowingFile):
            # It takes no turn, since it may wait long for its own client.
            stack.enter_context(self._growing.place())
        else:
            turn = stack.enter_async_context(self._admission.turn(owner_of(request)))
            await unless(turn, *interruptions, partial(_shutdown, self._closing))
        command = Transcribe(
            uuid.uuid4().hex,
            source.file,
            folder,
            source.checked.options,
            source.text,
            keep_lines=source.checked.keep_lines,
            **origin_of(request),
        )
        events = contextlib.aclosing(self._client.transcribe(command))
        return await stack.enter_async_context(events)

    async def _until_closed(
        self, events: AsyncIterator[WorkerEvent], incoming: Incoming | None
    ) -> AsyncGenerator[WorkerEvent]:
        """Pass events on until the service closes.

        Raises:
            ShuttingDown: the service closes.
            Exception: why the rest of the body was refused.
        """
        try:
            async for event in events:  # with heartbeats, so this checks every second
                if self._closed.is_set():
                    raise ShuttingDown
                yield event
        except AudioIncomplete:
            if incoming is None or incoming.error is None:
                raise
            raise incoming.error from None


def _departure(request: Request, source: Source) -> Interruption:
    """Waits until the client leaves, or until the rest of its body is refused."""
    return source.incoming.ended if source.incoming else partial(client_left, request)


async def _shutdown(event: asyncio.Event) -> NoReturn:
    await event.wait()
    raise ShuttingDown


async def _start(
    events: AsyncGenerator[WorkerEvent], patience: float
) -> AsyncGenerator[WorkerEvent]:
    """Wait for the first real event, so that the status of the answer can report bad audio.

    Wait no longer than `patience` seconds, because proxies give up.
    """
    started = time.monotonic()
    first = await anext(events)
    while not isinstance(first, Event) and time.monotonic() - started < patience:
        first = await anext(events)

    async def replay() -> AsyncGenerator[WorkerEvent]:
        yield first
        async for event in events:
            yield event

    return replay()


async def _collect(events: AsyncGenerator[WorkerEvent]) -> Transcript:
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Transcript):
                return event
    raise WorkerDied("the recogniser process ended without a transcript")


def _render(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """The transcript in the requested format, with its warnings in a header too."""
    transcript = replace(transcript, warnings=(*request.warnings, *transcript.warnings))
    granularities, logprobs = request.granularities, request.logprobs
    match request.response_format:
        case "json":
            body = openai.to_openai_json(transcript, granularities, logprobs=logprobs)
        case "verbose_json":
            body = openai.to_verbose_json(transcript, granularities, logprobs=logprobs)
        case "diarized_json":
            body = openai.to_diarized_json(transcript)
        case name:
            form = "json" if name == "full_json" else name
            text = formats.render(transcript, form, request.subtitles)
            kind = formats.FORMATS[form].content_type
            return Response(text, headers=warning_header(transcript.warnings), media_type=kind)
    return JSONResponse(body, headers=warning_header(body["warnings"]))
