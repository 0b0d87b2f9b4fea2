"""`Live`: the live sessions of one API process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.errors import AsrError, InvalidOption
from asr.service.errors import Expired, LimitReached, ShuttingDown
from asr.service.http.middleware import given_keys, origin_of, owner_of
from asr.service.http.problems import Problem, problem_of
from asr.service.live import beta
from asr.service.live.backend import Backend
from asr.service.live.secret_requests import answer, parse_request
from asr.service.live.session import LiveSession, SessionLimits
from asr.service.live.session_config import SessionConfig
from asr.service.live.session_fields import AudioSettings, Input, SessionUpdate, Transcription
from asr.service.live.socket import ClientSocket
from asr.service.live.transcripts import Transcripts
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from asr.engines.base import Capabilities
    from asr.service.access.client_secrets import ClientSecrets
    from asr.service.litserve.client import WorkerClient
    from asr.service.live.session_config import SessionName
    from asr.settings import Settings

SUBPROTOCOL: Final = "realtime"
NORMAL, RESTART, TRY_LATER = 1000, 1012, 1013  # close codes in IANA's WebSocket registry


class Live:
    """The live sessions of one API process.

    Args:
        client: sends commands to the worker.
        settings: of the service.
        run_dir: a folder for turns until they are transcribed.
        client_secrets: makes and checks ephemeral keys.
    """

    def __init__(
        self,
        client: WorkerClient,
        settings: Settings,
        run_dir: Path,
        client_secrets: ClientSecrets,
    ) -> None:
        self._secrets = client_secrets
        self._client = client
        self._settings = settings
        self._run_dir = run_dir
        self._transcripts = Transcripts(settings.live_keep_seconds)
        self._sessions: dict[str, LiveSession] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._closing = False
        self._recognised: tuple[str, ...] = ()

    def engine_loaded(self, able: Capabilities | None) -> None:
        """Take note of the languages, to warn of others before the first turn.

        An engine that detects the language refuses none.
        """
        if able is not None and not able.detects_language:
            self._recognised = able.languages

    async def counts(self) -> dict[str, float]:
        """The number of open sessions, as the metrics show it."""
        return {"": len(self._sessions)}

    async def close(self) -> None:
        """Refuse new sessions, and let the open ones end within the grace period."""
        self._closing = True
        for session in self._sessions.values():
            session.end(ShuttingDown())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_grace):
                await self._none_open.wait()

    def read(self, session_id: str, owner: str) -> dict[str, Any]:
        """The transcripts of a session.

        Raises:
            NotFound: this owner has no such session.
        """
        return self._transcripts.read(session_id, owner)

    async def make_secret(self, text: str, owner: str, *, is_beta: bool) -> dict[str, Any]:
        """Make an ephemeral key, and answer as OpenAI does.

        Raises:
            InvalidOption: a field of the request `text` is wrong.
            Refused: there are too many keys, or the settings do not fit into one.
        """
        request = parse_request(text, is_beta=is_beta)
        config = self._defaults.updated(request.update)
        settings, seconds = request.update.sent(), request.seconds
        made = await asyncio.to_thread(self._secrets.make, owner, settings, seconds)
        return answer(request, config, *made)

    @property
    def _defaults(self) -> SessionConfig:
        return SessionConfig(
            self._settings.vad,
            self._settings.live_partials,
            no_speakers=obstacle(self._settings.speaker_model),
            recognised=self._recognised,
        )

    def _config(self, websocket: WebSocket) -> SessionConfig:
        """The settings with which a session begins.

        ``?model=`` names the model, as some clients expect, and an ephemeral key may have settings.

        Raises:
            Problem: 401, the ephemeral key has expired or is wrong.
        """
        config = self._defaults
        if model := websocket.query_params.get("model"):
            options = Transcription(model=model)
            audio = AudioSettings(input=Input(transcription=options))
            config = config.updated(SessionUpdate(audio=audio))
        if (given := self._session_of_secret(websocket)) is not None:
            config = config.updated(SessionUpdate.model_validate(given))
        is_beta = beta.is_asked_for(websocket.headers, websocket.scope["subprotocols"])
        is_named = is_beta and bool(websocket.query_params.get("intent"))
        name: SessionName = "transcription_session" if is_named else "session"
        return replace(config, is_beta=is_beta, name=name)

    def _session_of_secret(self, websocket: WebSocket) -> dict[str, Any] | None:
        try:
            grant = self._secrets.find(given_keys(websocket.scope))
        except Expired as error:
            raise Problem(401, str(error), error.code) from error
        return None if grant is None else grant.session

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket from its handshake to its end."""
        session_id = f"sess_{secrets.token_hex(16)}"
        try:
            self._check(websocket)
            session = self._begin(session_id, websocket)
        except (AsrError, OSError, Problem) as error:
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
        try:
            session = self._session(session_id, websocket, folder)
        except BaseException:
            folder.rmdir()
            raise
        self._transcripts.begin(session_id, owner_of(websocket), folder)
        return session

    def _session(self, session_id: str, websocket: WebSocket, folder: Path) -> LiveSession:
        settings = self._settings
        backend = Backend(
            client=self._client,
            transcripts=self._transcripts,
            session_id=session_id,
            folder=folder,
            meter=websocket.scope.get("state", {}).get("meter"),
            origin=origin_of(websocket),
        )
        return LiveSession(
            session_id,
            ClientSocket(websocket),
            backend,
            self._config(websocket),
            folder,
            SessionLimits(settings.live_idle_seconds, settings.live_max_seconds),
        )

    def _check(self, websocket: WebSocket) -> None:
        if self._closing:
            raise ShuttingDown
        intent = websocket.query_params.get("intent") or "transcription"
        if intent != "transcription":
            raise InvalidOption("intent", f"{intent!r} is not served; send transcription")
        if len(self._sessions) >= self._settings.live_max_sessions:
            message = "too many live sessions are open"
            raise LimitReached(message, "too_many_sessions", retry_after=10)

    async def _run(self, websocket: WebSocket, session: LiveSession) -> None:
        # A browser sends its key as a second subprotocol, which must not be chosen.
        chosen = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
        await websocket.accept(chosen)
        reason = await session.run()
        if reason is not None:
            try:
                await websocket.close(_close_code(reason), problem_of(reason).code)
            except (RuntimeError, WebSocketDisconnect):
                return  # the client left at the same moment


def _close_code(reason: Exception) -> int:
    """The code that tells OpenAI's client whether to reconnect."""
    if isinstance(reason, ShuttingDown):
        return RESTART
    return TRY_LATER if problem_of(reason).status >= 500 else NORMAL
