"""The fields of a request: a pydantic form, and the checked `TranscriptionRequest` made from it.

The names of the fields are OpenAI's. The fields after the comment "ours" are extensions. All values
in a `TranscriptionRequest` have been checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from asr.config import (
    AudioLimits,
    Channels,
    DecodeOptions,
    Options,
    SubtitleOptions,
    VadKind,
    VadOptions,
)
from asr.service.http.fields import check_fields
from asr.service.http.problems import Problem
from asr.text.script import read_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ResponseFormat = Literal[
    "json", "text", "srt", "vtt", "verbose_json", "diarized_json", "tsv", "full_json"
]
Granularity = Literal["word", "segment"]
_SUBTITLE_NAMES = {item.name for item in fields(SubtitleOptions)}


def _subtitle(name: str) -> Any:
    """A field with the default and the description of the same field in `SubtitleOptions`."""
    item = next(item for item in fields(SubtitleOptions) if item.name == name)
    return Field(item.default, description=f"For srt and vtt: {item.metadata['doc']}.")


class ServerVad(BaseModel):
    """OpenAI's ``chunking_strategy`` in its form as an object."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    threshold: float | None = Field(default=None, ge=0, le=1)
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=5000)
    silence_duration_ms: int | None = Field(default=None, ge=30, le=30000)


class TranscriptionForm(BaseModel):
    """The fields of ``POST /v1/audio/transcriptions``, except the file."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str = Field("", description="Any name. The answer tells which engine was used.")
    language: str | None = Field(None, description="ISO-639-1 code.", pattern=r"^[A-Za-z-]{2,20}$")
    languages: list[str] = Field(
        [], description="OpenAI's list form of `language`; at most one code.", max_length=1
    )
    prompt: str | None = Field(
        None, description="Text that gives the engine context, such as the topic.", max_length=8192
    )
    keywords: list[str] = Field(
        [],
        description="Names and terms that may occur. omni and omni-local use at most 100 "
        "characters of each and 2000 in total, and warn about the rest.",
        max_length=100,
    )
    response_format: ResponseFormat = Field(
        "json",
        description="tsv and full_json are extensions; full_json has every word with its "
        "confidence and time.",
    )
    temperature: float | None = Field(None, ge=0, le=1)
    timestamp_granularities: list[Granularity] = Field(
        [], description="For verbose_json: whether it has words, segments or both."
    )
    include: list[str] = Field(
        [], description="OpenAI's field; must be empty, since logprobs are not available."
    )
    stream: bool = Field(False, description="Send server-sent events instead of one answer.")
    chunking_strategy: Literal["auto"] | ServerVad | None = None
    # ours
    upload_id: str | None = Field(
        None,
        description="The id of an upload, instead of a file. An upload that still arrives needs "
        "stream=true.",
        pattern=r"^[0-9a-f]{32}$",
    )
    channels: Channels = Field(
        "mix",
        description="split transcribes each channel separately and sorts the segments by time.",
    )
    vad: VadKind | None = Field(None, description="Voice activity detector: webrtc, silero or off.")
    vad_aggressiveness: int | None = Field(
        None, ge=0, le=3, description="Only for webrtc; 3 drops the most audio."
    )
    vad_threshold: float | None = Field(
        None, gt=0, lt=1, description="Only for silero: the least probability of speech."
    )
    vad_min_silence: float | None = Field(
        None, description="Seconds of silence that end a speech region."
    )
    vad_padding: float | None = Field(
        None, description="Seconds of audio kept before and after speech."
    )
    max_line_width: int = _subtitle("max_line_width")
    max_line_count: int = _subtitle("max_line_count")
    max_cue_duration: float = _subtitle("max_cue_duration")
    min_cue_duration: float = _subtitle("min_cue_duration")
    max_cps: float = _subtitle("max_cps")
    min_gap: float = _subtitle("min_gap")
    highlight_words: bool = _subtitle("highlight_words")

    @field_validator("chunking_strategy", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except RecursionError:  # thousands of brackets
                raise ValueError("is nested too deeply") from None
        return value

    @field_validator("include")
    @classmethod
    def _no_logprobs(cls, value: list[str]) -> list[str]:
        if value:
            raise ValueError("logprobs are not available; ask for full_json, which has confidence")
        return value


class AlignmentForm(TranscriptionForm):
    """The fields of ``POST /v1/align``, except the file."""

    text: str = Field(
        "",
        description="The words of the recording, as a field or a file: plain text, SRT, WebVTT or "
        "LRC in UTF-8. The times of subtitles are not used.",
    )
    keep_lines: bool | None = Field(
        None,
        description="Make each line of the text one segment and one cue. Default: true for SRT, "
        "WebVTT and LRC, else false.",
    )
    response_format: ResponseFormat = Field(
        "full_json", description="As for transcriptions; the default has word times."
    )
    channels: Literal["mix"] = Field("mix", description="Alignment always mixes the channels.")


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A checked request. With `text` it asks for alignment, else for a transcription."""

    options: Options
    subtitles: SubtitleOptions
    response_format: ResponseFormat
    granularities: frozenset[str]
    stream: bool
    warnings: tuple[str, ...]
    text: str | None = None
    upload_id: str | None = None
    keep_lines: bool | None = None


