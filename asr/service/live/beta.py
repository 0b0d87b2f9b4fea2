"""OpenAI's beta form of the Realtime API: flat sessions, and other names of events.

Clients ask for it with the header ``OpenAI-Beta: realtime=v1`` or the subprotocol
``openai-beta.realtime-v1``. Some send beta events without asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import Headers

Body = dict[str, Any]
HEADER: Final = "realtime=v1"
PROTOCOL: Final = "openai-beta.realtime-v1"
FORMATS: Final = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
FIELDS: Final = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
"""Fields of a flat session, and their names in ``audio.input``."""
_RENAMED: Final = {"conversation.item.added": "conversation.item.created"}
_UNKNOWN: Final = frozenset({"conversation.item.input_audio_transcription.segment"})
_FORMAT_NAMES: Final = {name: beta for beta, name in FORMATS.items()}


def is_asked_for(headers: Headers, protocols: list[str]) -> bool:
    """Whether a handshake asks for the beta form."""
    return HEADER in headers.get("openai-beta", "") or PROTOCOL in protocols


def is_flat(session: Mapping[str, Any]) -> bool:
    """Whether a client's session has fields of the beta form."""
    return bool(session.keys() & FIELDS.keys())


def nested(session: Mapping[str, Any]) -> Body:
    """A flat session in the present form.

    Raises:
        ValueError: a setting occurs in both forms.
    """
    moved = {FIELDS[name]: value for name, value in session.items() if name in FIELDS}
    rest = {name: value for name, value in session.items() if name not in FIELDS}
    audio = rest.get("audio") or {}
    given = audio.get("input") or {} if isinstance(audio, dict) else None
    if not isinstance(given, dict):  # the models explain it
        return rest
    if twice := sorted(moved.keys() & given.keys()):
        raise ValueError(f"audio.input.{twice[0]} is sent twice: in the beta form, too")
    return rest | {"audio": audio | {"input": given | moved}}


def beta_names(path: list[str]) -> list[str]:
    """The path of a field of the present form as a path in a flat session."""
    for name, new in FIELDS.items():
        long = ["audio", "input", new]
        for start in (0, 1):  # after "session", or at the beginning
            if path[start : start + 3] == long:
                return [*path[:start], name, *path[start + 3 :]]
    return path


def flat_session(session: Body) -> Body:
    """A session with the fields of both forms."""
    given = session["audio"]["input"]
    values = {name: given[new] for name, new in FIELDS.items()}
    values["input_audio_format"] = _FORMAT_NAMES[given["format"]["type"]]
    return session | values | {"client_secret": None}


def translated(event: Body) -> Body | None:
    """A server's event in the beta form, or None if that form has no such event."""
    kind = event["type"]
    if kind in _UNKNOWN:
        return None
    return event | {"type": _RENAMED.get(kind, kind)}
