"""The fields of a request: a pydantic form, and the checked `TranscriptionRequest` made from it.

The names of the fields are OpenAI's. The fields after the comment "ours" are extensions. All values
in a `TranscriptionRequest` have been checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from asr.config import (
    MAX_TRACK,
    AudioLimits,
    Channels,
    DecodeOptions,
    OnError,
    Options,
    SubtitleOptions,
    VadKind,
    VadOptions,
)
from asr.service.http.fields import check_fields
from asr.service.http.problems import NO_ID, Problem
from asr.service.transcriptions.decoding import decode_options
from asr.service.transcriptions.gather import gather
from asr.service.transcriptions.speakers import NOT_CHECKED, choose_speakers
from asr.service.transcriptions.unused import without_effect
from asr.text.languages import is_automatic
from asr.text.script import read_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ResponseFormat = Literal[
    "json", "text", "srt", "vtt", "verbose_json", "diarized_json", "tsv", "rttm", "full_json"
]
Granularity = Literal["word", "segment"]
Purpose = Literal["transcription", "job", "alignment"]
TRANSLATE_ADVICE: Final = (
    "this service does not translate: send the recording to /v1/audio/transcriptions without task, "
    "which writes the language that is spoken, and translate its text with another service"
)
NOT_TRANSLATED: Final = "translation_not_supported"
"""The code of an error."""
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
    purpose: ClassVar[Purpose] = "transcription"

    model: str = Field(
        "",
        description="Any name. The answer tells which engine was used, with a warning if "
        "/v1/models does not list the name.",
    )
    task: str | None = Field(None, description="`transcribe`; `translate` is refused.")
    language: str | None = Field(
        None,
        description="ISO-639-1 code, such as en. Also understood: eng, en-US, en_US, English. With "
        "auto, or without this field, the engine chooses.",
    )
    languages: list[str] = Field(
        [],
        description="Languages that may be spoken, instead of `language`. An engine that cannot "
        "choose uses the first one that it recognises, and warns.",
        max_length=100,
    )
    prompt: str | None = Field(
        None, description="Text that gives the engine context, such as the topic.", max_length=8192
    )
    keywords: list[str] = Field(
        [],
        description="Names and terms that may occur. omni and omni-local use at most 100 "
        "characters of each and 2000 in total, and warn about the rest. A keyword that is empty, "
        "or has line breaks, < or >, is left out with a warning.",
        max_length=100,
    )
    response_format: ResponseFormat = Field(
        "json",
        description="tsv, rttm and full_json are extensions; full_json has every word with its "
        "confidence, time and speaker.",
    )
    temperature: float | None = Field(None, ge=0, le=1)
    timestamp_granularities: list[Granularity] = Field(
        [],
        description="For verbose_json: whether it has words, segments or both. json and the last "
        "event of a stream get them in addition to the text.",
    )
    include: list[Literal["logprobs"]] = Field(
        [],
        description="logprobs adds the logarithm of each word's confidence, for json, "
        "verbose_json and streams.",
    )
    known_speaker_names: list[str] = Field(
        [],
        description="Names of speakers whose voices are known: by `known_speaker_references`, or "
        "stored with PUT /v1/speakers.",
    )
    known_speaker_references: list[str] = Field(
        [],
        description="A recording of each of these speakers alone, 2 to 10 seconds, as a data URL.",
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
        description="split transcribes each channel separately and sorts the segments by time. "
        "If there are several audio tracks, each is one channel.",
    )
    speakers: str | None = Field(
        None,
        description="Tell speakers apart by their voices: off, auto, their number, or a range such "
        "as 2-5. The default is auto with diarized_json or known speakers if the channels are "
        "mixed and a speaker model is installed, else off.",
    )
    track: int | None = Field(
        None,
        ge=0,
        le=MAX_TRACK,
        description="The only audio track to transcribe, from 0. By default the track that players "
        "choose, or another one if it is silent.",
    )
    on_error: OnError | None = Field(
        None,
        description="If a stretch cannot be transcribed: fail ends with an error (default of "
        "requests), gap lists the stretch in `gaps` and goes on (default of jobs).",
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
    speaker_labels: bool = _subtitle("speaker_labels")

    @field_validator("chunking_strategy", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except RecursionError:  # thousands of brackets
                raise ValueError("is nested too deeply") from None
        return value

    @field_validator("task")
    @classmethod
    def _transcribe(cls, value: str | None) -> str | None:
        if value is not None and value.lower() == "translate":
            raise PydanticCustomError(NOT_TRANSLATED, TRANSLATE_ADVICE)
        if value is not None and value.lower() != "transcribe":
            raise ValueError("must be transcribe")
        return value


class JobForm(TranscriptionForm):
    """The fields of ``POST /v1/jobs``. Each download of the transcript chooses its format."""

    purpose: ClassVar[Purpose] = "job"
    keep_recording: bool = Field(
        False,
        description="Keep the recording until the job is deleted or expires, to listen to it and "
        "to correct the transcript. By default it is removed when the job ends.",
    )


class AlignmentForm(TranscriptionForm):
    """The fields of ``POST /v1/align``, except the file."""

    purpose: ClassVar[Purpose] = "alignment"
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
    on_error: Literal["fail"] | None = Field(None, description="Alignment has no gaps.")


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A checked request. With `text` it asks for alignment, else for a transcription.

    Attributes:
        on_error: as sent, or None. The default in `options` is that of requests.
        known_names: names of known speakers; empty if speakers are not told apart.
        references: their voices as data URLs.
    """

    options: Options
    subtitles: SubtitleOptions
    response_format: ResponseFormat
    granularities: frozenset[str]
    stream: bool
    warnings: tuple[str, ...]
    text: str | None = None
    upload_id: str | None = None
    logprobs: bool = False
    on_error: OnError | None = None
    keep_lines: bool | None = None
    keep_recording: bool = False
    known_names: tuple[str, ...] = ()
    references: tuple[str, ...] = field(default=(), repr=False)


