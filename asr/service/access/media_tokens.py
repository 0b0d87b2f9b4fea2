"""Short-lived tokens with which a browser plays the recording of one job.

An ``<audio>`` or ``<img>`` element cannot send a header, so the token is in the query of its
address. It opens the recording and its pictures only, and is bound to the job and to the API key
that asked for it: it ends with the key.

    mt_ + base64url(signature + time of expiry + name of the owner)
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Final

from asr.service.access.keys import ANONYMOUS
from asr.service.access.server_secret import ServerSecret, of_owner
from asr.service.clock import wall_time
from asr.service.errors import Expired

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asr.service.access.keys import Keyring

PREFIX: Final = "mt_"
SECONDS: Final = 3600
MAX_LENGTH: Final = 256
_SIGNATURE_BYTES: Final = 32
_TIME_BYTES: Final = 8


class MediaTokens:
    """Makes and checks tokens.

    Args:
        keyring: the API keys.
        path: of the file with the server's secret.
        now: returns seconds since 1970.
    """

    def __init__(self, keyring: Keyring, path: Path, now: Callable[[], float] = wall_time) -> None:
        self._keyring = keyring
        self._server = ServerSecret(path)
        self._now = now

    def make(self, owner: str, job: str) -> tuple[str, int]:
        """Make a token. Blocks on the disk.

        Returns:
            The token, and the time at which it expires, in seconds since 1970.

        Raises:
            OSError: the server's secret cannot be written.
        """
        expires_at = int(self._now()) + SECONDS
        secret = self._server.load() or self._server.create()
        content = expires_at.to_bytes(_TIME_BYTES, "big") + owner.encode()
        data = self._signature(secret, owner, job, content) + content
        return PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("="), expires_at

    def owner_of(self, token: str, job: str) -> str | None:
        """The owner who asked for a token for this job, or None if the token is not genuine.

        Raises:
            Expired: it is genuine, but has expired.
        """
        secret = self._server.load()
        if secret is None or len(token) > MAX_LENGTH or not token.startswith(PREFIX):
            return None
        text = token.removeprefix(PREFIX)
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, content = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        owner = content[_TIME_BYTES:].decode("ascii", "replace")
        if not hmac.compare_digest(signature, self._signature(secret, owner, job, content)):
            return None
        if int.from_bytes(content[:_TIME_BYTES], "big") <= self._now():
            raise Expired("this media token has expired; ask for a new one", "media_token_expired")
        return owner if self._is_owner(owner) else None

    def _signature(self, secret: bytes, owner: str, job: str, content: bytes) -> bytes:
        owners = of_owner(secret, self._keyring, owner)
        # The name of the purpose, so that no other signed message can be taken for a token.
        return hmac.digest(owners, b"media token\0" + job.encode() + b"\0" + content, "sha256")

    def _is_owner(self, owner: str) -> bool:
        if not self._keyring:
            return owner == ANONYMOUS
        return self._keyring.named(owner) is not None