def parse_fields(
    pairs: Iterable[tuple[str, str]],
    default_vad: VadKind,
    limits: AudioLimits,
    kind: type[TranscriptionForm] = TranscriptionForm,
) -> TranscriptionRequest:
    """Check the fields of a form or query. The name of a list may end with ``[]``.

    Args:
        pairs: name and value of each field.
        default_vad: the detector if the request names none.
        limits: the limits on the audio.
        kind: the form that the fields must fit.

    Raises:
        Problem: 400, a field is wrong, or there are too many. The message names the field and says
            what is accepted.
        InvalidOption: an option's own check fails.
    """
    pairs = list(pairs)
    check_fields(pairs, "text" if kind is AlignmentForm else "")  # a text has its own limit
    try:
        form = kind.model_validate(_gather(pairs))
    except ValidationError as error:
        raise _explain(error) from error
    extra = form.model_extra or {}
    unknown = tuple(f"field {name!r} is not known and was ignored" for name in extra)
    return TranscriptionRequest(
        options=Options(
            vad=_vad(form, default_vad),
            decode=_decode(form),
            limits=limits,
            channels=form.channels,
        ),
        subtitles=SubtitleOptions(**form.model_dump(include=_SUBTITLE_NAMES)),
        response_format=form.response_format,
        granularities=frozenset(_granularities(form)),
        stream=form.stream,
        warnings=unknown,
        text=_text(form) if isinstance(form, AlignmentForm) else None,
        upload_id=form.upload_id,
        keep_lines=form.keep_lines if isinstance(form, AlignmentForm) else None,
    )


def _text(form: AlignmentForm) -> str:
    read_script(form.text)  # so that a wrong text is refused before it waits for its turn
    return form.text


def reshaped(chosen: SubtitleOptions, query: Mapping[str, str]) -> SubtitleOptions:
    """Replace subtitle options by those in a query.

    Raises:
        Problem: 400, a field is wrong. The message names it.
        InvalidOption: the options' own check fails.
    """
    given = {name: query[name] for name in _SUBTITLE_NAMES if name in query}
    try:
        form = TranscriptionForm.model_validate(given)
    except ValidationError as error:
        raise _explain(error) from error
    return replace(chosen, **form.model_dump(include=set(given)))


def _is_list(name: str) -> bool:
    item = TranscriptionForm.model_fields.get(name)
    return item is not None and get_origin(item.annotation) is list


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Collect values by name. Skip empty strings.

    The values of a list field become a list, and fields like ``a[b]=c`` become an object.
    """
    gathered: dict[str, Any] = {}
    for raw_name, value in pairs:
        name, _, rest = raw_name.partition("[")
        key = rest.rstrip("]")
        if value == "":
            continue
        if _is_list(name):
            gathered.setdefault(name, []).append(value)
        elif key and isinstance(gathered.setdefault(name, {}), dict):
            gathered[name][key] = value
        elif name in gathered:
            raise Problem(400, f"{name}: sent more than once", "invalid_value", name)
        else:
            gathered[name] = value
    return gathered


def _explain(error: ValidationError) -> Problem:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    message = first["msg"].removeprefix("Value error, ")
    return Problem(400, f"{name}: {message}", "invalid_value", name)


def _granularities(form: TranscriptionForm) -> list[Granularity]:
    if not form.timestamp_granularities:
        return ["segment"]
    if form.response_format != "verbose_json":
        name = "timestamp_granularities"
        message = f"{name}: needs response_format verbose_json, not {form.response_format}"
        raise Problem(400, message, "invalid_value", name)
    return form.timestamp_granularities


def _decode(form: TranscriptionForm) -> DecodeOptions:
    if form.language and form.languages:
        raise Problem(
            400,
            "languages: send either language or languages, not both",
            "invalid_value",
            "languages",
        )
    return DecodeOptions(
        language=form.language or next(iter(form.languages), None),
        prompt=form.prompt,
        keywords=tuple(form.keywords),
        temperature=form.temperature,
    )


def _vad(form: TranscriptionForm, default: VadKind) -> VadOptions:
    strategy = form.chunking_strategy
    server = strategy if isinstance(strategy, ServerVad) else ServerVad(type="server_vad")
    chosen: dict[str, Any] = {
        "kind": form.vad or default,
        "aggressiveness": form.vad_aggressiveness,
        "threshold": form.vad_threshold,
        "min_silence": form.vad_min_silence,
        "padding": form.vad_padding,
    }
    chosen |= server_vad_options(server)
    return VadOptions(**{name: value for name, value in chosen.items() if value is not None})


def server_vad_options(server: ServerVad) -> dict[str, Any]:
    """OpenAI's fields as fields of `VadOptions`, without those that were not sent."""
    chosen: dict[str, Any] = {}
    if server.threshold is not None:
        chosen["threshold"] = min(max(server.threshold, 0.01), 0.99)
        chosen["aggressiveness"] = round(server.threshold * 3)
    if server.prefix_padding_ms is not None:
        chosen["padding"] = server.prefix_padding_ms / 1000
    if server.silence_duration_ms is not None:
        chosen["min_silence"] = server.silence_duration_ms / 1000
    return chosen
