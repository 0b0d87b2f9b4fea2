"""The HTTP routes of transcriptions, models and probes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  # FastAPI evaluates the annotation
from starlette.responses import JSONResponse, Response

from asr.engines.base import MODEL_ALIASES
from asr.errors import without_places
from asr.service.http.body import drain
from asr.service.http.problems import Problem
from asr.service.transcriptions.bodies import ErrorBody, TranscriptBody, transcription_body
from asr.service.transcriptions.form import (
    NOT_TRANSLATED,
    TRANSLATE_ADVICE,
    AlignmentForm,
    TranscriptionForm,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.engines.base import Capabilities
    from asr.service.litserve.messages import EngineState
    from asr.service.observability.readiness import Obstacles
    from asr.service.transcriptions.service import Service

ERRORS: Final = (400, 401, 403, 404, 408, 409, 410, 413, 429, 500, 503, 504)


def make_router(service: Service, look: Callable[[], Awaitable[Obstacles]]) -> APIRouter:
    """The routes of transcriptions, models and probes.

    Args:
        service: answers the requests.
        look: finds what is wrong although the engine is loaded.
    """
    router = APIRouter()
    _add_audio_routes(router, service)
    _add_model_routes(router, service)

    @router.get("/health", summary="Whether the service is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Whether the service can work", response_model=None)
    async def ready() -> Response:
        # Probes send no key, so the reason must not name servers. The log does.
        state = await service.engine_state()
        body = {"status": "ready" if state.ready else "loading", "engine": state.name}
        found = await look()
        if found.jobs:
            body["jobs"] = found.jobs
        if state.ready:
            if found.service:
                body |= {"status": "unavailable", "reason": found.service}
                return JSONResponse(body, 503, {"retry-after": "5"})
            return JSONResponse(body)
        return JSONResponse(
            body | {"reason": without_places(state.reason)}, 503, {"retry-after": "1"}
        )

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
        """OpenAI's endpoint. Send multipart/form-data, or the audio with the fields in the query.

        To transcribe an upload, complete or still arriving, send its `upload_id` instead of a file.
        """
        return await service.transcribe(request)

    @router.post(
        "/v1/audio/translations",
        summary="Refused, because no engine translates",
        status_code=400,
        openapi_extra={"requestBody": transcription_body(TranscriptionForm)},
        responses={400: {"model": ErrorBody}},
        response_class=Response,
    )
    async def create_translation(request: Request) -> Response:
        """Answers 400 with what to do instead."""
        await drain(request)
        raise Problem(400, TRANSLATE_ADVICE, NOT_TRANSLATED)

    @router.post(
        "/v1/align",
        summary="Align a known text with its recording",
        openapi_extra={"requestBody": transcription_body(AlignmentForm)},
        responses={status: {"model": ErrorBody} for status in ERRORS},
        response_class=Response,
    )
    async def create_alignment(request: Request) -> Response:
        """Send the recording as `file`, and its words as `text`: a script, lyrics or subtitles.

        `warnings` name the words that are not said, and the speech that the text lacks.
        """
        return await service.transcribe(request, AlignmentForm)


def _add_model_routes(router: APIRouter, service: Service) -> None:
    @router.get("/v1/models", summary="The engine under its name and OpenAI's names")
    async def models() -> dict[str, Any]:
        state = await service.engine_state()
        names = dict.fromkeys([state.model, *MODEL_ALIASES])
        able = service.tells_speakers
        return {"object": "list", "data": [_model(state, it, speakers=able) for it in names]}

    @router.get("/v1/models/{name:path}", summary="The engine, under any model name")
    async def model(name: str) -> dict[str, Any]:
        return _model(await service.engine_state(), name, speakers=service.tells_speakers)

    @router.get("/v1/schemas/transcript.json", summary="JSON Schema of full_json")
    async def transcript_schema() -> dict[str, Any]:
        return TranscriptBody.model_json_schema()


def _model(state: EngineState, name: str, *, speakers: bool) -> dict[str, Any]:
    """OpenAI's model object. The fields after `owned_by` are ours."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "asr-service",
        "engine": state.name,
        "ready": state.ready,
        "alias_of": None if name == state.model else state.model,
        "capabilities": state.capabilities and _capabilities(state.capabilities, speakers=speakers),
    }


def _capabilities(able: Capabilities, *, speakers: bool) -> dict[str, Any]:
    """What a request may ask for. The last fields hold for every engine."""
    return {
        **asdict(able),
        "speakers": speakers,
        "channels": True,
        "translation": False,
        "streaming": True,
        "realtime": True,
        "word_times": True,
        "logprobs": True,
        "alignment": True,
    }
