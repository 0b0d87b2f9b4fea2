"""Fields of a request that have no effect because of the other fields, as warnings."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from asr.config import SubtitleOptions

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from asr.config import VadKind
    from asr.service.transcriptions.form import TranscriptionForm

_SUBTITLES: Final = tuple(item.name for item in fields(SubtitleOptions))
_TO_THE_ENGINE: Final = ("prompt", "keywords", "temperature")
_PLAIN: Final = ("json", "text", "tsv")
"""Formats that do not name speakers. With `timestamp_granularities`, json does."""
_ONE_SPEAKER: Final = (
    "speakers are not told apart, so all segments have the speaker A; channels=split names the "
    "channels"
)


def without_effect(
    form: TranscriptionForm, default_vad: VadKind, *, by_voice: bool = False
) -> Iterator[str]:
    """Yield a warning for each field that was sent and has no effect.

    Args:
        form: the request.
        default_vad: the detector if the request names none.
        by_voice: speakers are told apart by their voices.
    """
    sent = form.model_fields_set
    yield from _speakers(sent, by_voice=by_voice)
    yield from _voice_activity(form, sent, form.vad or default_vad)
    if form.purpose == "alignment":
        for name in _TO_THE_ENGINE:
            if name in sent:
                yield f"{name} has no effect on an alignment"
    if form.purpose == "job":
        for name in sorted(
            sent & {"include", "response_format", "stream", "timestamp_granularities"}
        ):
            yield f"{name} has no effect on a job: choose the format when you download"
    else:
        yield from _format(form, sent, by_voice=by_voice)


def _speakers(sent: set[str], *, by_voice: bool) -> Iterator[str]:
    """Fields about speakers that are not told apart."""
    for name in ("known_speaker_names", "known_speaker_references"):
        if name in sent and not by_voice:
            yield f"{name} was ignored: speakers are not told apart"


def _format(form: TranscriptionForm, sent: set[str], *, by_voice: bool) -> Iterator[str]:
    """Fields that do not fit the form of the answer."""
    name = "stream=true" if form.stream else f"response_format={form.response_format}"
    streams_it = form.response_format in ("json", "diarized_json")
    if form.stream and "response_format" in sent and not streams_it:
        yield f"response_format={form.response_format} has no effect with stream=true"
    has_times = form.stream or form.response_format in ("json", "verbose_json", "full_json")
    if "timestamp_granularities" in sent and not has_times:
        yield f"timestamp_granularities has no effect with {name}"
    may_include = form.stream or form.response_format in ("json", "verbose_json")
    if form.include and not may_include:
        yield f"include has no effect with {name}"
    for field in unused_subtitle_fields(sent, "" if form.stream else form.response_format):
        yield f"{field} has no effect with {name}"
    if form.response_format == "diarized_json" and form.channels == "mix" and not by_voice:
        yield _ONE_SPEAKER
    names_them = form.stream or form.timestamp_granularities or form.response_format not in _PLAIN
    if "speakers" in sent and by_voice and not names_them:
        yield f"speakers has no effect with {name}, which does not name them"


def unused_subtitle_fields(sent: Container[str], response_format: str) -> list[str]:
    """The subtitle fields among those that were sent which a format does not use."""
    by_format = {
        "vtt": set(_SUBTITLES) - {"speaker_labels"},
        "srt": set(_SUBTITLES) - {"highlight_words"},
    }
    used = by_format.get(response_format, set())
    return [name for name in _SUBTITLES if name in sent and name not in used]


def _voice_activity(form: TranscriptionForm, sent: set[str], kind: VadKind) -> Iterator[str]:
    """Fields that the detector does not use."""
    owners = {"vad_aggressiveness": ("webrtc",), "vad_threshold": ("silero",)}
    both = ("webrtc", "silero")
    for name in ("vad_aggressiveness", "vad_threshold", "vad_min_silence", "vad_padding"):
        if name in sent and kind not in owners.get(name, both):
            yield f"{name} has no effect with vad={kind}"
    strategy = form.chunking_strategy
    if strategy is None:
        return
    if kind == "off":
        yield "chunking_strategy has no effect with vad=off"
    given = set() if isinstance(strategy, str) else strategy.model_fields_set
    replaced = {
        "vad_aggressiveness": "threshold",
        "vad_threshold": "threshold",
        "vad_padding": "prefix_padding_ms",
        "vad_min_silence": "silence_duration_ms",
    }
    for name, other in replaced.items():
        if name in sent and other in given:
            yield f"{name} has no effect, because chunking_strategy has {other}"
