"""Requests for ephemeral keys ("client secrets"), in OpenAI's present form and in its beta form."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from asr.service.live.client_events import parse
from asr.service.live.session_config import warnings_of
from asr.service.live.session_fields import SessionUpdate

if TYPE_CHECKING:
    from asr.service.live.session_config import SessionConfig


class _Expiry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    anchor: Literal["created_at"] = "created_at"
    seconds: int | None = Field(default=None, ge=10, le=7200)


class _BetaSecret(BaseModel):
    model_config = ConfigDict(extra="ignore")

    expires_after: _Expiry | None = None
    expires_at: _Expiry | None = None  # the same, with the name that OpenAI gave it first


class SecretRequest(BaseModel):
    """The body of POST /v1/realtime/client_secrets."""

    model_config = ConfigDict(extra="ignore")

    expires_after: _Expiry | None = None
    session: SessionUpdate = SessionUpdate()

    @property
    def update(self) -> SessionUpdate:
        """The settings of the sessions."""
        return self.session

    @property
    def seconds(self) -> int:
        """How long the key is valid."""
        return _seconds(self.expires_after)


class BetaSecretRequest(SessionUpdate):
    """The body of POST /v1/realtime/transcription_sessions: a flat session."""

    client_secret: _BetaSecret | None = None

    @property
    def update(self) -> SessionUpdate:
        """The settings of the sessions."""
        return self

    def sent(self) -> dict[str, Any]:
        """The settings that were sent, without those of the key."""
        return {name: it for name, it in super().sent().items() if name != "client_secret"}

    @property
    def seconds(self) -> int:
        """How long the key is valid."""
        given = self.client_secret or _BetaSecret()
        return _seconds(given.expires_after or given.expires_at)


_PRESENT: Final = TypeAdapter(SecretRequest)
_BETA: Final = TypeAdapter(BetaSecretRequest)


def parse_request(text: str, *, is_beta: bool) -> SecretRequest | BetaSecretRequest:
    """Check a request. An empty text asks for the defaults.

    Raises:
        InvalidOption: a field is wrong.
        Malformed: the text is not JSON, or has too many values.
    """
    text = text if text.strip() else "{}"
    return parse(_BETA, text, is_session=True) if is_beta else parse(_PRESENT, text)


def answer(
    request: SecretRequest | BetaSecretRequest, config: SessionConfig, value: str, expires_at: int
) -> dict[str, Any]:
    """The answer with the new key.

    Args:
        request: of the client.
        config: the settings of the sessions.
        value: the key.
        expires_at: seconds since 1970.
    """
    is_beta = isinstance(request, BetaSecretRequest)
    session = replace(config, is_beta=is_beta).body(f"sess_{secrets.token_hex(16)}")
    key = {"value": value, "expires_at": expires_at}
    warnings = {"warnings": warnings_of(request.update, config)}  # ours
    if is_beta:
        return session | {"client_secret": key} | warnings
    return key | {"session": session} | warnings


def _seconds(expiry: _Expiry | None) -> int:
    """OpenAI's default is ten minutes."""
    return 600 if expiry is None or expiry.seconds is None else expiry.seconds
