"""Transcript -> text in every format that is offered; and our own JSON back again.

Numbers that OpenAI's ``verbose_json`` demands and nobody measured are made up here and nowhere
else: ``seek`` 0, no ``tokens``, ``temperature`` 0, ``no_speech_prob`` 0, and ``avg_logprob`` 0
when the engine gave none. Clients drop segments above a ``no_speech_prob`` or below an
``avg_logprob``, so the values are those of a segment that is kept.
"""

from __future__ import annotations

import json
import math
import string
import zlib
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import srt

from asr.config import SubtitleOptions, check
from asr.output.subtitles import Cue, make_cues
from asr.types import Segment, Timing, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import UnionType

T = TypeVar("T")

SCHEMA = "asr.transcript.v1"
DEFAULT_SUBTITLES = SubtitleOptions()

# Whisper's names for ISO-639-1 codes, which are what OpenAI returns.
LANGUAGE_NAMES = {
    "ar": "arabic", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi",
    "hu": "hungarian", "it": "italian", "ja": "japanese", "ko": "korean", "nl": "dutch",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sv": "swedish", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a transcript.

    Attributes:
        content_type: for HTTP; the body is UTF-8.
        extension: of a file, without its dot.
        write: makes the text.
    """

    content_type: str
    extension: str
    write: Callable[[Transcript, SubtitleOptions], str]


def render(
    transcript: Transcript, format_name: str, subtitles: SubtitleOptions = DEFAULT_SUBTITLES
) -> str:
    """The transcript as text in one of `FORMATS`.

    Raises:
        InvalidOption: there is no such format.
    """
    check(format_name in FORMATS, "format", f"must be one of {', '.join(FORMATS)}")
    return FORMATS[format_name].write(transcript, subtitles)


def to_srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """SubRip.

    Raises:
        RuntimeError: the ``srt`` library dropped a cue, which it does without a word.
    """
    cues = make_cues(transcript.segments, options, labels=True)
    subtitles = [
        srt.Subtitle(
            index=None,
            start=timedelta(milliseconds=cue.start_ms),
            end=timedelta(milliseconds=cue.end_ms),
            content=cue.text,
        )
        for cue in cues
    ]
    kept = list(srt.sort_and_reindex(subtitles))
    if len(kept) != len(cues):
        raise RuntimeError(f"srt kept {len(kept)} of {len(cues)} cues")
    return str(srt.compose(kept, reindex=False))


def to_vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1/. Speakers are voice tags.

    With ``highlight_words`` each word after a cue's first has the time at which it is said, which
    the style in the head turns into light.
    """
    blocks = ["WEBVTT\n", _FUTURE_STYLE] if options.highlight_words else ["WEBVTT\n"]
    for cue in make_cues(transcript.segments, options):
        text = _timed(cue) if options.highlight_words else _escaped(cue.text)
        voice = f"<v {_escaped(cue.speaker)}>" if cue.speaker and cue.speaker.strip() else ""
        blocks.append(f"{_clock(cue.start_ms)} --> {_clock(cue.end_ms)}\n{voice}{text}\n")
    return "\n".join(blocks)


_FUTURE_STYLE = "STYLE\n::cue(:future) {\n  opacity: 0.5;\n}\n"


def _timed(cue: Cue) -> str:
    """The text with a timestamp tag before each word that begins later than the one before it.

    The standard wants them to rise, between the start and the end of the cue.
    """
    starts = iter(cue.starts_ms)
    last = cue.start_ms
    lines = []
    for line in cue.text.split("\n"):
        words = []
        for word, start in zip(line.split(), starts, strict=False):
            tag = f"<{_clock(start)}>" if last < start < cue.end_ms else ""
            last = max(last, start)
            words.append(tag + _escaped(word))
        lines.append(" ".join(words))
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text on one line or several in which no player sees a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_tsv(transcript: Transcript, _: SubtitleOptions) -> str:
    """A row for each segment, as Whisper writes it.

    Times are integer milliseconds since no locale reads a decimal point into those.
    """
    rows = ["start\tend\ttext"]
    for segment in transcript.segments:
        text = " ".join(segment.text.split())
        if text:
            rows.append(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}")
    return "\n".join(rows) + "\n"


def to_text(transcript: Transcript, _: SubtitleOptions) -> str:
    """The words alone."""
    return transcript.text + "\n"


def to_json(transcript: Transcript) -> dict[str, Any]:
    """Everything we know, in our own schema; `from_json` reads it."""
    record = to_plain(transcript)
    segments = record.pop("segments")  # last, so that the facts stand at the head of the file
    return {"schema": SCHEMA, "text": transcript.text, **record, "segments": segments}


def to_openai_json(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's ``json``."""
    return {"text": transcript.text, "usage": _usage(transcript)}


def to_verbose_json(
    transcript: Transcript, granularities: Collection[str] = ("segment",)
) -> dict[str, Any]:
    """OpenAI's ``verbose_json``, and what we know beyond it.

    Args:
        transcript: the recording.
        granularities: "word", "segment", or both; without any, segments are given.
    """
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES.get(transcript.language, transcript.language),
        "duration": _rounded(transcript.duration),
        "text": transcript.text,
    }
    if "segment" in granularities or "word" not in granularities:
        answer["segments"] = [_verbose_segment(segment) for segment in transcript.segments]
    if "word" in granularities:
        answer["words"] = [
            {"word": word.text, "start": _rounded(word.start), "end": _rounded(word.end)}
            for word in transcript.words
        ]
    return answer | {
        "usage": _usage(transcript),
        "engine": transcript.engine,
        "aligner": transcript.aligner,
        "warnings": list(transcript.warnings),
        "speech_seconds": _rounded(transcript.speech_seconds),
    }


def to_diarized_json(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's ``diarized_json``: speakers are A, B, C by channel, or all is A."""
    return {
        "task": "transcribe",
        "duration": _rounded(transcript.duration),
        "text": transcript.text,
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{segment.id}",
                "start": _rounded(segment.start),
                "end": _rounded(segment.end),
                "text": segment.text,
                "speaker": _letter(segment),
            }
            for segment in transcript.segments
        ],
        "usage": _usage(transcript),
        "warnings": list(transcript.warnings),
    }


