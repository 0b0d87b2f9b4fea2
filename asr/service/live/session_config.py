"""`SessionConfig`: the settings of a session as they are now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from asr.config import SpeakerOptions, VadKind, VadOptions, check, read_speakers
from asr.errors import InvalidOption
from asr.service.live.beta import beta_names, flat_session
from asr.service.live.delay import DEFAULT, DELAYS, Delay
from asr.service.live.formats import TELEPHONE_RATE, AudioFormat
from asr.service.live.session_fields import (
    INPUT,
    LOGPROBS,
    Format,
    Input,
    SemanticVadTurns,
    ServerVadTurns,
    SessionUpdate,
    Transcription,
    TurnDetection,
    unused_fields,
)
from asr.service.transcriptions.decoding import decode_options
from asr.service.transcriptions.form import ServerVad, server_vad_options

if TYPE_CHECKING:
    from pydantic import BaseModel

    from asr.config import DecodeOptions

MODELS_WITHOUT_VAD: Final = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""OpenAI documents that these models need `turn_detection` absent or null. Their clients commit."""
MAX_WARNINGS: Final = 20
SessionName = Literal["session", "transcription_session"]
"""How the events about the session begin: the second one in the beta form, for transcription."""
M = TypeVar("M", bound="BaseModel")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The settings of a session.

    Attributes:
        vad: finds turns, unless it is off.
        may_send_partials: whether the server allows partial results.
        format: of the client's audio.
        transcription: the options of the recogniser.
        chosen_turns: how the client wants turns to be found; "default" if it did not say.
        include_logprobs: whether completed items have log probabilities.
        is_beta: whether events have the beta form.
        name: how events about the session begin.
        no_speakers: why speakers cannot be told apart; empty if they can.
        recognised: the languages of an engine that refuses all others; empty if it is not known.
    """

    vad: VadKind
    may_send_partials: bool = True
    format: AudioFormat = field(default_factory=AudioFormat)
    transcription: Transcription = field(default_factory=Transcription)
    chosen_turns: TurnDetection | Literal["default"] | None = "default"
    include_logprobs: bool = False
    is_beta: bool = False
    name: SessionName = "session"
    no_speakers: str = ""
    recognised: tuple[str, ...] = ()

    def updated(self, update: SessionUpdate) -> SessionConfig:
        """The settings with the client's changes. A null `turn_detection` disables the VAD.

        Raises:
            InvalidOption: a value that the recogniser cannot use.
        """
        changed = self
        for name in update.audio.input.model_fields_set & Input.model_fields.keys():
            changed = changed._with(name, getattr(update.audio.input, name))
        if "include" in update.model_fields_set:
            changed = replace(changed, include_logprobs=LOGPROBS in update.include)
        if update.is_flat or update.is_nested:
            changed = replace(changed, is_beta=update.is_flat)
        _ = changed.decode, changed.vad_options, changed.speakers  # these raise InvalidOption
        return changed

    def _with(self, name: str, value: Any) -> SessionConfig:
        """The settings with one field of ``audio.input`` changed."""
        match name, value:
            case "format", _:
                return replace(self, format=_audio_format(value or Format()))
            case "transcription", None:
                return replace(self, transcription=Transcription())
            case "transcription", Transcription():
                return replace(self, transcription=_merged_options(self.transcription, value))
            case "turn_detection", _:
                return replace(self, chosen_turns=value and _merged(self.chosen_turns, value))
        return self

    @property
    def turn_detection(self) -> ServerVadTurns | SemanticVadTurns | None:
        """How turns are found; None if the client commits them."""
        if self.chosen_turns == "default":
            model = self.transcription.model or ""
            return None if model.startswith(MODELS_WITHOUT_VAD) else ServerVadTurns()
        return self.chosen_turns

    @property
    def speakers(self) -> SpeakerOptions | None:
        """How speakers are told apart; None if they are not."""
        chosen = read_speakers(self.transcription.speakers or "off")
        check(chosen is None or not self.no_speakers, "speakers", self.no_speakers)
        return chosen

    @property
    def decode(self) -> DecodeOptions:
        """The options for the engine."""
        return self._decode_options()[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """About values for the engine that are left out, or that it will refuse."""
        options, notes = self._decode_options()
        wanted = [options.language] if options.language else options.languages
        if wanted and self.recognised and not set(wanted) & set(self.recognised):
            only = f"the engine recognises {', '.join(self.recognised)}, so each turn will fail"
            notes = (*notes, f"{'language' if options.language else 'languages'}: {only}")
        return tuple(f"{INPUT}.transcription.{note}" for note in notes)

    def _decode_options(self) -> tuple[DecodeOptions, tuple[str, ...]]:
        options = self.transcription
        try:
            return decode_options(
                language=options.language,
                languages=options.languages,
                prompt=options.prompt,
                keywords=options.keywords,
                model=options.model or "",
            )
        except InvalidOption as error:
            path = ["session", "audio", "input", "transcription", error.name]
            names = beta_names(path) if self.is_beta else path
            raise InvalidOption(".".join(names), str(error)) from error

    @property
    def partials(self) -> Delay | None:
        """When partial results are sent; None if they are turned off."""
        if not (self.may_send_partials and self.transcription.partial_results):
            return None
        return DELAYS[self.transcription.delay or DEFAULT]

    @property
    def vad_options(self) -> VadOptions:
        """Options of the VAD. It finds turns, or the speech in turns that the client commits."""
        turns = self.turn_detection
        if turns is None:
            return VadOptions(kind=self.vad)
        if isinstance(turns, SemanticVadTurns):
            turns = turns.as_server_vad
        kind: VadKind = "webrtc" if self.vad == "off" else self.vad
        options = ServerVad(
            type="server_vad",
            threshold=turns.threshold,
            prefix_padding_ms=turns.prefix_padding_ms,
            silence_duration_ms=turns.silence_duration_ms,
        )
        return VadOptions(kind=kind, **server_vad_options(options))

    @property
    def input_settings(self) -> tuple[object, ...]:
        """The settings that the audio in progress depends on. If they change, the turn ends."""
        has_partials = self.partials is not None
        return self.format, self.turn_detection is None, self.vad_options, has_partials

    def body(self, session_id: str) -> dict[str, Any]:
        """OpenAI's session object. The beta form has the fields of both forms."""
        form: dict[str, Any] = {"type": self.format.encoding}
        if self.format.encoding == "audio/pcm":
            form["rate"] = self.format.rate
        options, turns = self.transcription, self.turn_detection
        body: dict[str, Any] = {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": form,
                    "noise_reduction": None,
                    "transcription": _known(options, options.model_dump(exclude_defaults=True)),
                    "turn_detection": turns and _known(turns, turns.model_dump(exclude_none=True)),
                }
            },
            "include": [LOGPROBS] if self.include_logprobs else None,
        }
        return flat_session(body) if self.is_beta else body


