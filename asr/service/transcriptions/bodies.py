"""The bodies of answers as pydantic models, and the body of a request, for OpenAPI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from asr.service.transcriptions.form import TranscriptionForm


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WordBody(_Answer):
    """A word of a full transcript."""

    text: str
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    confidence: float | None = Field(description="0 to 1; null if it was not measured.")
    timing: Literal["aligned", "engine", "interpolated"] = Field(
        description="Source of the times: forced alignment, the engine, or interpolation."
    )
    speaker: str | None = Field(
        default=None, description="Who says it; absent if speakers were not told apart by voice."
    )
    speaker_confidence: float | None = Field(
        default=None, description="0 to 1: how likely it is that this speaker says it."
    )
    overlapped: bool = Field(
        default=False, description="Whether another voice may be active during the word."
    )


class SegmentBody(_Answer):
    """A segment of a full transcript."""

    id: int
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    text: str
    avg_logprob: float | None
    channel: int | None = Field(
        description="The number of the channel, from 0; null unless channels=split."
    )
    speaker: str | None = Field(description="The speaker; null if speakers were not separated.")
    speaker_confidence: float | None = Field(
        default=None,
        description="0 to 1, the mean over the words; absent unless speakers were told apart by "
        "voice.",
    )
    warnings: list[str]
    words: list[WordBody]


class GapBody(_Answer):
    """A stretch of the recording that could not be transcribed."""

    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    reason: Literal["engine_failed", "engine_timeout", "decoder_stopped"] = Field(
        description="The engine failed or did not answer in time, or the recording is damaged from "
        "here to its end."
    )
    channel: int | None = Field(
        description="The number of the channel, from 0; null if all channels have the gap."
    )
    speaker: str | None = Field(description="The speaker; null if speakers were not separated.")


class TranscriptBody(_Answer):
    """``response_format=full_json``, and the output of ``asr transcribe -f json``."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"title": "Transcript"})

    schema_: Literal["asr.transcript.v1"] = Field(
        alias="schema", description="The version of this format."
    )
    text: str
    language: str
    duration: float = Field(description="Seconds of audio.")
    speech_seconds: float = Field(description="Seconds of audio sent to the engine.")
    dropped_seconds: float = Field(description="Seconds that the VAD classified as no speech.")
    engine: str
    aligner: str | None
    warnings: list[str]
    gaps: list[GapBody] = Field(
        default=[], description="What could not be transcribed; empty unless on_error=gap."
    )
    segments: list[SegmentBody]


class ErrorDetail(_Answer):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Answer):
    """The body of every error."""

    error: ErrorDetail


def transcription_body(
    form: type[TranscriptionForm] = TranscriptionForm, *, for_job: bool = False
) -> dict[str, Any]:
    """The OpenAPI description of a request body.

    FastAPI cannot derive it, because we parse the body as a stream.

    Args:
        form: the fields of the request.
        for_job: add the fields that only jobs have.
    """
    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    server_vad = schema.pop("$defs")["ServerVad"]
    for option in schema["properties"]["chunking_strategy"]["anyOf"]:
        if "$ref" in option:
            option.clear()
            option.update(server_vad)
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    if for_job:
        schema["properties"]["callback_url"] = {"type": "string", "format": "uri"}
    also = ["text"] if "text" in schema["properties"] else []
    schema["required"] = ["file", *also]
    schema.pop("additionalProperties", None)
    named = {**schema, "required": ["upload_id", *also]}
    named["properties"] = {k: v for k, v in schema["properties"].items() if k != "file"}
    raw = {"schema": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": schema},
            "application/json": {"schema": _with_base64(named, also)},
            "application/x-www-form-urlencoded": {"schema": named},
            "audio/*": raw,
        },
    }


def _with_base64(form: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """The schema of a JSON body, which may hold the recording instead of naming an upload."""
    text = {"type": "string", "description": "The recording in base64, or as a data URL."}
    record = {
        "type": "object",
        "description": "The recording as OpenRouter's clients send it.",
        "properties": {"data": text, "format": {"type": "string"}},
        "required": ["data"],
    }
    properties = {**form["properties"], "file": text, "input_audio": record}
    return {**form, "properties": properties, "required": required}