def _letter(segment: Segment) -> str:
    if segment.channel is not None:
        return string.ascii_uppercase[segment.channel % 26]
    return segment.speaker or "A"


def from_json(text: str) -> Transcript:
    """Read a transcript that was written as ``json``.

    Raises:
        ValueError: it is no such transcript; the message says where.
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
    )


def to_plain(value: Any) -> Any:
    """The dataclasses of `asr.types` in terms of JSON."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return _rounded(value) if isinstance(value, float) else value


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
    )


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be str, not {value!r}")  # noqa: TRY004  # the text is wrong
    return value


def _read(record: Any, key: str, kind: type | UnionType) -> Any:
    """The value of a key, which must be there even if it may be null."""
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{key} is missing")
    value = record[key]
    if isinstance(value, int) and kind in (float, float | None):
        value = float(value)  # other writers drop the ".0"
    if not isinstance(value, kind):
        name = getattr(kind, "__name__", kind)
        raise ValueError(f"{key} must be {name}, not {value!r}")  # noqa: TRY004  # as above
    return value


def _read_list(record: Any, key: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    items = []
    for i, item in enumerate(_read(record, key, list)):
        try:
            items.append(read(item))
        except ValueError as error:
            raise ValueError(f"{key}[{i}]: {error}") from error
    return tuple(items)


def _verbose_segment(segment: Segment) -> dict[str, Any]:
    """All fields that OpenAI's client demands; the module says which are made up."""
    encoded = segment.text.encode()
    return {
        "id": segment.id,
        "seek": 0,
        "start": _rounded(segment.start),
        "end": _rounded(segment.end),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": _rounded(segment.avg_logprob) or 0.0,
        "compression_ratio": _rounded(len(encoded) / len(zlib.compress(encoded))),
        "no_speech_prob": 0.0,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": _rounded(transcript.duration)}


def _rounded(value: float | None) -> float | None:
    """To 3 decimals; null when unknown or not finite, for which JSON has no number."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


def _clock(ms: int) -> str:
    """WebVTT's HH:MM:SS.mmm."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def _dump(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, indent=2) + "\n"


FORMATS: dict[str, Format] = {
    "json": Format("application/json", "json", lambda t, _: _dump(to_json(t))),
    "verbose_json": Format(
        "application/json", "verbose.json", lambda t, _: _dump(to_verbose_json(t))
    ),
    "diarized_json": Format(
        "application/json", "diarized.json", lambda t, _: _dump(to_diarized_json(t))
    ),
    "text": Format("text/plain; charset=utf-8", "txt", to_text),
    "srt": Format("application/x-subrip; charset=utf-8", "srt", to_srt),
    "vtt": Format("text/vtt; charset=utf-8", "vtt", to_vtt),
    "tsv": Format("text/tab-separated-values; charset=utf-8", "tsv", to_tsv),
}
"""Every format by its name."""
