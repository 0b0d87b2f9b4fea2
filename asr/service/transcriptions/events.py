"""The events of a transcription, encoded as OpenAI does: delta, segment, gap, done and error.

A gap is ours, and it is sent only if the request has ``on_error=gap``. It comes as soon as its end
is known, in any order with the segments.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asr.output.numbers import rounded, to_plain
from asr.output.openai import (
    final_segments,
    logprobs_of,
    speaker_fields,
    speaker_of,
    timestamps_of,
    unmeasured,
)
from asr.service.http.problems import problem_of
from asr.service.http.sse import KEEP_ALIVE, KEEP_ALIVE_SECONDS, encode_event
from asr.spacing import separator
from asr.types import Gap, Segment, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection

    from asr.service.litserve.messages import WorkerEvent


class EventEncoder:
    """Encodes the events of one transcription as server-sent events.

    The texts of all ``transcript.text.delta`` events, concatenated, are the text of
    ``transcript.text.done``.

    Every event fits the models of OpenAI's client. Fields that its models lack are ours.

    Args:
        warnings: about the request; sent with the last event.
        granularities: add ``segments`` or ``words`` to the last event, as in ``verbose_json``.
        logprobs: add ``logprobs`` to the events with text.
    """

    def __init__(
        self,
        warnings: tuple[str, ...],
        granularities: Collection[str] = (),
        *,
        logprobs: bool = False,
    ) -> None:
        self._warnings = warnings
        self._granularities = granularities
        self._logprobs = logprobs
        self._last = ""  # text of the last segment that had any

    async def encode(self, events: AsyncIterator[WorkerEvent]) -> AsyncGenerator[str]:
        """Yield the text to send. An error becomes an ``error`` event, which is the last."""
        sent = time.monotonic()
        try:
            async for event in events:
                if isinstance(event, Transcript):  # it may have thousands of segments
                    text = await asyncio.to_thread(self._encode, event)
                else:
                    text = self._encode(event)
                if not text and time.monotonic() - sent < KEEP_ALIVE_SECONDS:
                    continue
                sent = time.monotonic()
                yield text or KEEP_ALIVE
        except Exception as error:  # noqa: BLE001  # the status is already sent
            yield encode_event(problem_of(error).body, name="error")

    def _encode(self, event: WorkerEvent) -> str:
        match event:
            case Segment():
                return self._segment(event)
            case Gap():
                return encode_event({"type": "transcript.text.gap", **to_plain(event)})
            case Transcript():
                done = _done(event, self._warnings)
                done |= timestamps_of(event, self._granularities)
                if "segments" in done:
                    done["warnings"] += unmeasured(event.segments)
                if final := final_segments(event):
                    done["diarized_segments"] = final
                if self._logprobs:
                    done["logprobs"] = logprobs_of(event.segments)
                return encode_event(done) + encode_event("[DONE]")
            case _:
                return ""

    def _segment(self, segment: Segment) -> str:
        """The text of a segment and its times. An empty text adds nothing to the transcript."""
        text = " ".join(segment.text.split("\n"))
        gap = separator(self._last, text) if self._last and text else ""
        delta: dict[str, Any] = {
            "type": "transcript.text.delta",
            "delta": gap + text,
            "segment_id": f"seg_{segment.id}",
        }
        if self._logprobs:
            delta["logprobs"] = logprobs_of([segment], before=self._last)
        self._last = text or self._last
        return encode_event(delta) + encode_event(segment_body(segment))


def segment_body(segment: Segment) -> dict[str, Any]:
    """The body of ``transcript.text.segment``: a segment with its words, times in seconds."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id}",
        "start": rounded(segment.start),
        "end": rounded(segment.end),
        "text": segment.text,
        "channel": segment.channel,
        "speaker": segment.speaker or speaker_of(segment),
        **_certainty(segment),
        "words": [_word_body(word) for word in segment.words],
    }


def _word_body(word: Word) -> dict[str, Any]:
    body = {
        "word": word.text,
        "start": rounded(word.start),
        "end": rounded(word.end),
        "confidence": rounded(word.confidence),
        "timing": word.timing,
    }
    if word.speaker is None:
        return body
    return {**body, "speaker": word.speaker, **speaker_fields(word)}


def _certainty(segment: Segment) -> dict[str, Any]:
    """How certain the speaker is, where speakers are told apart by voice."""
    if segment.is_provisional:
        return {"speaker_is_provisional": True}
    if segment.speaker_confidence is None:
        return {}
    return {"speaker_confidence": rounded(segment.speaker_confidence)}


def _done(transcript: Transcript, warnings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "transcript.text.done",
        "text": transcript.text,
        # OpenAI's model of this event has room for tokens only, so `usage` is absent.
        "duration": rounded(transcript.duration),
        "language": transcript.language,
        "engine": transcript.engine,
        "warnings": [*warnings, *transcript.warnings],
        "gaps": to_plain(transcript.gaps),
    }
