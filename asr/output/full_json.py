"""Our own JSON: everything we know about a transcript, and back again.

``docs/transcript.schema.json`` describes it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

from asr.output.numbers import to_plain
from asr.types import Gap, GapReason, Segment, Timing, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import UnionType

T = TypeVar("T")

SCHEMA: Final = "asr.transcript.v1"


def to_json(transcript: Transcript) -> dict[str, Any]:
    """The transcript as a JSON object of our schema; `from_json` reads it."""
    record = to_plain(replace(transcript, segments=()))
    record["segments"] = [segment_record(segment) for segment in transcript.segments]
    segments = record.pop("segments")  # last, so that the short fields are at the head of the file
    return {"schema": SCHEMA, "text": transcript.text, **record, "segments": segments}


def segment_record(segment: Segment) -> dict[str, Any]:
    """A segment as a JSON object.

    What is not known of speakers is left out, so that most transcripts stay short.
    """
    record: dict[str, Any] = to_plain(segment)
    if segment.speaker_confidence is None:
        del record["speaker_confidence"]
    if record.pop("is_provisional"):
        record["speaker_is_provisional"] = True
    for word in record["words"]:
        if word["speaker"] is None:
            del word["speaker"], word["speaker_confidence"], word["overlapped"]
    return record


def from_json(text: str) -> Transcript:
    """Read a transcript that was written as ``json``.

    Raises:
        ValueError: the text is not such a transcript; the message names the wrong field.
    """
    record = json.loads(text)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"not a transcript: schema is {schema!r}, not {SCHEMA!r}")
    return Transcript(
        segments=_read_list(record, "segments", _read_segment),
        language=_read(record, "language", str),
        duration=_read(record, "duration", float),
        speech_seconds=_read(record, "speech_seconds", float),
        dropped_seconds=_read(record, "dropped_seconds", float),
        engine=_read(record, "engine", str),
        aligner=_read(record, "aligner", str | None),
        warnings=_read_list(record, "warnings", _read_text),
        gaps=_read_list(record, "gaps", _read_gap)
        if "gaps" in record
        else (),  # old ones have none
    )


def _read_gap(record: Any) -> Gap:
    reason = _read(record, "reason", str)
    if reason not in get_args(GapReason):
        raise ValueError(f"reason must be one of {get_args(GapReason)}, not {reason!r}")
    return Gap(
        start=_read(record, "start", float),
        end=_read(record, "end", float),
        reason=reason,
        channel=_read(record, "channel", int | None),
        speaker=_read(record, "speaker", str | None),
    )


def _read_segment(record: Any) -> Segment:
    return Segment(
        id=_read(record, "id", int),
        start=_read(record, "start", float),
        end=_read(record, "end", float),
        text=_read(record, "text", str),
        words=_read_list(record, "words", _read_word),
        avg_logprob=_read(record, "avg_logprob", float | None),
        warnings=_read_list(record, "warnings", _read_text),
        channel=_read(record, "channel", int | None),
        speaker=_read(record, "speaker", str | None),
        speaker_confidence=_read_optional(record, "speaker_confidence", float | None, None),
    )


def _read_word(record: Any) -> Word:
    timing = _read(record, "timing", str)
    if timing not in get_args(Timing):
        raise ValueError(f"timing must be one of {get_args(Timing)}, not {timing!r}")
    return Word(
        text=_read(record, "text", str),
        start=_read(record, "start", float),
        end=_read(record, "end", float),
        confidence=_read(record, "confidence", float | None),
        timing=timing,
        speaker=_read_optional(record, "speaker", str | None, None),
        speaker_confidence=_read_optional(record, "speaker_confidence", float | None, None),
        overlapped=_read_optional(record, "overlapped", bool, False),
    )


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be str, not {value!r}")  # noqa: TRY004  # the text is wrong
    return value


def _read(record: Any, key: str, kind: type | UnionType) -> Any:
    """The value of a key. The key must be present, even if its value may be null."""
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{key} is missing")
    value = record[key]
    if isinstance(value, int) and kind in (float, float | None):
        value = float(value)  # other writers drop the ".0"
    if not isinstance(value, kind):
        name = getattr(kind, "__name__", kind)
        raise ValueError(f"{key} must be {name}, not {value!r}")  # noqa: TRY004  # as above
    return value


def _read_optional(record: Any, key: str, kind: type | UnionType, default: Any) -> Any:
    """Like `_read`, but the key may be absent."""
    return _read(record, key, kind) if key in record else default


def _read_list(record: Any, key: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    items = []
    for i, item in enumerate(_read(record, key, list)):
        try:
            items.append(read(item))
        except ValueError as error:
            raise ValueError(f"{key}[{i}]: {error}") from error
    return tuple(items)
