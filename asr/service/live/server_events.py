"""The events that the server sends, in the shapes of OpenAI's Realtime API.

Times in fields that end in ``_ms`` are integer milliseconds, others are seconds; both count from
the first sample of the session. Fields with the comment "ours" are not part of OpenAI's API.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Literal

from asr.output.numbers import rounded
from asr.service.http.problems import problem_of
from asr.service.transcriptions.events import segment_body
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.service.live.turns import Turn
    from asr.types import Segment, Transcript

TRANSCRIPTION = "conversation.item.input_audio_transcription"
Body = dict[str, Any]


def _event(kind: str, **fields: Any) -> Body:
    return {"type": kind, "event_id": f"event_{secrets.token_hex(12)}", **fields}


def session_event(kind: Literal["created", "updated"], session: Body) -> Body:
    """The session as it is now."""
    return _event(f"session.{kind}", session=session)


def speech_started(item_id: str, sample: int) -> Body:
    """The server VAD found the start of a turn."""
    start = sample * 1000 // SAMPLE_RATE
    return _event("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=start)


def speech_stopped(item_id: str, sample: int) -> Body:
    """The server VAD found the end of the turn."""
    end = sample * 1000 // SAMPLE_RATE
    return _event("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=end)


def cleared() -> Body:
    """The answer to a clear."""
    return _event("input_audio_buffer.cleared")


def committed(turn: Turn, previous: str | None) -> list[Body]:
    """The turn became an item."""
    item = {
        "id": turn.item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    return [
        _event(
            "input_audio_buffer.committed",
            item_id=turn.item_id,
            previous_item_id=previous,
            audio_start_ms=round(turn.start * 1000),  # ours, as the next field
            audio_end_ms=round(turn.end * 1000),
        ),
        _event("conversation.item.added", item=item, previous_item_id=previous),
    ]


def delta(item_id: str, text: str) -> Body:
    """The next part of the text of an item."""
    return _event(f"{TRANSCRIPTION}.delta", item_id=item_id, content_index=0, delta=text)


def segment(turn: Turn, segment: Segment) -> Body:
    """A segment of a turn, with the times of its words."""
    body = segment_body(segment)
    body |= {"id": f"{turn.item_id}_{segment.id}", "speaker": segment.speaker or ""}
    del body["type"]
    return _event(f"{TRANSCRIPTION}.segment", item_id=turn.item_id, content_index=0, **body)


def completed(turn: Turn, transcript: Transcript) -> Body:
    """The whole text of a turn."""
    return _event(
        f"{TRANSCRIPTION}.completed",
        item_id=turn.item_id,
        content_index=0,
        transcript=transcript.text,
        usage={"type": "duration", "seconds": rounded(turn.end - turn.start)},
        languages=[{"code": transcript.language}],
        warnings=list(transcript.warnings),  # ours
    )


def failed(turn: Turn, error: Exception) -> Body:
    """The turn could not be transcribed. The session continues."""
    body = problem_of(error).body["error"]
    return _event(f"{TRANSCRIPTION}.failed", item_id=turn.item_id, content_index=0, error=body)


def error_event(error: Exception, event_id: str | None = None) -> Body:
    """An event of the client was wrong, or the session ends.

    Args:
        error: the reason.
        event_id: of the client's event, if it had one.
    """
    return _event("error", error=problem_of(error).body["error"] | {"event_id": event_id})
