"""Transcript -> the response bodies of OpenAI's transcription API.

``verbose_json`` has two measures of doubt in each segment. Clients such as Whisper's drop a segment
with a high ``no_speech_prob`` and an ``avg_logprob`` below -1.

- ``avg_logprob``: the engine's mean log probability of a token. Without one, the mean logarithm of
  the confidences of the words.
- ``no_speech_prob``: 1 minus the highest confidence of a word. If not even the best word was
  heard, there may be no speech.

A segment in which nothing was measured gets `UNMEASURED`, and a warning says so. OpenAI's client
demands some fields that nothing here corresponds to: ``seek`` is 0, ``tokens`` is empty, and
``temperature`` is 0.
"""

from __future__ import annotations

import math
import re
import string
import zlib
from typing import TYPE_CHECKING, Any, Final

from asr.output.numbers import rounded, to_plain
from asr.spacing import separator
from asr.text.languages import LANGUAGE_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from asr.types import Segment, Transcript, Word

UNMEASURED: Final = -1.0, 0.5
"""avg_logprob and no_speech_prob of a segment without any measurement. OpenAI's client demands
numbers. Clients keep a segment with these, but do not take it for certain."""
_CHANNEL_LABEL: Final = re.compile(r"(?:channel|track) \d+(?: \(.*\))?")
LEAST_CONFIDENCE: Final = 1e-5
"""Lower confidences count as this one: the logarithm of 0 is no number."""


def to_openai_json(
    transcript: Transcript, granularities: Collection[str] = (), *, logprobs: bool = False
) -> dict[str, Any]:
    """The body of ``json``, with our warnings, and with the gaps if there are any.

    Args:
        transcript: the recording.
        granularities: if not empty, the body is that of ``verbose_json``. OpenAI refuses this. The
            Vercel AI SDK asks for it, and reads the segments or words.
        logprobs: add ``logprobs``.
    """
    if granularities:
        return to_verbose_json(transcript, granularities, logprobs=logprobs)
    answer = {
        "text": transcript.text,
        "usage": usage_of(transcript.duration),
        "warnings": list(transcript.warnings),
    }
    answer |= {"gaps": to_plain(transcript.gaps)} if transcript.gaps else {}
    return answer | ({"logprobs": logprobs_of(transcript.segments)} if logprobs else {})


def to_verbose_json(
    transcript: Transcript,
    granularities: Collection[str] = ("segment",),
    *,
    logprobs: bool = False,
) -> dict[str, Any]:
    """The body of ``verbose_json``, with our engine, aligner, warnings, speech seconds and gaps.

    Args:
        transcript: the recording.
        granularities: "word", "segment", or both; if empty, segments are given.
        logprobs: add ``logprobs``.
    """
    warnings = list(transcript.warnings)
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES.get(transcript.language, transcript.language),
        "duration": rounded(transcript.duration),
        "text": transcript.text,
        **timestamps_of(transcript, granularities or ("segment",)),
    }
    if "segments" in answer:
        warnings += unmeasured(transcript.segments)
    if logprobs:
        answer["logprobs"] = logprobs_of(transcript.segments)
    return answer | {
        "usage": usage_of(transcript.duration),
        "engine": transcript.engine,
        "aligner": transcript.aligner,
        "warnings": warnings,
        "speech_seconds": rounded(transcript.speech_seconds),
        "gaps": to_plain(transcript.gaps),
    }


def timestamps_of(transcript: Transcript, granularities: Collection[str]) -> dict[str, Any]:
    """The fields ``segments`` and ``words`` of ``verbose_json``, those that `granularities` names.

    Args:
        transcript: the recording.
        granularities: "word", "segment", or both.
    """
    fields: dict[str, Any] = {}
    if "segment" in granularities:
        fields["segments"] = [_verbose_segment(segment) for segment in transcript.segments]
    if "word" in granularities:
        fields["words"] = [
            {
                "word": word.text,
                "start": rounded(word.start),
                "end": rounded(word.end),
                **speaker_fields(word),
            }
            for word in transcript.words
        ]
    return fields


def speaker_fields(item: Word | Segment) -> dict[str, Any]:
    """What is known of the speaker of a word or segment.

    It is empty where only the channel or the user's text says who speaks. A transcript that
    somebody corrected has no confidences, but its words have speakers.
    """
    words = getattr(item, "words", (item,))
    is_told = item.speaker_confidence is not None or any(word.speaker for word in words)
    if item.speaker is None or not is_told:
        return {}
    known: dict[str, Any] = {"speaker": item.speaker}
    if item.speaker_confidence is not None:
        known["speaker_confidence"] = rounded(item.speaker_confidence)
    return known | ({"overlapped": True} if getattr(item, "overlapped", False) else {})


def _words_with_speakers(segment: Segment) -> dict[str, Any]:
    """The words of a segment, which OpenAI does not have, if their speakers are known."""
    sure = segment.speaker_confidence
    if sure is None and all(word.speaker is None for word in segment.words):
        return {}
    words = [
        {
            "word": word.text,
            "start": rounded(word.start),
            "end": rounded(word.end),
            **speaker_fields(word),
        }
        for word in segment.words
    ]
    return {"words": words} | ({} if sure is None else {"speaker_confidence": rounded(sure)})


