"""The HTTP routes of other speech servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI evaluates the annotation
from starlette.responses import JSONResponse, Response

from asr.errors import EngineUnavailable
from asr.service.compat import describe, whisper_asr, whisper_cpp
from asr.service.compat.receive import Dialect, Exchange
from asr.service.transcriptions.bodies import ErrorBody
from asr.service.transcriptions.routes import ERRORS

if TYPE_CHECKING:
    from asr.service.transcriptions.service import Service
    from asr.settings import Settings

ASR: Final = Dialect(whisper_asr.FILE_PARTS, whisper_asr.translate, whisper_asr.render)
DETECTION: Final = Dialect(
    whisper_asr.FILE_PARTS, whisper_asr.translate_detection, whisper_asr.render
)
INFERENCE: Final = Dialect(whisper_cpp.FILE_PARTS, whisper_cpp.translate, whisper_cpp.render)
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody} for status in ERRORS
}


def make_compat_router(service: Service, settings: Settings) -> APIRouter:
    """The routes of whisper-asr-webservice and of whisper.cpp's server.

    Args:
        service: answers the requests.
        settings: the settings of the service.
    """
    router = APIRouter(tags=["compatibility"])
    _add_whisper_asr(router, service, settings)

    @router.post(
        "/inference",
        summary="Transcribe as whisper.cpp's server does",
        openapi_extra=describe.INFERENCE,
        responses={**RESPONSES, 200: describe.TRANSCRIPT},
        response_class=Response,
    )
    async def inference(request: Request) -> Response:
        """Fields may come in the form or in the query. Our own fields work too."""
        exchange = Exchange(INFERENCE, settings)
        return await service.answer(request, exchange.receive, exchange.render)

    return router


def _add_whisper_asr(router: APIRouter, service: Service, settings: Settings) -> None:
    @router.post(
        "/asr",
        summary="Transcribe as whisper-asr-webservice does",
        openapi_extra=describe.ASR,
        responses={**RESPONSES, 200: describe.TRANSCRIPT},
        response_class=Response,
    )
    async def asr(request: Request) -> Response:
        """For Bazarr, speakr and other clients. Our own fields work in the query too."""
        exchange = Exchange(ASR, settings)
        return await service.answer(request, exchange.receive, exchange.render)

    @router.post(
        "/detect-language",
        summary="The language that the engine assumes",
        openapi_extra=describe.DETECTION,
        responses=RESPONSES,
        response_model=describe.DetectedBody,
    )
    async def detect_language(request: Request) -> Response:
        """The language that the engine assumes, since no engine says which one it heard."""
        checked = await service.check(request, Exchange(DETECTION, settings).receive)
        state = await service.engine_state()
        if state.capabilities is None:
            raise EngineUnavailable(state.reason or "the engine is loading")
        languages = state.capabilities.languages
        return JSONResponse(whisper_asr.detected(state.name, languages[0], checked.warnings))
