"""Who may use the service: keys with names, scopes and limits.

A file of keys (``ASR_API_KEYS_FILE``) holds one JSON object in a line:

    {"name": "alice", "sha256": "...", "scopes": ["transcribe"], "requests_per_minute": 60}

``asr keys new NAME`` prints a key and its line; the key itself need not be kept anywhere. The file
is read again when it changes, so that a key can be taken back while the service runs.
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
"""The owner of what is sent to a service without keys."""
DEFAULT: Final = "default"
"""The name of ASR_API_KEY, which may do everything."""
USER_SCOPES: Final[tuple[Scope, ...]] = ("transcribe", "jobs", "uploads", "realtime")
PREFIX: Final = "sk-asr-"
REREAD_SECONDS: Final = 1.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(BaseModel):
    """A line of the file of keys. A limit that is not there does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[Scope] = frozenset(USER_SCOPES)
    weight: float = Field(1.0, ge=0.1, le=100, description="Share of the engine.")
    requests_per_minute: float | None = Field(None, gt=0)
    concurrency: int | None = Field(None, gt=0)
    bytes_per_day: int | None = Field(None, gt=0)
    audio_hours_per_day: float | None = Field(None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _hash(cls, line: Any) -> Any:
        """Take ``key`` itself in the place of its digest."""
        if isinstance(line, dict) and isinstance(line.get("key"), str) and "sha256" not in line:
            rest = {name: value for name, value in line.items() if name != "key"}
            return rest | {"sha256": digest_of(line["key"].encode()).hex()}
        return line

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key; it needs no salt, since nobody guesses 256 random bits."""
        return bytes.fromhex(self.sha256)

    def may(self, scope: Scope | None) -> bool:
        """Whether it opens routes of this scope; those of none are open to every key."""
        return scope is None or scope in self.scopes or "admin" in self.scopes


def digest_of(key: bytes) -> bytes:
    """Of equal length whatever the keys are, as a comparison in constant time demands."""
    return hashlib.sha256(key).digest()


def parse_keys(text: str, source: str) -> tuple[Key, ...]:
    """The keys in lines of JSON; empty lines and those that begin with # say nothing.

    Raises:
        InvalidOption: a line is no key, or two have one name. It names the line, never a key.
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
            raise InvalidOption(source, f"line {number}: name: {key.name!r} cannot be used")
        if key.name in keys:
            raise InvalidOption(source, f"line {number}: a second key with the name {key.name}")
        keys[key.name] = key
    return tuple(keys.values())


class Keyring:
    """All keys of the service.

    Raises:
        InvalidOption: while it is made, a key is malformed.
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
        self._looked = 0.0
        self._read()

    def __bool__(self) -> bool:
        """Whether keys are asked for; a file without keys lets nobody in."""
        return bool(self._fixed) or self._path is not None

    def weight_of(self, name: str) -> float:
        """The share of the engine of the key with this name; 1 when it is gone."""
        key = self.named(name)
        return 1.0 if key is None else key.weight

    def named(self, name: str) -> Key | None:
        """The key with this name, as it is now."""
        self._read_again()
        return next((k for k in self._fixed + self._from_file if k.name == name), None)

    def find(self, given: Iterable[bytes]) -> Key | None:
        """The key that was given; the time that takes does not tell how near a wrong one came."""
        self._read_again()
        digests = [digest_of(key) for key in given]
        found = None
        for key in self._fixed + self._from_file:
            for digest in digests:
                if hmac.compare_digest(key.digest, digest):
                    found = key  # and on to the last
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

    def _read_again(self) -> None:
        """Read a file that has changed; one that is wrong leaves the keys as they were."""
        now = time.monotonic()
        if self._path is None or now - self._looked < REREAD_SECONDS:
            return
        self._looked = now
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_size, status.st_ino) != self._stamp:
                self._read()
                logger.info("read %d keys again", len(self._from_file))
        except (OSError, InvalidOption) as error:
            logger.warning("the file of keys is left as it was: %s", error)


def new_key(name: str) -> tuple[str, str]:
    """A key that nobody had before, and its line for the file.

    Raises:
        InvalidOption: the name cannot be used.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    line = {"name": name, "sha256": digest_of(key.encode()).hex(), "scopes": list(USER_SCOPES)}
    text = json.dumps(line)
    parse_keys(text, "NAME")
    return key, text
