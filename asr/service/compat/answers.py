"""What the answers of both dialects have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from asr.output import formats, openai
from asr.output.numbers import rounded
from asr.service.http.warning_header import warning_header

if TYPE_CHECKING:
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.types import Transcript, Word


def with_warnings(transcript: Transcript, request: TranscriptionRequest) -> Transcript:
    """The transcript with the warnings about the request before its own."""
    return replace(transcript, warnings=(*request.warnings, *transcript.warnings))


def json_answer(body: dict[str, Any]) -> Response:
    """An answer in JSON, whose field ``warnings`` is in the header too."""
    return JSONResponse(body, headers=warning_header(body["warnings"]))


def text_answer(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """An answer in one of our text formats, with the warnings in a header."""
    name = request.response_format
    body = formats.render(transcript, name, request.subtitles)
    kind = formats.FORMATS[name].content_type
    return Response(body, media_type=kind, headers=warning_header(transcript.warnings))


def whisper_body(transcript: Transcript, *, with_words: bool) -> dict[str, Any]:
    """``verbose_json`` with the speakers of the segments, and with their words if wanted."""
    answer: dict[str, Any] = openai.to_verbose_json(transcript)
    for body, segment in zip(answer["segments"], transcript.segments, strict=True):
        if segment.speaker is not None:
            body["speaker"] = segment.speaker
        if with_words:
            body["words"] = [_word(word) for word in segment.words]
    return answer


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": rounded(word.start),
        "end": rounded(word.end),
        "probability": rounded(word.confidence),
    }
