"""The live routes: the WebSocket, and the transcripts of its sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI reads the annotation
from starlette.websockets import WebSocket  # noqa: TC002

from asr.service.http.middleware import owner_of

if TYPE_CHECKING:
    from asr.service.live.service import Live


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

    return router
