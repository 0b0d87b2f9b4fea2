"""The events that a client sends, as in OpenAI's Realtime API. Beta forms are accepted, too."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from asr.errors import AsrError, InvalidOption
from asr.service.errors import Malformed, TooLarge
from asr.service.json_text import check_structure
from asr.service.live.beta import beta_names, is_flat
from asr.service.live.session_fields import SessionUpdate  # noqa: TC001  # for pydantic

MAX_EVENT_CHARACTERS: Final = 256 << 10
"""The limit of an event without audio."""
MAX_ID: Final = 512
_TAGS: Final = frozenset({"server_vad", "semantic_vad"})
_NO_RESPONSES: Final = "this service transcribes and makes no responses"
NOT_SERVED: Final = {
    "response.create": _NO_RESPONSES,
    "response.cancel": _NO_RESPONSES,
    "output_audio_buffer.clear": _NO_RESPONSES,
    "conversation.item.create": "items are made from audio; send input_audio_buffer.append",
    "conversation.item.truncate": "only the audio of responses can be truncated, and there is none",
}
"""Events of OpenAI's API that are refused, with the reasons."""
T = TypeVar("T")


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")

    event_id: str | None = Field(None, max_length=MAX_ID)


class Update(_Event):
    """Change settings of the session."""

    type: Literal["session.update", "transcription_session.update"]
    session: SessionUpdate


class Append(_Event):
    """More audio, in base64."""

    type: Literal["input_audio_buffer.append"]
    audio: str


class Commit(_Event):
    """End the turn here."""

    type: Literal["input_audio_buffer.commit"]


class Clear(_Event):
    """Discard the audio that was not committed."""

    type: Literal["input_audio_buffer.clear"]


class Retrieve(_Event):
    """Ask for an item with its transcript."""

    type: Literal["conversation.item.retrieve"]
    item_id: str = Field(max_length=MAX_ID)


class Delete(_Event):
    """Forget the transcript of an item."""

    type: Literal["conversation.item.delete"]
    item_id: str = Field(max_length=MAX_ID)


ClientEvent = Update | Append | Commit | Clear | Retrieve | Delete
_EVENT: TypeAdapter[ClientEvent] = TypeAdapter(Annotated[ClientEvent, Field(discriminator="type")])


def parse_event(text: str) -> ClientEvent:
    """Check a client's event.

    Raises:
        InvalidOption: a field is wrong, or the event is not served.
        Malformed: the text is not JSON, or has too many values.
        TooLarge: it is long and has no audio.
    """
    event = parse(_EVENT, text)
    if len(text) > MAX_EVENT_CHARACTERS and not isinstance(event, Append):
        message = f"an event without audio may have {MAX_EVENT_CHARACTERS} characters"
        raise TooLarge(message, "too_large")
    return event


def parse(kind: TypeAdapter[T], text: str, *, is_session: bool = False) -> T:
    """Parse JSON into `kind`.

    Args:
        kind: what the JSON should be.
        text: the JSON.
        is_session: whether `kind` is a session, instead of an object with a field `session`.

    Raises:
        InvalidOption: a field is wrong. The message names it.
        Malformed: the text is not JSON, or has too many values.
    """
    check_structure(text)
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise _explain(error, text, is_session=is_session) from error


def event_id_of(text: str) -> str | None:
    """The id of an event that could not be parsed, if it has one."""
    given = _object(text).get("event_id")
    return given if isinstance(given, str) and len(given) <= MAX_ID else None


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_EVENT_CHARACTERS:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _explain(error: ValidationError, text: str, *, is_session: bool) -> AsrError:
    first = error.errors(include_url=False, include_input=False)[0]
    location, message = first["loc"], first["msg"].removeprefix("Value error, ")
    # In a discriminated union, the location contains the tag of a branch, which is not a field.
    names = [str(part) for part in location if "." not in str(part) and part not in _TAGS]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names.append("type")
        kind = str(first.get("ctx", {}).get("tag"))
        if first["type"] == "union_tag_not_found":
            message = "is missing"
        elif not location and kind in NOT_SERVED:
            message = f"{kind} is not served: {NOT_SERVED[kind]}"
    if not names:
        return Malformed(message, "invalid_value")
    if names[-1] == "type" and names[:-1] in ([], ["session"]):
        message += "" if location == () else "; this service only transcribes"
    given = _object(text)
    session = given if is_session else given.get("session")
    if isinstance(session, dict) and is_flat(session):
        names = beta_names(names)
    return InvalidOption(".".join(names), message)
