"""The events that a client sends, in the shapes of OpenAI's Realtime API, and what they set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from asr.config import DecodeOptions, VadKind, VadOptions
from asr.service.http.problems import Problem
from asr.service.live.formats import TELEPHONE_RATE, AudioFormat
from asr.service.transcriptions.form import ServerVad, server_vad_options


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class PcmFormat(_Given):
    """16-bit little-endian PCM, mono. OpenAI takes 24 kHz alone."""

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
    """What the recogniser is told; `model` is any name."""

    model: str | None = None
    language: str | None = Field(None, pattern=r"^[A-Za-z-]{2,20}$")
    languages: list[str] = Field([], max_length=1)
    prompt: str | None = Field(None, max_length=8192)
    keywords: list[str] = Field([], max_length=100)


class TurnDetection(ServerVad):
    """OpenAI's server VAD, with OpenAI's defaults."""

    model_config = ConfigDict(extra="ignore")

    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=5000)
    silence_duration_ms: int = Field(500, ge=30, le=30000)


class Input(_Given):
    """``session.audio.input``; a field that is absent stays as it is."""

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
    """Change the session."""

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
    """Forget the audio that was not committed."""

    type: Literal["input_audio_buffer.clear"]
    event_id: str | None = Field(None, max_length=512)


ClientEvent = Update | Append | Commit | Clear
_EVENT: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])


def parse_event(text: str) -> ClientEvent:
    """Check a client's event.

    Raises:
        Problem: 400, which names the field and what is accepted.
    """
    try:
        return _EVENT.validate_json(text)
    except ValidationError as error:
        raise _explain(error) from error


def _explain(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # A discriminated union puts the name of its branch into the location; it is no field.
    names = [str(part) for part in first["loc"] if "." not in str(part) and "/" not in str(part)]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names.append("type")
    param = ".".join(names) or None
    where = f"{param}: " if param else ""
    return Problem(400, where + first["msg"], "invalid_value", param)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What a session is set to."""

    vad: VadKind
    format: AudioFormat = field(default_factory=AudioFormat)
    transcription: Transcription = field(default_factory=lambda: Transcription.model_validate({}))
    turn_detection: TurnDetection | None = field(
        default_factory=lambda: TurnDetection.model_validate({"type": "server_vad"})
    )

    def updated(self, update: SessionUpdate) -> SessionConfig:
        """This, with the fields that the client sent; null switches turn detection off.

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
        _ = changed.decode, changed.vad_options  # checked when made
        return changed

    @property
    def decode(self) -> DecodeOptions:
        """For the engine."""
        told = self.transcription
        return DecodeOptions(
            language=told.language or next(iter(told.languages), None),
            prompt=told.prompt or None,
            keywords=tuple(told.keywords),
        )

    @property
    def vad_options(self) -> VadOptions:
        """For finding turns, or for finding speech in committed ones."""
        if self.turn_detection is None:
            return VadOptions(kind=self.vad)
        kind: VadKind = "webrtc" if self.vad == "off" else self.vad
        return VadOptions(kind=kind, **server_vad_options(self.turn_detection))

    def body(self, session_id: str) -> dict[str, Any]:
        """OpenAI's session object."""
        form: dict[str, Any] = {"type": self.format.encoding}
        if self.format.encoding == "audio/pcm":
            form["rate"] = self.format.rate
        told = self.transcription.model_dump(exclude_defaults=True)
        turns = self.turn_detection
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": form,
                    "noise_reduction": None,
                    "transcription": told,
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
