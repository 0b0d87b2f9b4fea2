"""The dialect of whisper.cpp's server. Its fields are those that ``examples/server`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asr.service.compat.answers import json_answer, text_answer, whisper_body, with_warnings
from asr.service.compat.fields import refuse_translation
from asr.service.compat.receive import Asked

if TYPE_CHECKING:
    from starlette.responses import Response

    from asr.service.compat.fields import Fields
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.types import Transcript

FILE_PARTS: Final = ("file",)
FORMATS: Final = {name: name for name in ("json", "text", "srt", "vtt", "verbose_json")}
_DECODER: Final = (
    "audio_ctx",
    "beam_size",
    "best_of",
    "debug_mode",
    "entropy_thold",
    "logprob_thold",
    "max_context",
    "no_context",
    "no_language_probabilities",
    "no_speech_thold",
    "suppress_non_speech",
    "suppress_nst",
    "temperature_inc",
    "word_thold",
)
_CHUNKING: Final = (
    "vad_max_speech_duration_s",
    "vad_min_speech_duration_ms",
    "vad_samples_overlap",
)
_NOT_HERE: Final = (
    "stream",
    "upload_id",
    "include",
    "timestamp_granularities",
)
MIN_LINE_WIDTH: Final = 10


def translate(fields: Fields) -> Asked:
    """Translate a request to ``/inference``.

    Raises:
        Problem: 400, a field is wrong, asks for a translation, or for a part of the recording.
    """
    if fields.flag("translate"):
        raise refuse_translation("translate")
    fields.refuse_any(_NOT_HERE, "send it to /v1/audio/transcriptions")
    fields.refuse(("offset_t", "duration"), "cut the recording before you send it")
    fields.refuse(("offset_n",), "cues are numbered from 1; renumber them")
    output = fields.choice("response_format", FORMATS, "json")
    fields.give("response_format", output)
    _translate_vad(fields)
    _translate_cues(fields, output)
    if fields.flag("diarize"):
        fields.give("channels", "split")
    _ignore(fields)
    return _asked(fields)


def _translate_vad(fields: Fields) -> None:
    if not fields.has("vad", ("webrtc", "silero")):  # our own values are passed on
        fields.give_vad(wanted=fields.flag("vad"))
    _give_seconds(fields, "vad_min_silence", "vad_min_silence_duration_ms")
    _give_seconds(fields, "vad_padding", "vad_speech_pad_ms")


def _give_seconds(fields: Fields, name: str, origin: str) -> None:
    milliseconds = fields.number(origin)
    fields.give(name, None if milliseconds is None else milliseconds / 1000, origin)


def _translate_cues(fields: Fields, output: str) -> None:
    """Translate ``max_len``, the most characters of a segment, into the width of a cue."""
    length = fields.number("max_len") or 0
    if length >= MIN_LINE_WIDTH and output in ("srt", "vtt"):
        fields.give("max_line_width", length, "max_len")
        fields.give("max_line_count", 1)
    elif length:
        fields.warn("max_len", f"it holds for srt and vtt, from {MIN_LINE_WIDTH} characters")


def _ignore(fields: Fields) -> None:
    fields.ignore(_DECODER, "it tunes Whisper's decoder")
    fields.ignore(_CHUNKING, "it tunes whisper.cpp's voice activity detector")
    if fields.flag("tinydiarize"):
        fields.warn("tinydiarize", "speakers are told apart by channel; send diarize=true")
    if fields.flag("detect_language"):
        fields.warn("detect_language", "no engine says which language it heard")
    fields.flag("carry_initial_prompt")  # the prompt goes with every chunk anyway
    fields.flag("split_on_word")  # no cue begins inside a word anyway


def _asked(fields: Fields) -> Asked:
    has_times = not fields.flag("no_timestamps")
    words = fields.flag("token_timestamps")
    return Asked(
        fields.translated(),
        tuple(fields.warnings),
        fields.origins,
        with_words=has_times if words is None else words,
        with_times=has_times,
    )


def render(transcript: Transcript, request: TranscriptionRequest, asked: Asked) -> Response:
    """The answer of ``/inference``."""
    transcript = with_warnings(transcript, request)
    match request.response_format:
        case "json":
            return json_answer({"text": transcript.text, "warnings": list(transcript.warnings)})
        case "verbose_json":
            body = whisper_body(transcript, with_words=asked.with_words)
            if not asked.with_times:
                body["segments"] = [_without_times(segment) for segment in body["segments"]]
            return json_answer(body)
    return text_answer(transcript, request)


def _without_times(segment: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in segment.items() if name not in ("start", "end")}
