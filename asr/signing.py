"""The key that signs webhooks, from the secret in the settings."""

from __future__ import annotations

import base64


def signing_key(secret: str) -> bytes:
    """The bytes of the key: decoded base64 after ``whsec_``, otherwise the secret itself.

    Raises:
        ValueError: the secret is neither valid base64 nor UTF-8.
    """
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


def is_usable(secret: str) -> bool:
    """Whether the secret gives a key that is not empty."""
    try:
        return bool(signing_key(secret))
    except ValueError:
        return False
