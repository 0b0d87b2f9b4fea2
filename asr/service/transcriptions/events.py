"""Server-sent events in OpenAI's words: delta, segment, done, and errors in band."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import StreamingResponse

from asr.output.numbers import rounded
from asr.service.http.problems import problem_of
from asr.types import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
    from contextlib import AsyncExitStack

    from starlette.types import Receive, Scope, Send

    from asr.service.litserve.worker import Happening

KEEP_ALIVE_SECONDS = 15.0


class EventStream(StreamingResponse):
    """An SSE answer that frees `resources` however it ends, even if it never begins.

    Args:
        content: the lines.
        resources: what the answer needs.
        gone: waits until the client has left; only it may receive from the client.
    """

    def __init__(
        self,
        content: AsyncIterator[str],
        resources: AsyncExitStack,
        gone: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(content, headers=headers, media_type="text/event-stream")
        self._resources = resources
        self._gone = gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events, until the client leaves."""
        async with self._resources:
            sending = asyncio.create_task(self.stream_response(send))
            left = asyncio.create_task(self._gone())
            try:
                await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done() and left.exception() is not None:
                    await sending  # what the client sent is refused, and it will be told
                elif sending.done():
                    sending.result()
            finally:
                for task in (sending, left):
                    task.cancel()
                await asyncio.wait({sending, left})


async def to_sse(
    events: AsyncIterator[Happening], warnings: tuple[str, ...]
) -> AsyncGenerator[str]:
    """What happens in a transcription as SSE; an error ends it with an ``error`` event.

    The deltas joined are the text of ``transcript.text.done``.
    """
    sent = time.monotonic()
    n_segments = 0
    try:
        async for event in events:
            lines = _lines(event, n_segments, warnings)
            n_segments += isinstance(event, Segment)
            if not lines and time.monotonic() - sent < KEEP_ALIVE_SECONDS:
                continue
            sent = time.monotonic()
            yield lines or ": keep-alive\n\n"
    except Exception as error:  # noqa: BLE001  # the status line is out; only the stream can say it
        yield f"event: error\ndata: {json.dumps(problem_of(error).body)}\n\n"


def _lines(event: Happening, n_segments: int, warnings: tuple[str, ...]) -> str:
    match event:
        case Segment():
            return _data(_delta(event, n_segments)) + _data(segment_body(event))
        case Transcript():
            return _data(_done(event, warnings)) + "data: [DONE]\n\n"
        case _:
            return ""


def _data(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _delta(segment: Segment, n_before: int) -> dict[str, Any]:
    delta = f" {segment.text}" if n_before else segment.text
    return {
        "type": "transcript.text.delta",
        "delta": delta,
        "segment_id": f"seg_{segment.id}",
    }


def segment_body(segment: Segment) -> dict[str, Any]:
    """A segment with its words."""
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
