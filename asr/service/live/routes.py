"""The live routes: the WebSocket, and what its sessions heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI reads the annotation
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.config import Options
from asr.errors import AsrError
from asr.service.errors import ShuttingDown
from asr.service.http.middleware import origin_of, owner_of
from asr.service.http.problems import Problem, problem_of
from asr.service.litserve.messages import Transcribe
from asr.service.live.base import SessionLimits
from asr.service.live.client_events import SessionConfig
from asr.service.live.session import LiveSession
from asr.service.live.transcripts import Transcripts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asr.config import DecodeOptions, VadOptions
    from asr.service.access.limits import Meter
    from asr.service.litserve.client import WorkerClient
    from asr.service.litserve.messages import WorkerEvent
    from asr.service.live.turns import Turn
    from asr.settings import Settings
    from asr.types import Transcript

SUBPROTOCOL: Final = "realtime"
NORMAL, RESTART, TRY_LATER = 1000, 1012, 1013  # of RFC 6455


class Live:
    """The live sessions of one API process.

    Args:
        client: the way to the worker.
        settings: of the service.
        run_dir: where turns lie until they are transcribed.
    """

    def __init__(self, client: WorkerClient, settings: Settings, run_dir: Path) -> None:
        self._client = client
        self._settings = settings
        self._run_dir = run_dir
        self._transcripts = Transcripts(settings.live_keep_seconds)
        self._sessions: dict[str, LiveSession] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._closing = False

    async def counts(self) -> dict[str, float]:
        """Open sessions, as the metrics show them."""
        return {"": len(self._sessions)}

    async def close(self) -> None:
        """Refuse new sessions, and let the open ones end within the grace period."""
        self._closing = True
        for session in self._sessions.values():
            session.end(problem_of(ShuttingDown()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_grace):
                await self._none_open.wait()

    def read(self, session_id: str, owner: str) -> dict[str, Any]:
        """What a session heard.

        Raises:
            Problem: 404.
        """
        return self._transcripts.read(session_id, owner)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket from its handshake to its end."""
        session_id = f"sess_{secrets.token_hex(16)}"
        try:
            self._check(websocket)
            session = self._begin(session_id, websocket)
        except (Problem, AsrError, OSError) as error:
            await websocket.send_denial_response(problem_of(error).response())
            return
        self._sessions[session_id] = session
        self._none_open.clear()
        try:
            await self._run(websocket, session)
        finally:
            del self._sessions[session_id]
            if not self._sessions:
                self._none_open.set()
            self._transcripts.end(session_id)

    def _begin(self, session_id: str, websocket: WebSocket) -> LiveSession:
        folder = Path(tempfile.mkdtemp(prefix="live-", dir=self._run_dir))
        settings = self._settings
        try:
            session = LiveSession(
                session_id,
                _Socket(websocket),
                _Backend(self, session_id, folder, websocket),
                SessionConfig(settings.vad),
                folder,
                SessionLimits(settings.live_idle_seconds, settings.live_max_seconds),
            )
        except BaseException:
            folder.rmdir()
            raise
        self._transcripts.begin(session_id, owner_of(websocket), folder)
        return session

    def _check(self, websocket: WebSocket) -> None:
        if self._closing:
            raise ShuttingDown
        intent = websocket.query_params.get("intent", "transcription")
        if intent != "transcription":
            message = f"intent: {intent!r} is not served; send transcription"
            raise Problem(400, message, "invalid_value", "intent")
        if len(self._sessions) >= self._settings.live_max_sessions:
            raise Problem(429, "too many live sessions are open", "too_many_sessions", None, 10)

    async def _run(self, websocket: WebSocket, session: LiveSession) -> None:
        # A browser offers its key as a second subprotocol; only the first one is ever chosen.
        chosen = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
        await websocket.accept(chosen)
        ended = await session.run()
        if ended is not None:
            try:
                await websocket.close(_close_code(ended), ended.code)
            except (RuntimeError, WebSocketDisconnect):
                return  # it left in the same moment

    def transcribe(self, command: Transcribe) -> AsyncGenerator[WorkerEvent]:
        """Have the worker transcribe a turn."""
        return self._client.transcribe(command)

    def keep(self, session_id: str, turn: Turn, transcript: Transcript) -> None:
        """Keep a transcript for who asks later."""
        self._transcripts.keep(session_id, turn, transcript)


class _Backend:
    """The service, as one session sees it."""

    def __init__(self, live: Live, session_id: str, folder: Path, websocket: WebSocket) -> None:
        self._live = live
        self._session_id = session_id
        self._folder = folder
        self._origin = origin_of(websocket)
        self._meter: Meter | None = websocket.scope.get("state", {}).get("meter")

    def transcribe(
        self, turn: Turn, vad: VadOptions, decode: DecodeOptions
    ) -> AsyncGenerator[WorkerEvent]:
        options = Options(vad=vad, decode=decode)
        command = Transcribe(
            uuid.uuid4().hex, turn.path, self._folder, options, is_pcm=True, **self._origin
        )
        return self._live.transcribe(command)

    def spend(self, n_bytes: int) -> None:
        if self._meter is not None:
            self._meter.check()
            self._meter.add_bytes(n_bytes)

    def keep(self, turn: Turn, transcript: Transcript) -> None:
        self._live.keep(self._session_id, turn, transcript)


class _Socket:
    """Starlette's WebSocket, with the one error that a session knows."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise ConnectionResetError("the client left")
        text: str | None = message.get("text")
        return message["bytes"].decode("utf-8", "replace") if text is None else text

    async def send(self, body: dict[str, Any]) -> None:
        try:
            await self._websocket.send_text(json.dumps(body, ensure_ascii=False))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError("the client left") from error


def _close_code(problem: Problem) -> int:
    """What tells OpenAI's client whether to come back."""
    if problem.code == "shutting_down":
        return RESTART
    return TRY_LATER if problem.status >= 500 else NORMAL


def make_live_router(live: Live) -> APIRouter:
    """The routes of live sessions."""
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        await live.serve(websocket)

    @router.get("/v1/realtime/sessions/{session_id}", summary="What a live session heard")
    def session(request: Request, session_id: str) -> dict[str, Any]:
        """All items of a session that is open or has ended within the last hour."""
        return live.read(session_id, owner_of(request))

    return router
