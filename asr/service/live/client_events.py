"""The events that a client sends, as in OpenAI's Realtime API, and the settings of a session."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from asr.config import DecodeOptions, VadKind, VadOptions
from asr.errors import AsrError, InvalidOption
from asr.service.errors import Malformed, TooLarge
from asr.service.json_text import check_structure
from asr.service.live.delay import DEFAULT, DELAYS, Delay, DelayName
from asr.service.live.formats import TELEPHONE_RATE, AudioFormat
from asr.service.transcriptions.form import ServerVad, server_vad_options

MAX_EVENT_CHARACTERS: Final = 256 << 10
"""The limit of an event without audio."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class PcmFormat(_Given):
    """16-bit little-endian PCM, mono. OpenAI accepts only 24 kHz."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[8000, 16000, 24000, 48000] = 24000


class MuLawFormat(_Given):
    """G.711 mu-law at 8 kHz."""

    type: Literal["audio/pcmu"]


class ALawFormat(_Given):
    """G.711 A-law at 8 kHz."""

    type: Literal["audio/pcma"]


Format = Annotated[PcmFormat | MuLawFormat | ALawFormat, Field(discriminator="type")]


class Transcription(_Given):
    """Options of the recogniser. `model` may be any name; `partial_results` is ours."""

    model: str | None = None
    language: str | None = Field(None, pattern=r"^[A-Za-z-]{2,20}$")
    languages: list[str] = Field([], max_length=1)
    prompt: str | None = Field(None, max_length=8192)
    keywords: list[str] = Field([], max_length=100)
    delay: DelayName | None = None
    partial_results: bool = True


class TurnDetection(ServerVad):
    """OpenAI's server VAD, with OpenAI's defaults."""

    model_config = ConfigDict(extra="ignore")

    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=5000)
    silence_duration_ms: int = Field(500, ge=30, le=30000)


class Input(_Given):
    """``session.audio.input``. If a field is absent, its setting does not change."""

    format: Format | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class AudioSettings(_Given):
    """``session.audio``."""

    input: Input = Input()


class SessionUpdate(_Given):
    """``session`` of a session.update."""

    type: Literal["transcription"] = "transcription"
    audio: AudioSettings = AudioSettings()


class Update(_Given):
    """Change settings of the session."""

    type: Literal["session.update"]
    event_id: str | None = Field(None, max_length=512)
    session: SessionUpdate


class Append(_Given):
    """More audio, in base64."""

    type: Literal["input_audio_buffer.append"]
    event_id: str | None = Field(None, max_length=512)
    audio: str


class Commit(_Given):
    """End the turn here."""

    type: Literal["input_audio_buffer.commit"]
    event_id: str | None = Field(None, max_length=512)


class Clear(_Given):
    """Discard the audio that was not committed."""

    type: Literal["input_audio_buffer.clear"]
    event_id: str | None = Field(None, max_length=512)


ClientEvent = Update | Append | Commit | Clear
_EVENT: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])


def parse_event(text: str) -> ClientEvent:
    """Check a client's event.

    Raises:
        InvalidOption: a field is wrong.
        Malformed: the text is not JSON, or has too many values.
        TooLarge: it is long and has no audio.
    """
    check_structure(text)
    try:
        event = _EVENT.validate_json(text)
    except ValidationError as error:
        raise _explain(error) from error
    if len(text) > MAX_EVENT_CHARACTERS and not isinstance(event, Append):
        message = f"an event without audio may have {MAX_EVENT_CHARACTERS} characters"
        raise TooLarge(message, "too_large")
    return event


def _explain(error: ValidationError) -> AsrError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # In a discriminated union, the location contains the tag of a branch, which is not a field.
    names = [str(part) for part in first["loc"] if "." not in str(part) and "/" not in str(part)]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names.append("type")
    if not names:
        return Malformed(first["msg"], "invalid_value")
    return InvalidOption(".".join(names), first["msg"])


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The settings of a session.

    Attributes:
        vad: finds turns, unless it is off.
        may_send_partials: whether the server allows partial results.
    """

    vad: VadKind
    may_send_partials: bool = True
    format: AudioFormat = field(default_factory=AudioFormat)
    transcription: Transcription = field(default_factory=lambda: Transcription.model_validate({}))
    turn_detection: TurnDetection | None = field(
        default_factory=lambda: TurnDetection.model_validate({"type": "server_vad"})
    )

    def updated(self, update: SessionUpdate) -> SessionConfig:
        """The settings with the client's changes. A null `turn_detection` disables the server VAD.

        Raises:
            InvalidOption: a value that the recogniser cannot use.
        """
        given = update.audio.input
        changed = self
        for name in given.model_fields_set:
            value = getattr(given, name)
            if name == "format":
                value = _audio_format(value)
            elif name == "transcription":
                value = value or Transcription.model_validate({})
            changed = replace(changed, **{name: value})
        _ = changed.decode, changed.vad_options  # these raise InvalidOption
        return changed

    @property
    def decode(self) -> DecodeOptions:
        """The options for the engine."""
        options = self.transcription
        return DecodeOptions(
            language=options.language or next(iter(options.languages), None),
            prompt=options.prompt or None,
            keywords=tuple(options.keywords),
        )

    @property
    def partials(self) -> Delay | None:
        """When partial results are sent; None if they are turned off."""
        if not (self.may_send_partials and self.transcription.partial_results):
            return None
        return DELAYS[self.transcription.delay or DEFAULT]

    @property
    def vad_options(self) -> VadOptions:
        """Options of the VAD. It finds turns, or the speech in turns that the client commits."""
        if self.turn_detection is None:
            return VadOptions(kind=self.vad)
        kind: VadKind = "webrtc" if self.vad == "off" else self.vad
        return VadOptions(kind=kind, **server_vad_options(self.turn_detection))

    def body(self, session_id: str) -> dict[str, Any]:
        """OpenAI's session object."""
        form: dict[str, Any] = {"type": self.format.encoding}
        if self.format.encoding == "audio/pcm":
            form["rate"] = self.format.rate
        transcription = self.transcription.model_dump(exclude_defaults=True)
        turns = self.turn_detection
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": form,
                    "noise_reduction": None,
                    "transcription": transcription,
                    "turn_detection": turns and turns.model_dump(),
                }
            },
            "include": None,
        }


def _audio_format(given: Format | None) -> AudioFormat:
    match given:
        case None:
            return AudioFormat()
        case PcmFormat(rate=rate):
            return AudioFormat("audio/pcm", rate)
        case other:
            return AudioFormat(other.type, TELEPHONE_RATE)
