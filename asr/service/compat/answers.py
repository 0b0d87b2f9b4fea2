"""What the answers of both dialects have in common."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response

from asr.output import formats, openai
from asr.output.numbers import rounded

if TYPE_CHECKING:
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.types import Transcript, Word

WARNINGS_HEADER: Final = "x-transcript-warnings"
"""A JSON list of the warnings. Formats that are not JSON have no other place for them."""
MAX_HEADER_CHARACTERS: Final = 4000


def with_warnings(transcript: Transcript, request: TranscriptionRequest) -> Transcript:
    """The transcript with the warnings about the request before its own."""
    return replace(transcript, warnings=(*request.warnings, *transcript.warnings))


def json_answer(body: dict[str, Any], transcript: Transcript) -> Response:
    """An answer in JSON with the field ``warnings``."""
    return JSONResponse({**body, "warnings": list(transcript.warnings)})


def text_answer(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """An answer in one of our text formats, with the warnings in a header."""
    name = request.response_format
    body = formats.render(transcript, name, request.subtitles)
    headers = {WARNINGS_HEADER: warnings_line(transcript.warnings)} if transcript.warnings else {}
    return Response(body, media_type=formats.FORMATS[name].content_type, headers=headers)


def warnings_line(warnings: tuple[str, ...]) -> str:
    """A JSON list in ASCII. It is cut at `MAX_HEADER_CHARACTERS` and then says so."""
    kept = list(warnings)
    while len(line := json.dumps(kept)) > MAX_HEADER_CHARACTERS:
        kept = [*kept[:-2], "further warnings: ask for JSON"]
        if len(kept) == 1:
            return json.dumps(kept)
    return line


def segments_of(transcript: Transcript, *, with_words: bool) -> list[dict[str, Any]]:
    """Whisper's segments: those of ``verbose_json``, with words and speakers if there are any."""
    bodies: list[dict[str, Any]] = openai.to_verbose_json(transcript)["segments"]
    for body, segment in zip(bodies, transcript.segments, strict=True):
        if segment.speaker is not None:
            body["speaker"] = segment.speaker
        if with_words:
            body["words"] = [_word(word) for word in segment.words]
    return bodies


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": rounded(word.start),
        "end": rounded(word.end),
        "probability": word.confidence,
    }
