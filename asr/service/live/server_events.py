"""The events that the server sends, in the shapes of OpenAI's Realtime API.

Times in fields that end in ``_ms`` are integer milliseconds, others are seconds; both count from
the first sample of the session. Fields with the comment "ours" are not part of OpenAI's API.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from asr.output.openai import logprobs_of, usage_of
from asr.service.http.problems import problem_of
from asr.service.transcriptions.events import segment_body
from asr.types import SAMPLE_RATE

if TYPE_CHECKING:
    from asr.service.live.session_config import SessionConfig
    from asr.service.live.turns import Turn
    from asr.types import Segment, Transcript

TRANSCRIPTION = "conversation.item.input_audio_transcription"
Body = dict[str, Any]


def _event(kind: str, **fields: Any) -> Body:
    return {"type": kind, "event_id": f"event_{secrets.token_hex(12)}", **fields}


def created(config: SessionConfig, session_id: str) -> Body:
    """The session as it begins."""
    return _event(f"{config.name}.created", session=config.body(session_id))


def updated(kind: str, config: SessionConfig, session_id: str, warnings: list[str]) -> Body:
    """The session after an update.

    Args:
        kind: of the client's event, which decides how this one is named.
        config: the settings.
        session_id: of the session.
        warnings: about fields of the update that have no effect.
    """
    body = config.body(session_id)
    return _event(f"{kind}d", session=body, warnings=warnings)  # ours: warnings


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
    item = _item(turn.item_id, None)
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


def _item(item_id: str, transcript: str | None) -> Body:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": transcript}],
    }


def retrieved(item_id: str, transcript: str | None) -> Body:
    """The answer to a retrieve. It never has the audio, which is not kept."""
    return _event("conversation.item.retrieved", item=_item(item_id, transcript))


def deleted(item_id: str) -> Body:
    """The answer to a delete."""
    return _event("conversation.item.deleted", item_id=item_id)


def delta(item_id: str, text: str) -> Body:
    """The next part of the text of an item."""
    return _event(f"{TRANSCRIPTION}.delta", item_id=item_id, content_index=0, delta=text)


def segment(turn: Turn, segment: Segment) -> Body:
    """A segment of a turn, with the times of its words."""
    body = segment_body(segment)
    body |= {"id": f"{turn.item_id}_{segment.id}", "speaker": segment.speaker or ""}
    del body["type"]
    return _event(f"{TRANSCRIPTION}.segment", item_id=turn.item_id, content_index=0, **body)


def completed(turn: Turn, transcript: Transcript, *, logprobs: bool = False) -> Body:
    """The whole text of a turn."""
    more = {"logprobs": _logprobs(transcript)} if logprobs else {}
    return _event(
        f"{TRANSCRIPTION}.completed",
        item_id=turn.item_id,
        content_index=0,
        transcript=transcript.text,
        usage=usage_of(turn.end - turn.start),
        languages=[{"code": transcript.language}],
        warnings=list(transcript.warnings),  # ours
        **more,
    )


def _logprobs(transcript: Transcript) -> list[Body]:
    """A token for each word whose confidence is known. OpenAI's type demands a number."""
    tokens = logprobs_of(transcript.segments)
    return [token for token in tokens if token["logprob"] is not None]


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
