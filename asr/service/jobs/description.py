"""The routes of jobs in the OpenAPI document: what FastAPI cannot derive from their functions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from asr.config import SubtitleOptions
from asr.output.formats import EXTENSIONS, FORMATS
from asr.service.jobs.creation import MAX_KEY_LENGTH
from asr.service.jobs.documents import ORIGINAL
from asr.service.jobs.labels import MAX_PAIRS, MAX_VALUE_LENGTH
from asr.service.transcriptions.bodies import ErrorBody, transcription_body

_RANGES: Final = {
    "max_line_width": (10, 500),
    "max_line_count": (1, 10),
    "max_cue_duration": (0.5, 60),
    "min_cue_duration": (0, 10),
    "max_cps": (1, 1000),
    "min_gap": (0, 1),
}
"""The ranges that `SubtitleOptions` checks."""

METADATA_SCHEMA: Final = {
    "type": "object",
    "maxProperties": MAX_PAIRS,
    "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_LENGTH},
    "description": "Shown with the job, and found by a search. Keys have 1 to 64 characters.",
}
METADATA_PARAMETER: Final = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "description": "Pairs that the jobs must have, such as `metadata[project]=radio`.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A request that comes again with its key gets the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
}
LAST_EVENT: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that the client received.",
    "schema": {"type": "string", "pattern": "^[0-9]{0,9}$"},
}
EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The events",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The client has received the last event"},
}


ORIGINAL_PARAMETER: Final = {
    "name": ORIGINAL,
    "in": "query",
    "description": "What the engine wrote, without the corrections.",
    "schema": {"type": "boolean", "default": False},
}


def transcripts() -> dict[int | str, dict[str, Any]]:
    """The answers to a download."""
    kinds = {FORMATS[name].content_type.partition(";")[0] for name in EXTENSIONS.values()}
    content = {kind: {"schema": {"type": "string"}} for kind in sorted(kinds)}
    content["application/json"] = {"schema": {"$ref": "#/components/schemas/Transcript"}}
    found = {"description": "The transcript", "content": content}
    return {200: found, 304: {"description": "not modified since the ETag"}}


def subtitle_parameters() -> list[dict[str, Any]]:
    """The options that a download may override."""
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return [
        ORIGINAL_PARAMETER,
        *(
            {
                "name": item.name,
                "in": "query",
                "description": item.metadata["doc"],
                "schema": {"type": kinds[type(item.default)], **_range(item.name)},
            }
            for item in fields(SubtitleOptions)
        ),
    ]


def _range(name: str) -> dict[str, float]:
    return dict(zip(("minimum", "maximum"), _RANGES.get(name, ()), strict=False))


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers with the body of an error."""
    return {status: {"model": ErrorBody} for status in (401, 503, *statuses)}


def creation_body() -> dict[str, Any]:
    """The body of a request that creates a job."""
    body = transcription_body(for_job=True)
    for media in body["content"].values():
        if "properties" in media["schema"]:
            media["schema"]["properties"]["metadata"] = METADATA_SCHEMA
    return body
