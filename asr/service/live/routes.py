"""The live routes: the WebSocket, the transcripts of its sessions, and ephemeral keys for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI reads the annotation
from starlette.websockets import WebSocket  # noqa: TC002

from asr.service.http.body import drain, pieces
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem
from asr.service.live.client_events import MAX_EVENT_CHARACTERS
from asr.service.transcriptions.bodies import ErrorBody

if TYPE_CHECKING:
    from asr.service.live.service import Live

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody} for status in (400, 401, 408, 413, 429, 503)
}
_BODY: Final = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def make_live_router(live: Live) -> APIRouter:
    """The routes of live sessions."""
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        await live.serve(websocket)

    @router.get("/v1/realtime/sessions/{session_id}", summary="The transcripts of a live session")
    def session(request: Request, session_id: str) -> dict[str, Any]:
        """All items of a session that is open or still kept (ASR_LIVE_KEEP_SECONDS)."""
        return live.read(session_id, owner_of(request))

    _add_client_secrets(router, live)
    return router


def _add_client_secrets(router: APIRouter, live: Live) -> None:
    @router.post(
        "/v1/realtime/client_secrets",
        summary="An ephemeral key for a browser",
        responses=_ERRORS,
        openapi_extra=_BODY,
    )
    async def client_secret(request: Request) -> dict[str, Any]:
        """Make a key that opens live sessions until it expires, with the settings in `session`."""
        return await live.make_secret(await _text(request), owner_of(request), is_beta=False)

    async def beta_client_secret(request: Request) -> dict[str, Any]:
        """Make a key that opens live sessions. The body is a flat session."""
        return await live.make_secret(await _text(request), owner_of(request), is_beta=True)

    for name in ("transcription_sessions", "sessions"):
        router.post(
            f"/v1/realtime/{name}",
            summary="An ephemeral key for a browser, as in OpenAI's beta API",
            operation_id=f"beta_client_secret_in_{name}",  # one function serves two routes
            responses=_ERRORS,
            openapi_extra=_BODY,
        )(beta_client_secret)


async def _text(request: Request) -> str:
    """The body of a small request.

    Raises:
        Problem: 400 the body is not UTF-8, 408 it does not arrive, 413 it is too large.
    """
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > MAX_EVENT_CHARACTERS:
            await drain(request)
            message = f"the body may have {MAX_EVENT_CHARACTERS} bytes"
            raise Problem(413, message, "too_large")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8", "malformed_body") from None