def warnings_of(update: SessionUpdate, config: SessionConfig) -> list[str]:
    """Sentences about fields of an update without effect, and values that are left out.

    Args:
        update: of the client.
        config: the settings after the update.
    """
    notes = config.warnings if update.audio.input.transcription else ()
    return [*islice(chain(unused_fields(update, "session"), notes), MAX_WARNINGS)]


def _audio_format(given: Format) -> AudioFormat:
    if given.type != "audio/pcm":
        return AudioFormat(given.type, TELEPHONE_RATE)
    return AudioFormat("audio/pcm", given.rate or AudioFormat().rate)


def _known(given: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in type(given).model_fields if name in values}


def _merged_options(before: Transcription, given: Transcription) -> Transcription:
    """`before` with the fields that were sent. `language` and `languages` replace each other."""
    sent = given.model_fields_set
    forgotten = {"language", "languages"} - sent if sent & {"language", "languages"} else set()
    return _merged(before.model_copy(update=dict.fromkeys(forgotten)), given)


def _merged(before: object, given: M) -> M:
    """`before` with the fields that were sent, if it has the same kind."""
    if type(before) is not type(given):
        return given
    values = _known(given, before.model_dump()) | _known(
        given, given.model_dump(exclude_unset=True)
    )
    return type(given).model_validate(values)