def final_segments(transcript: Transcript) -> list[dict[str, Any]]:
    """The segments with their final speakers, for the last event of a stream.

    The events before it have provisional speakers. The list is empty if speakers were not told
    apart by voice.
    """
    if all(segment.speaker_confidence is None for segment in transcript.segments):
        return []
    segments: list[dict[str, Any]] = to_diarized_json(transcript)["segments"]
    return segments


def to_diarized_json(transcript: Transcript) -> dict[str, Any]:
    """The body of ``diarized_json``; without voices, speakers are A, B, C by channel, or all A."""
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
                "speaker": speaker_of(segment),
                **_words_with_speakers(segment),
            }
            for segment in transcript.segments
        ],
        "usage": usage_of(transcript.duration),
        "warnings": list(transcript.warnings),
        "gaps": to_plain(transcript.gaps),
    }


def speaker_of(segment: Segment) -> str:
    """OpenAI's label of a speaker: by voice, or a letter for each channel, or A for all."""
    is_label = is_channel_label(segment.speaker, segment.channel)
    if segment.channel is not None and segment.speaker_confidence is None and is_label:
        return string.ascii_uppercase[segment.channel % 26]
    return segment.speaker or "A"


def is_channel_label(speaker: str | None, channel: int | None) -> bool:
    """Whether the speaker is unknown, or named only after the channel."""
    return not speaker or (channel is not None and _CHANNEL_LABEL.fullmatch(speaker) is not None)


def logprobs_of(segments: Iterable[Segment], *, before: str = "") -> list[dict[str, Any]]:
    """OpenAI's ``logprobs``, with one token for each word.

    The tokens, concatenated, are the text. The log probability is the natural logarithm of the
    word's confidence; null if it was not measured.

    Args:
        segments: consecutive segments.
        before: the text before them. Between it and the first token is a space, if the script has
            spaces.
    """
    tokens: list[tuple[str, float | None]] = []
    for segment in segments:
        if text := " ".join(segment.text.split("\n")):
            space = separator(before, text) if before else ""
            tokens += _tokens(space + text, segment.words)
            before = text
    return [
        {
            "token": token,
            "logprob": None if confidence is None else _log(confidence),
            "bytes": list(token.encode()),
        }
        for token, confidence in tokens
    ]


def _tokens(text: str, words: Iterable[Word]) -> list[tuple[str, float | None]]:
    """Cut the text of a segment behind each word."""
    tokens, position = [], 0
    for word in words:
        start = text.find(word.text, position)
        if start >= 0:
            end = start + len(word.text)
            tokens.append((text[position:end], word.confidence))
            position = end
    return [*tokens, (text[position:], None)] if position < len(text) else tokens


def _log(confidence: float) -> float:
    return round(math.log(max(confidence, LEAST_CONFIDENCE)), 4)


def _doubt(segment: Segment) -> tuple[float, float] | None:
    """``avg_logprob`` and ``no_speech_prob``; None if the segment has no measurement."""
    known = [word.confidence for word in segment.words if word.confidence is not None]
    logprob = rounded(segment.avg_logprob)
    if logprob is None and not known:
        return None
    if logprob is None:
        logprob = round(sum(map(_log, known)) / len(known), 3)
    # An engine without confidences still has a mean probability of its tokens.
    best = max(known) if known else math.exp(min(logprob, 0.0))
    return logprob, round(1 - best, 3)


def unmeasured(segments: Iterable[Segment]) -> list[str]:
    """A warning if some of these segments of ``verbose_json`` have invented measures of doubt."""
    n = sum(_doubt(segment) is None for segment in segments)
    place = "1 segment" if n == 1 else f"{n} segments"
    values = " and ".join(f"{value:g}" for value in UNMEASURED)
    note = f"avg_logprob and no_speech_prob were not measured in {place} and are set to {values}"
    return [note] if n else []


def _verbose_segment(segment: Segment) -> dict[str, Any]:
    """All fields that OpenAI's client demands; the module docstring explains them."""
    encoded = segment.text.encode()
    avg_logprob, no_speech_prob = _doubt(segment) or UNMEASURED
    return {
        "id": segment.id,
        "seek": 0,
        "start": rounded(segment.start),
        "end": rounded(segment.end),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": avg_logprob,
        "compression_ratio": rounded(len(encoded) / len(zlib.compress(encoded))),
        "no_speech_prob": no_speech_prob,
        **speaker_fields(segment),
    }


def usage_of(seconds: float) -> dict[str, Any]:
    """OpenAI's ``usage`` of this much audio: whole seconds, rounded up.

    OpenAI's types allow fractions, but OpenAI and vLLM send whole numbers, and LiteLLM accepts
    nothing else.
    """
    return {"type": "duration", "seconds": math.ceil(round(seconds, 3))}