def parse_fields(
    pairs: Iterable[tuple[str, str]],
    default_vad: VadKind,
    limits: AudioLimits,
    kind: type[TranscriptionForm] = TranscriptionForm,
    no_speakers: str = NOT_CHECKED,
) -> TranscriptionRequest:
    """Check the fields of a form or query. The name of a list may end with ``[]``.

    Args:
        pairs: name and value of each field.
        default_vad: the detector if the request names none.
        limits: the limits on the audio.
        kind: the form that the fields must fit.
        no_speakers: why speakers cannot be told apart by voice; empty if they can.

    Raises:
        Problem: 400, a field is wrong, or there are too many. The message names the field and says
            what is accepted.
        InvalidOption: an option's own check fails.
    """
    pairs = list(pairs)
    check_fields(pairs, "text" if kind is AlignmentForm else "")  # a text has its own limit
    try:
        form = kind.model_validate(gather(pairs, kind.model_fields))
    except ValidationError as error:
        raise _explain(error) from error
    extra = form.model_extra or {}
    unknown = tuple(f"field {name!r} is not known and was ignored" for name in extra)
    decode, notes = _decode(form)
    speakers = choose_speakers(form, no_speakers)
    has_known = speakers is not None
    return TranscriptionRequest(
        options=Options(
            vad=_vad(form, default_vad),
            decode=decode,
            limits=limits,
            channels=form.channels,
            track=form.track,
            on_error=form.on_error or "fail",
            speakers=speakers,
        ),
        subtitles=SubtitleOptions(**form.model_dump(include=_SUBTITLE_NAMES)),
        response_format=form.response_format,
        granularities=frozenset(form.timestamp_granularities),
        stream=form.stream,
        warnings=(*unknown, *notes, *without_effect(form, default_vad, by_voice=has_known)),
        text=_text(form) if isinstance(form, AlignmentForm) else None,
        upload_id=form.upload_id,
        logprobs="logprobs" in form.include,
        on_error=form.on_error,
        keep_lines=form.keep_lines if isinstance(form, AlignmentForm) else None,
        keep_recording=isinstance(form, JobForm) and form.keep_recording,
        known_names=tuple(form.known_speaker_names) if has_known else (),
        references=tuple(form.known_speaker_references) if has_known else (),
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


def _explain(error: ValidationError) -> Problem:
    """The answer to the first wrong field.

    A field that may be an object has an error for each thing that it may be. The error inside the
    object says most.
    """
    errors = error.errors()
    place = errors[0]["loc"][:1]
    found = max((it for it in errors if it["loc"][:1] == place), key=lambda it: len(it["loc"]))
    name = str(place[0]) if place else "body"
    inside = f"{found['loc'][-1]}: " if len(found["loc"]) > 2 else ""
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "string_pattern_mismatch":  # only ids have a pattern
        message = NO_ID
    code = NOT_TRANSLATED if found["type"] == NOT_TRANSLATED else "invalid_value"
    return Problem(400, f"{name}: {inside}{message}", code, name)


def _decode(form: TranscriptionForm) -> tuple[DecodeOptions, tuple[str, ...]]:
    if form.languages and form.language and not is_automatic(form.language):
        message = "languages: send either language or languages, not both"
        raise Problem(400, message, "invalid_value", "languages")
    is_alignment = form.purpose == "alignment"  # `without_effect` names what it does not use
    return decode_options(
        language=form.language,
        languages=form.languages,
        prompt=None if is_alignment else form.prompt,
        keywords=() if is_alignment else form.keywords,
        temperature=None if is_alignment else form.temperature,
        model=form.model,
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
