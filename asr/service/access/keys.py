"""API keys with names, scopes and limits.

The key file (``ASR_API_KEYS_FILE``) holds one JSON object per line:

    {"name": "alice", "sha256": "...", "scopes": ["transcribe"], "requests_per_minute": 60}

``asr keys new NAME`` prints a new key and its line. The service stores only the hash. It reads the
file again when it changes, so a key can be revoked while the service runs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asr.settings import Settings

logger = logging.getLogger(__name__)

Scope = Literal["transcribe", "jobs", "uploads", "realtime", "metrics", "admin"]
ANONYMOUS: Final = ""
"""The owner of requests in a service without keys."""
DEFAULT: Final = "default"
"""The name of the key in ASR_API_KEY, which has every scope."""
USER_SCOPES: Final[tuple[Scope, ...]] = ("transcribe", "jobs", "uploads", "realtime")
PREFIX: Final = "sk-asr-"
REREAD_SECONDS: Final = 1.0
"""The key file is checked for changes at most this often."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(BaseModel):
    """One line of the key file. A limit that is missing does not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[Scope] = frozenset(USER_SCOPES)
    weight: float = Field(1.0, ge=0.1, le=100, description="Relative share of the engine.")
    requests_per_minute: float | None = Field(None, gt=0)
    concurrency: int | None = Field(None, gt=0)
    bytes_per_day: int | None = Field(None, gt=0)
    audio_hours_per_day: float | None = Field(None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _hash(cls, line: Any) -> Any:
        """Accept the key itself as ``key``, instead of its hash."""
        if isinstance(line, dict) and isinstance(line.get("key"), str) and "sha256" not in line:
            rest = {name: value for name, value in line.items() if name != "key"}
            return rest | {"sha256": digest_of(line["key"].encode()).hex()}
        return line

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key. It has no salt, because a key from `new_key` has 256 random bits."""
        return bytes.fromhex(self.sha256)

    def may(self, scope: Scope | None) -> bool:
        """Whether the key may use routes of this scope. None means routes open to every key."""
        return scope is None or scope in self.scopes or "admin" in self.scopes


def digest_of(key: bytes) -> bytes:
    """SHA-256, so that all values have equal length for a comparison in constant time."""
    return hashlib.sha256(key).digest()


def parse_keys(text: str, source: str) -> tuple[Key, ...]:
    """Parse lines of JSON. Empty lines and lines that begin with # are skipped.

    Args:
        text: the lines.
        source: the setting that they come from, for errors.

    Raises:
        InvalidOption: a line is malformed, or a name occurs twice. The message never holds a key.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = Key.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            raise InvalidOption(source, f"line {number} is not JSON: {error.msg}") from None
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "key"
            raise InvalidOption(source, f"line {number}: {field}: {first['msg']}") from None
        if not _NAME.fullmatch(key.name) or key.name == DEFAULT:
            raise InvalidOption(source, f"line {number}: name: {key.name!r} is not allowed")
        if key.name in keys:
            raise InvalidOption(source, f"line {number}: a second key with the name {key.name}")
        keys[key.name] = key
    return tuple(keys.values())


class Keyring:
    """All keys of the service, from the settings and the key file.

    Raises:
        InvalidOption: a key is malformed, or the key file cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._fixed = parse_keys(settings.api_keys, "api_keys")
        if settings.api_key:
            sha256 = digest_of(settings.api_key.encode()).hex()
            line = {"name": DEFAULT, "sha256": sha256, "scopes": get_args(Scope)}
            self._fixed += (Key.model_validate(line),)
        self._path = Path(settings.api_keys_file) if settings.api_keys_file else None
        self._from_file: tuple[Key, ...] = ()
        self._stamp: tuple[int, ...] = ()
        self._checked = 0.0
        self._read()

    def __bool__(self) -> bool:
        """Whether requests need a key. An empty key file still means that they do."""
        return bool(self._fixed) or self._path is not None

    def weight_of(self, name: str) -> float:
        """The share of the engine of this key; 1 if the key no longer exists."""
        key = self.named(name)
        return 1.0 if key is None else key.weight

    def named(self, name: str) -> Key | None:
        """The key with this name as it is now, or None if it no longer exists."""
        self._reload()
        return next((k for k in self._fixed + self._from_file if k.name == name), None)

    def find(self, given: Iterable[bytes]) -> Key | None:
        """A valid key among `given`, or None. If several are valid, the last in the key list.

        The time does not depend on which key is valid.
        """
        self._reload()
        digests = [digest_of(key) for key in given]
        found = None
        for key in self._fixed + self._from_file:
            for digest in digests:
                if hmac.compare_digest(key.digest, digest):
                    found = key  # no break: the time must not depend on the match
        return found

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidOption("api_keys_file", f"cannot be read: {error}") from error
        self._stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        self._from_file = parse_keys(text, "api_keys_file")

    def _reload(self) -> None:
        """Read the key file if it has changed. After an error the old keys stay valid."""
        now = time.monotonic()
        if self._path is None or now - self._checked < REREAD_SECONDS:
            return
        self._checked = now
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_size, status.st_ino) != self._stamp:
                self._read()
                logger.info("reloaded %d keys", len(self._from_file))
        except (OSError, InvalidOption) as error:
            logger.warning(
                "the key file has an error; the set of keys is left as it was: %s", error
            )


def new_key(name: str) -> tuple[str, str]:
    """Make a random key.

    Returns:
        The key, and its line for the key file.

    Raises:
        InvalidOption: the name is not allowed.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    line = {"name": name, "sha256": digest_of(key.encode()).hex(), "scopes": list(USER_SCOPES)}
    text = json.dumps(line)
    parse_keys(text, "NAME")
    return key, text
