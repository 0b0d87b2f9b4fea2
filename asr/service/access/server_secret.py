"""The random secret that the servers of one data folder share. It signs keys for browsers."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from asr.service.access.keys import Keyring

_SECRET_BYTES: Final = 32


def of_owner(secret: bytes, keyring: Keyring, owner: str) -> bytes:
    """The secret that signs for an owner. It changes with the owner's API key, if it has one."""
    key = keyring.named(owner)
    return hmac.digest(secret, b"" if key is None else key.digest, "sha256")


class ServerSecret:
    """A secret in a file.

    Args:
        path: of the file. The first call of `create` makes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._secret: bytes | None = None

    def load(self) -> bytes | None:
        """The secret, or None if there is none yet."""
        if self._secret is None:
            with contextlib.suppress(OSError):
                found = self._path.read_bytes()
                self._secret = found if len(found) == _SECRET_BYTES else None
        return self._secret

    def create(self) -> bytes:
        """Write a new secret, unless another process is faster. Its file is private."""
        secret = secrets.token_bytes(_SECRET_BYTES)
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secret)
            os.fsync(descriptor)
            try:
                os.link(draft, self._path)
            except FileExistsError:
                if (found := self.load()) is not None:
                    return found
                draft.replace(self._path)  # the other file is damaged
        finally:
            os.close(descriptor)
            draft.unlink(missing_ok=True)
        self._secret = secret
        return secret
