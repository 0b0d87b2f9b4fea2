"""The events of a transcription, encoded as OpenAI does: delta, segment, done and error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from asr.output.numbers import rounded
from asr.service.http.problems import problem_of
from asr.service.http.sse import KEEP_ALIVE, KEEP_ALIVE_SECONDS, encode_event
from asr.spacing import separator
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asr.service.litserve.messages import WorkerEvent


class EventEncoder:
    """Encodes the events of one transcription as server-sent events.

    The texts of all ``transcript.text.delta`` events, concatenated, are the text of
    ``transcript.text.done``.

    Args:
        warnings: about the request; sent with the last event.
    """

    def __init__(self, warnings: tuple[str, ...]) -> None:
        self._warnings = warnings
        self._last = ""  # text of the last segment that had any

    async def encode(self, events: AsyncIterator[WorkerEvent]) -> AsyncGenerator[str]:
        """Yield the text to send. An error becomes an ``error`` event, which is the last."""
        sent = time.monotonic()
        try:
            async for event in events:
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
                delta = _delta(event, self._last)
                self._last = event.text or self._last
                return encode_event(delta) + encode_event(segment_body(event))
            case Transcript():
                return encode_event(_done(event, self._warnings)) + encode_event("[DONE]")
            case _:
                return ""


def _delta(segment: Segment, before: str) -> dict[str, Any]:
    text = " ".join(segment.text.split("\n"))
    gap = separator(before, text) if before and text else ""
    return {
        "type": "transcript.text.delta",
        "delta": gap + text,
        "segment_id": f"seg_{segment.id}",
    }


def segment_body(segment: Segment) -> dict[str, Any]:
    """The body of ``transcript.text.segment``: a segment with its words, times in seconds."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id}",
        "start": rounded(segment.start),
        "end": rounded(segment.end),
        "text": segment.text,
        "channel": segment.channel,
        "speaker": segment.speaker,
        "words": [
            {
                "word": word.text,
                "start": rounded(word.start),
                "end": rounded(word.end),
                "confidence": word.confidence,
                "timing": word.timing,
            }
            for word in segment.words
        ],
    }


def _done(transcript: Transcript, warnings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "transcript.text.done",
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": rounded(transcript.duration)},
        "language": transcript.language,
        "engine": transcript.engine,
        "warnings": [*warnings, *transcript.warnings],
    }
