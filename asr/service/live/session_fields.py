"""The settings of a session as a client sends them: the object ``session`` of a session.update.

The models have OpenAI's names and defaults. Both forms of OpenAI's API are read: the present one,
with everything under ``audio.input``, and the beta form (`beta.py`). Fields that change nothing are
found by `unused_fields`, so that the client can be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from asr.service.live.beta import FORMATS, is_flat, nested
from asr.service.live.delay import DelayName  # noqa: TC001  # pydantic reads the annotation
from asr.service.live.formats import TELEPHONE_RATE, Encoding
from asr.text.languages import is_automatic, read_language

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ModelWrapValidatorHandler, ValidationInfo

LOGPROBS: Final = "item.input_audio_transcription.logprobs"
INPUT: Final = "session.audio.input"
Rate = Literal[8000, 16000, 24000, 48000]
Language = Annotated[str, Field(max_length=64)]
PAUSES: Final = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
"""Milliseconds of silence that end a turn, by the `eagerness` of ``semantic_vad``. They are a
quarter of OpenAI's longest waits (8, 4 and 2 s), and "high" equals the default of the server VAD.
OpenAI chooses a pause below its longest wait by the meaning of the words, which we do not judge."""
_ECHOED: Final = frozenset({"id", "object", "expires_at", "client_secret"})
"""Fields of the session that the server sent. Clients send them back with their changes."""
_MAX_NAME: Final = 100
_NO_RESPONSES: Final = "the service makes no responses"


class _Given(BaseModel):
    """Keeps unknown fields, so that the client can be told about them. Null means the default."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _default_for_null(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: cls._default(name) if it is None else it for name, it in value.items()}

    @classmethod
    def _default(cls, name: str) -> Any:
        known = cls.model_fields.get(name)
        if known is None or known.is_required():
            return None
        return known.get_default(call_default_factory=True)

    def unused(self) -> Iterator[str]:
        """What has no effect in this object; the objects in it are not looked at.

        Yields:
            Sentences that begin with the name of a field.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _ECHOED:
                yield f"{name[:_MAX_NAME]} has no effect"

    def sent(self) -> dict[str, Any]:
        """The known fields that were sent, in the present form."""
        names = self.model_fields_set & type(self).model_fields.keys()
        values = ((name, getattr(self, name)) for name in sorted(names))
        return {name: it.sent() if isinstance(it, _Given) else it for name, it in values}


class Format(_Given):
    """Mono audio: 16-bit little-endian PCM, or G.711. OpenAI accepts PCM only at 24 kHz."""

    type: Encoding = "audio/pcm"
    rate: Rate | None = None

    @model_validator(mode="before")
    @classmethod
    def _beta_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"type": value}
        kind = value.get("type") if isinstance(value, dict) else None
        return (
            value | {"type": FORMATS[kind]} if isinstance(kind, str) and kind in FORMATS else value
        )

    @field_validator("rate")
    @classmethod
    def _telephone(cls, rate: Rate | None, info: ValidationInfo) -> Rate | None:
        if info.data.get("type", "audio/pcm") != "audio/pcm" and rate not in (None, TELEPHONE_RATE):
            raise ValueError(f"G.711 has {TELEPHONE_RATE}; leave the field out")
        return rate


class Transcription(_Given):
    """Options of the recogniser. `model` may be any name.

    `partial_results` and `speakers` are ours.
    """

    model: str | None = None
    language: Language | None = None
    languages: list[Language] = Field(default=[], max_length=100)
    prompt: str | None = Field(default=None, max_length=8192)
    keywords: list[str] = Field(default=[], max_length=100)
    delay: DelayName | None = None
    partial_results: bool = True
    speakers: str | None = Field(default=None, max_length=16)

    @field_validator("language", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("speakers", mode="before")
    @classmethod
    def _number_is_text(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

    @field_validator("languages", mode="before")
    @classmethod
    def _without_empty(cls, value: Any) -> Any:
        return [it for it in value if it != ""] if isinstance(value, list) else value

    @field_validator("languages")
    @classmethod
    def _contains_language(cls, languages: list[str], info: ValidationInfo) -> list[str]:
        language = info.data.get("language")
        if not languages or not language or is_automatic(language):
            return languages
        if _code(language) not in map(_code, languages):
            raise ValueError(f"language is {language!r}, which is not in the list; send one field")
        return languages


def _code(text: str) -> str | None:
    """A language as a code, so that two spellings of it are equal."""
    try:
        return read_language(text).code
    except ValueError:  # it is refused later, with its name
        return text


class _Turns(_Given):
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def unused(self) -> Iterator[str]:
        yield from super().unused()
        for name in ("create_response", "interrupt_response"):
            if getattr(self, name):
                yield f"{name} has no effect: {_NO_RESPONSES}"


class ServerVadTurns(_Turns):
    """Turns end after a pause of `silence_duration_ms`."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=30, le=30000)
    idle_timeout_ms: int | None = None

    def unused(self) -> Iterator[str]:
        """Also names `idle_timeout_ms`."""
        yield from super().unused()
        if self.idle_timeout_ms is not None:
            yield f"idle_timeout_ms has no effect: {_NO_RESPONSES}"


