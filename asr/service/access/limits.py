"""Counts what each API key uses, and refuses requests beyond its limits.

The limits are requests per minute, open requests, and bytes and hours of audio per day. Usage is
kept in memory. The daily numbers restart at midnight UTC and when the service starts.
"""

from __future__ import annotations

import contextlib
import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from asr.service.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from starlette.types import Message, Receive

    from asr.service.access.keys import Key

DAY_SECONDS: Final = 86_400
_ONE_TOKEN: Final = 1 - 1e-9
"""With a tolerance, so that rounding cannot deny a token after Retry-After."""


class Meter:
    """Counts the usage of one key.

    Args:
        key: the key with its limits.
        clock: returns seconds since any fixed moment.
        now: returns seconds since 1970, UTC.
    """

    def __init__(
        self,
        key: Key,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = lambda: datetime.now(UTC).timestamp(),
    ) -> None:
        self.key = key
        self._clock = clock
        self._now = now
        self._tokens = key.requests_per_minute or 0.0
        self._filled = clock()
        self._n_open = 0
        self._day = 0
        self._n_bytes = 0
        self._audio_seconds = 0.0

    @contextlib.contextmanager
    def request(self) -> Generator[None]:
        """Hold a place for one request during the block.

        Raises:
            LimitReached: a limit is reached.
        """
        self._begin_day()
        concurrency = self.key.concurrency
        if concurrency is not None and self._n_open >= concurrency:
            message = f"this key has {concurrency} open requests, which is its limit"
            raise _refusal(message, "concurrency", 1)
        self._check_audio()
        self._check_bytes()
        self._take_token()
        self._n_open += 1
        try:
            yield
        finally:
            self._n_open -= 1

    def _take_token(self) -> None:
        """Take a token from a bucket that holds one minute's requests and fills evenly."""
        rate = self.key.requests_per_minute
        if rate is None:
            return
        now = self._clock()
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._filled) * rate / 60)
        self._filled = now
        if self._tokens < _ONE_TOKEN:
            wait = math.ceil((1 - self._tokens) * 60 / rate)
            raise _refusal(f"this key may send {rate:g} requests a minute", "rate", wait)
        self._tokens -= 1

    def add_bytes(self, n_bytes: int) -> None:
        """Count received bytes.

        Raises:
            LimitReached: they exceed the bytes of the day.
        """
        self._begin_day()
        self._n_bytes += n_bytes
        self._check_bytes()

    def _check_bytes(self) -> None:
        limit = self.key.bytes_per_day
        if limit is not None and self._n_bytes > limit:
            raise self._spent(f"this key may send {limit} bytes a day", "bytes")

    def add_audio(self, seconds: float) -> None:
        """Count transcribed audio. The recording that crosses the limit is still answered."""
        self._begin_day()
        self._audio_seconds += seconds

    def check(self) -> None:
        """Check whether a live session may continue.

        Raises:
            LimitReached: the bytes or the audio of the day are used up.
        """
        self._begin_day()
        self._check_audio()
        self._check_bytes()

    def audio_wait(self) -> int:
        """Seconds until this key may have audio transcribed again; 0 means now."""
        self._begin_day()
        return self._until_midnight() if self._has_spent_audio() else 0

    def _has_spent_audio(self) -> bool:
        limit = self.key.audio_hours_per_day
        return limit is not None and self._audio_seconds >= limit * 3600

    def _check_audio(self) -> None:
        if self._has_spent_audio():
            limit = self.key.audio_hours_per_day
            raise self._spent(f"this key may have {limit:g} hours of audio a day", "audio")

    def _begin_day(self) -> None:
        today = int(self._now() // DAY_SECONDS)
        if today != self._day:
            self._day, self._n_bytes, self._audio_seconds = today, 0, 0.0

    def _spent(self, message: str, what: str) -> LimitReached:
        return _refusal(message, what, self._until_midnight())

    def _until_midnight(self) -> int:
        return math.ceil(DAY_SECONDS - self._now() % DAY_SECONDS)

    def counting(self, receive: Receive) -> Receive:
        """Wrap ASGI's `receive` to count the bytes of the body.

        Beyond the limit it raises `LimitReached` once. Later calls pass the rest of the body on,
        uncounted, so that the refusal can drain it.
        """
        held: list[Message] = []
        is_refused = False

        async def counted() -> Message:
            nonlocal is_refused
            message = held.pop() if held else await receive()
            if message["type"] == "http.request" and not is_refused:
                try:
                    self.add_bytes(len(message.get("body", b"")))
                except LimitReached:
                    is_refused = True
                    held.append(message)
                    raise
            return message

        return counted


def _refusal(message: str, what: str, wait: int) -> LimitReached:
    return LimitReached(message, f"{what}_limit_exceeded", retry_after=max(1, wait))


class Meters:
    """The meters of all keys used since the start of the service."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def of(self, key: Key) -> Meter:
        """The meter of a key, with its current limits."""
        meter = self._meters.setdefault(key.name, Meter(key))
        meter.key = key
        return meter

    def add_audio(self, owner: str, seconds: float) -> None:
        """Count audio transcribed for an owner. Requests without a key have no limit."""
        if owner in self._meters:
            self._meters[owner].add_audio(seconds)
