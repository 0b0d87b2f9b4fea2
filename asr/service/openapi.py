"""Completes the OpenAPI document that FastAPI derives from the routes.

FastAPI sees only what the functions of the routes declare. It knows neither that every error has
OpenAI's shape, nor how keys are sent, nor the answers that are written by hand.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from asr.output.formats import FORMATS
from asr.service.transcriptions.bodies import ErrorBody, TranscriptBody

if TYPE_CHECKING:
    from fastapi import FastAPI

Document = dict[str, Any]

_TEXT: Final = {"type": "string"}
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_REQUEST_ID: Final = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "The id of this request in the log and in the answer.",
    "schema": _TEXT,
}
_OPEN: Final = ("/health", "/ready")
"""These need no key."""
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
_NO_BODY: Final = ("204", "304")


def _object(required: str, **properties: Any) -> Document:
    schema = {"type": "object", "properties": properties, "additionalProperties": True}
    return {**schema, "required": required.split()}


_MODEL: Final = _object(
    "id object created owned_by",
    id=_TEXT,
    object={"type": "string", "const": "model"},
    created={"type": "integer"},
    owned_by=_TEXT,
    engine=_TEXT,
    ready={"type": "boolean"},
)
_MODELS: Final = _object(
    "object data",
    object={"type": "string", "const": "list"},
    data={"type": "array", "items": _MODEL},
)
_READY: Final = _object(
    "status engine",
    status={"type": "string", "enum": ["ready", "loading", "unavailable"]},
    engine=_TEXT,
    reason=_TEXT,
    jobs={"type": "string", "description": "Why jobs cannot be used now."},
)
_TRANSCRIPTION: Final = _object(
    "text",
    text=_TEXT,
    language=_TEXT,
    duration={"type": "number", "description": "Seconds of audio."},
    segments={"type": "array", "items": {"type": "object"}},
    words={"type": "array", "items": {"type": "object"}},
)


def _content(kinds: dict[str, Any]) -> Document:
    return {kind: {"schema": schema} for kind, schema in kinds.items()}


def _media(content_type: str) -> str:
    return content_type.partition(";")[0]


TEXT_KINDS: Final = {
    _media(kind.content_type): _TEXT
    for kind in FORMATS.values()
    if kind.content_type != "application/json"
}
"""The formats of transcripts that are not JSON, by content type."""
_TRANSCRIPTS: Final = {
    "application/json": {
        "anyOf": [
            {"$ref": "#/components/schemas/Transcription"},
            {"$ref": "#/components/schemas/Transcript"},
        ]
    },
    **TEXT_KINDS,
    "text/event-stream": _TEXT,
}
_OTHER_DIALECT: Final = {
    "application/json": {"$ref": "#/components/schemas/Transcription"},
    **TEXT_KINDS,
}
_ANSWERS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("post", "/v1/audio/transcriptions"): _TRANSCRIPTS,
    ("post", "/v1/align"): _TRANSCRIPTS,
    ("post", "/asr"): _OTHER_DIALECT,
    ("post", "/inference"): _OTHER_DIALECT,
    ("get", "/v1/models"): {"application/json": _MODELS},
    ("get", "/v1/models/{name}"): {"application/json": _MODEL},
    ("get", "/ready"): {"application/json": _READY},
    ("get", "/metrics"): {"text/plain": _TEXT},
}
"""The successful answers whose type FastAPI does not know."""


def install_document(app: FastAPI) -> None:
    """Make an application serve the complete document."""
    derive = app.openapi

    def openapi() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = complete(derive())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def complete(document: Document) -> Document:
    """Add to a document what FastAPI cannot derive."""
    document["info"]["version"] = version("asr-service")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    document["components"]["securitySchemes"] = _SCHEMES
    _add_model(schemas, ErrorBody, "ErrorBody")
    _add_model(schemas, TranscriptBody, "Transcript")
    schemas["Transcription"] = _TRANSCRIPTION
    for path, methods in document["paths"].items():
        for method in set(methods) & set(_METHODS):
            _complete_operation(methods[method], method, path)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _add_model(schemas: Document, model: Any, name: str) -> None:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[name] = schema


def _complete_operation(operation: Document, method: str, path: str) -> None:
    responses = operation["responses"]
    # FastAPI appends path and method to the name of the function, which is unique already.
    suffix = re.sub(r"\W", "_", path) + f"_{method}"
    operation["operationId"] = operation["operationId"].removesuffix(suffix)
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]  # we answer 400
    if kinds := _ANSWERS.get((method, path)):
        responses["200"]["content"] = _content(kinds)
    if path == "/ready":
        responses["503"] = {"description": "Not ready", "content": _content(_ANSWERS["get", path])}
    if path not in _OPEN:
        operation.setdefault("parameters", []).append(_REQUEST_ID)
        operation["security"] = [{name: []} for name in _SCHEMES] + [{}]
        error = {"application/json": {"$ref": "#/components/schemas/ErrorBody"}}
        responses["default"] = {"description": "An error", "content": _content(error)}
    for status in _NO_BODY:
        responses.get(status, {}).pop("content", None)
