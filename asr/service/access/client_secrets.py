"""Ephemeral keys ("client secrets") that open live sessions, for browsers.

A backend has an API key and asks for an ephemeral key, which it gives to a browser. The key is a
signed token: it holds the name of its owner, the time at which it expires and the settings of its
sessions. So every process of every server with the same data folder can check it, also after a
restart. Its signature depends on a random secret in the data folder and on the owner's API key, so
it ends with the API key.

    ek_ + base64url(signature + length of the owner's name + name + zlib(JSON))

The signature is checked before anything is unpacked.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asr.service.access.keys import ANONYMOUS
from asr.service.access.server_secret import ServerSecret, of_owner
from asr.service.clock import wall_time
from asr.service.errors import Expired, LimitReached, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from asr.service.access.keys import Keyring

PREFIX: Final = "ek_"
FILE: Final = "client_secrets.key"
MAX_LENGTH: Final = 4096
"""Characters of a key. A handshake has it in a header, and a header may have 8 KiB."""
MAX_VALID: Final = 1000
"""Keys of one owner that are valid at the same time, for each API process."""
_SIGNATURE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """What an ephemeral key allows.

    Attributes:
        owner: the name of the API key that asked for it; "" in a service without keys.
        session: the settings of its sessions, as a client sends them.
        expires_at: seconds since 1970.
    """

    owner: str
    session: dict[str, Any]
    expires_at: int


class ClientSecrets:
    """Makes and checks ephemeral keys.

    Args:
        keyring: the API keys.
        path: of the file with the server's secret. The first key that is made creates it.
        now: returns seconds since 1970.
    """

    def __init__(self, keyring: Keyring, path: Path, now: Callable[[], float] = wall_time) -> None:
        self._keyring = keyring
        self._server = ServerSecret(path)
        self._now = now
        self._lock = threading.Lock()
        self._valid: dict[str, list[int]] = {}

    def make(self, owner: str, session: dict[str, Any], seconds: int) -> tuple[str, int]:
        """Make a key. Blocks on the disk.

        Returns:
            The key, and the time at which it expires.

        Raises:
            LimitReached: the owner has too many valid keys.
            TooLarge: the settings of the session do not fit.
            OSError: the server's secret cannot be written.
        """
        expires_at = int(self._now()) + seconds
        with self._lock:
            secret = self._server.load() or self._server.create()
            value = self._signed(secret, Grant(owner, session, expires_at))
            self._count(owner, expires_at)
        return value, expires_at

    def find(self, given: Iterable[bytes]) -> Grant | None:
        """What the first ephemeral key among `given` allows, or None if there is no valid one.

        Raises:
            Expired: a key is genuine, but has expired.
        """
        grants = [self._read(key) for key in given if key.startswith(PREFIX.encode())]
        grant = next((grant for grant in grants if grant is not None), None)
        if grant is not None and grant.expires_at <= self._now():
            raise Expired(
                "this client secret has expired; ask for a new one", "client_secret_expired"
            )
        return grant

    def _signed(self, secret: bytes, grant: Grant) -> str:
        fields = [grant.expires_at, secrets.token_hex(8), grant.session]
        packed = zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 9)
        name = grant.owner.encode()
        content = bytes([len(name)]) + name + packed
        data = self._signature(secret, grant.owner, content) + content
        value = PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")
        if len(value) > MAX_LENGTH:
            message = "session: too long for a client secret; send it with session.update"
            raise TooLarge(message, "too_large", "session")
        return value

    def _signature(self, secret: bytes, owner: str, content: bytes) -> bytes:
        return hmac.digest(of_owner(secret, self._keyring, owner), content, "sha256")

    def _read(self, given: bytes) -> Grant | None:
        secret = self._server.load()
        if secret is None or len(given) > MAX_LENGTH:
            return None
        text = given.removeprefix(PREFIX.encode())
        try:
            data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        return self._checked(secret, data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:])

    def _checked(self, secret: bytes, signature: bytes, content: bytes) -> Grant | None:
        n_name = content[0] if content else 0
        owner = content[1 : 1 + n_name].decode("ascii", "replace")
        if not hmac.compare_digest(signature, self._signature(secret, owner, content)):
            return None
        if not self._is_owner(owner):
            return None
        expires_at, _, session = json.loads(zlib.decompress(content[1 + n_name :]))
        return Grant(owner, session, expires_at)

    def _is_owner(self, owner: str) -> bool:
        if not self._keyring:
            return owner == ANONYMOUS
        return self._keyring.named(owner) is not None

    def _count(self, owner: str, expires_at: int) -> None:
        now = self._now()
        valid = [it for it in self._valid.get(owner, ()) if it > now]
        if len(valid) >= MAX_VALID:
            wait = max(1, round(min(valid) - now))
            message = f"this key has {MAX_VALID} valid client secrets, which is its limit"
            raise LimitReached(message, "too_many_client_secrets", retry_after=wait)
        self._valid[owner] = [*valid, expires_at]