class SemanticVadTurns(_Turns):
    """Turns end after a pause whose length depends on `eagerness`."""

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def as_server_vad(self) -> ServerVadTurns:
        """The server VAD that serves this one."""
        return ServerVadTurns(silence_duration_ms=PAUSES[self.eagerness])

    def unused(self) -> Iterator[str]:
        """Also tells what the service does instead of judging the meaning of the words."""
        yield from super().unused()
        seconds = PAUSES[self.eagerness] / 1000
        yield f"eagerness: turns end after a pause of {seconds:g} s, whatever the words mean"


TurnDetection = Annotated[ServerVadTurns | SemanticVadTurns, Field(discriminator="type")]


class NoiseReduction(_Given):
    """OpenAI's filter, which we do not have."""

    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


class Input(_Given):
    """``session.audio.input``. If a field is absent, its setting does not change."""

    format: Format | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None
    noise_reduction: NoiseReduction | None = None

    @field_validator("turn_detection", mode="before")
    @classmethod
    def _server_vad_unless_named(cls, value: Any) -> Any:
        is_nameless = isinstance(value, dict) and value.get("type") is None
        return value | {"type": "server_vad"} if is_nameless else value

    def unused(self) -> Iterator[str]:
        """Also names `noise_reduction`."""
        yield from super().unused()
        if self.noise_reduction is not None:
            yield "noise_reduction has no effect: the audio is not filtered"


class AudioSettings(_Given):
    """``session.audio``."""

    input: Input = Input()


class SessionUpdate(_Given):
    """``session`` of a session.update, in either form."""

    type: Literal["transcription"] = "transcription"
    audio: AudioSettings = AudioSettings()
    include: list[Literal["item.input_audio_transcription.logprobs"]] = []
    _is_flat: bool = PrivateAttr(default=False)

    @model_validator(mode="wrap")
    @classmethod
    def _from_either_form(
        cls, value: Any, handler: ModelWrapValidatorHandler[SessionUpdate]
    ) -> SessionUpdate:
        flat = isinstance(value, dict) and is_flat(value)
        update = handler(nested(value) if flat else value)
        if flat:
            update._is_flat = True
        return update

    @property
    def is_flat(self) -> bool:
        """Whether the client used the beta form."""
        return self._is_flat

    @property
    def is_nested(self) -> bool:
        """Whether the client used a field that only the present form has."""
        return not self._is_flat and bool(self.model_fields_set & {"type", "audio"})


def unused_fields(given: _Given, path: str) -> Iterator[str]:
    """A warning for each field of `given`, and of the objects in it, that has no effect."""
    yield from (f"{path}.{sentence}" for sentence in given.unused())
    for name in sorted(given.model_fields_set & type(given).model_fields.keys()):
        value = getattr(given, name)
        if isinstance(value, _Given):
            yield from unused_fields(value, f"{path}.{name}")
