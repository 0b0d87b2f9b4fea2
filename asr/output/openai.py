"""Transcript -> the response bodies of OpenAI's transcription API.

``verbose_json`` demands numbers that nobody measured. They are made up here and nowhere else:
``seek`` 0, no ``tokens``, ``temperature`` 0, ``no_speech_prob`` 0, and ``avg_logprob`` 0 if the
engine gave none. Clients drop segments with a high ``no_speech_prob`` or a low ``avg_logprob``, so
these values are those of a segment that is kept.
"""

from __future__ import annotations

import string
import zlib
from typing import TYPE_CHECKING, Any, Final

from asr.output.numbers import rounded

if TYPE_CHECKING:
    from collections.abc import Collection

    from asr.types import Segment, Transcript

LANGUAGE_NAMES: Final = {
    "ar": "arabic", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi",
    "hu": "hungarian", "it": "italian", "ja": "japanese", "ko": "korean", "nl": "dutch",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sv": "swedish", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip
"""Whisper's name of each ISO-639-1 code; OpenAI returns these names."""


def to_openai_json(transcript: Transcript) -> dict[str, Any]:
    """The body of ``json``, with our warnings if there is no text, because they say why."""
    body = {"text": transcript.text, "usage": _usage(transcript)}
    return body if transcript.text else {**body, "warnings": list(transcript.warnings)}


def to_verbose_json(
    transcript: Transcript, granularities: Collection[str] = ("segment",)
) -> dict[str, Any]:
    """The body of ``verbose_json``, with our engine, aligner, warnings and speech seconds.

    Args:
        transcript: the recording.
        granularities: "word", "segment", or both; if empty, segments are given.
    """
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES.get(transcript.language, transcript.language),
        "duration": rounded(transcript.duration),
        "text": transcript.text,
    }
    if "segment" in granularities or "word" not in granularities:
        answer["segments"] = [_verbose_segment(segment) for segment in transcript.segments]
    if "word" in granularities:
        answer["words"] = [
            {"word": word.text, "start": rounded(word.start), "end": rounded(word.end)}
            for word in transcript.words
        ]
    return answer | {
        "usage": _usage(transcript),
        "engine": transcript.engine,
        "aligner": transcript.aligner,
        "warnings": list(transcript.warnings),
        "speech_seconds": rounded(transcript.speech_seconds),
    }


def to_diarized_json(transcript: Transcript) -> dict[str, Any]:
    """The body of ``diarized_json``; speakers are A, B, C by channel, or all are A."""
    return {
        "task": "transcribe",
        "duration": rounded(transcript.duration),
        "text": transcript.text,
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{segment.id}",
                "start": rounded(segment.start),
                "end": rounded(segment.end),
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


def _verbose_segment(segment: Segment) -> dict[str, Any]:
    """All fields that OpenAI's client demands; the module docstring says which are made up."""
    encoded = segment.text.encode()
    return {
        "id": segment.id,
        "seek": 0,
        "start": rounded(segment.start),
        "end": rounded(segment.end),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": rounded(segment.avg_logprob) or 0.0,
        "compression_ratio": rounded(len(encoded) / len(zlib.compress(encoded))),
        "no_speech_prob": 0.0,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": rounded(transcript.duration)}
