"""The requests of the other servers' APIs, for OpenAPI."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from asr.service.compat.whisper_asr import OUTPUTS
from asr.service.compat.whisper_cpp import FORMATS

_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_NUMBER: Final = {"type": "number"}
_FILE: Final = {"type": "string", "format": "binary"}


class DetectedBody(BaseModel):
    """The answer of ``/detect-language``."""

    detected_language: str = Field(description="The English name of the language.")
    language_code: str
    confidence: float | None = Field(description="null: the language was not detected.")
    warnings: list[str]


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _form(part: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": [part], "properties": {part: _FILE, **properties}}
    content = {
        "multipart/form-data": {"schema": schema},
        "audio/*": {"schema": _FILE},
    }
    return {"required": True, "content": content}


TRANSCRIPT: Final[dict[str, Any]] = {
    "description": "The transcript in the requested format.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/plain": {"schema": _TEXT},
        "application/x-subrip": {"schema": _TEXT},
        "text/vtt": {"schema": _TEXT},
        "text/tab-separated-values": {"schema": _TEXT},
    },
}
"""The response 200 of the routes that transcribe."""
_ENCODE: Final = _parameter(
    "encode", _FLAG, "false: the file is raw PCM, 16 bits, little-endian, mono, 16 kHz."
)
ASR: Final[dict[str, Any]] = {
    "parameters": [
        _ENCODE,
        _parameter("output", {"enum": list(OUTPUTS), "default": "txt"}, "The format."),
        _parameter("task", {"enum": ["transcribe", "translate"]}, "translate is answered by 400."),
        _parameter("language", _TEXT, "A code, an English name, or auto."),
        _parameter("initial_prompt", _TEXT, "Text that gives the engine context."),
        _parameter("hotwords", _TEXT, "Names and terms, separated by commas."),
        _parameter("word_timestamps", _FLAG, "For output=json: give the times of words."),
        _parameter("vad_filter", _FLAG, "Whether a detector drops audio without speech."),
        _parameter("diarize", _FLAG, "Tell speakers apart, if a speaker model is installed."),
    ],
    "requestBody": _form("audio_file", {}),
}
DETECTION: Final[dict[str, Any]] = {
    "parameters": [_ENCODE],
    "requestBody": _form("audio_file", {}),
}
INFERENCE: Final[dict[str, Any]] = {
    "requestBody": _form(
        "file",
        {
            "response_format": {"enum": list(FORMATS), "default": "json"},
            "language": {**_TEXT, "description": "A code, an English name, or auto."},
            "prompt": {**_TEXT, "description": "Text that gives the engine context."},
            "temperature": {**_NUMBER, "minimum": 0, "maximum": 1},
            "translate": {**_FLAG, "description": "true is answered by 400."},
            "diarize": {**_FLAG, "description": "Transcribe each channel separately."},
            "no_timestamps": {**_FLAG, "description": "For verbose_json: leave the times out."},
            "token_timestamps": {**_FLAG, "description": "For verbose_json: words with times."},
            "max_len": {**_NUMBER, "description": "For srt and vtt: most characters in a cue."},
            "vad": {**_FLAG, "description": "Whether a detector drops audio without speech."},
            "vad_min_silence_duration_ms": _NUMBER,
            "vad_speech_pad_ms": _NUMBER,
        },
    )
}
