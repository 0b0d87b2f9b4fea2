"""Counts what each API key uses, and refuses requests beyond its limits.

The limits are requests per minute, open requests, and bytes and hours of audio per day. A meter
counts in memory what this process sees. `asr.service.access.shared` adds what the other servers of
one database count. The daily numbers restart at midnight UTC, and without such a database also when
the service starts.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.service.clock import wall_time
from asr.service.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from starlette.types import Message, Receive

    from asr.service.access.keys import Key

DAY_SECONDS: Final = 86_400
_ONE_TOKEN: Final = 1 - 1e-9
"""With a tolerance, so that rounding cannot deny a token after Retry-After."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What one server, or several together, count for a key.

    Attributes:
        day: of the bytes and the audio, in days since 1970.
        n_bytes: received on that day.
        audio_seconds: transcribed on that day.
        n_open: requests that are open now.
    """

    day: int = 0
    n_bytes: int = 0
    audio_seconds: float = 0.0
    n_open: int = 0


class Meter:
    """Counts the usage of one key.

    Attributes:
        key: the key with its limits.
        elsewhere: what the other servers count for it.

    Args:
        key: the key with its limits.
        clock: returns seconds since any fixed moment.
        now: returns seconds since 1970, UTC.
    """

    def __init__(
        self,
        key: Key,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = wall_time,
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
        self.elsewhere = KeyUse()

    @property
    def n_open(self) -> int:
        """The open requests in this process."""
        return self._n_open

    @property
    def here(self) -> KeyUse:
        """What this process counts."""
        self._begin_day()
        return KeyUse(self._day, self._n_bytes, self._audio_seconds, self._n_open)

    @contextlib.contextmanager
    def request(self, *, has_token: bool = False) -> Generator[None]:
        """Hold a place for one request during the block.

        Args:
            has_token: whether the request already has a token for its rate.

        Raises:
            LimitReached: a limit is reached.
        """
        self.check_place()
        if not has_token:
            self._take_token()
        self._n_open += 1
        try:
            yield
        finally:
            self._n_open -= 1

    def check_place(self) -> None:
        """Check all limits but the rate.

        Raises:
            LimitReached: a limit is reached.
        """
        concurrency = self.key.concurrency
        if concurrency is not None and self._n_open + self.elsewhere.n_open >= concurrency:
            message = f"this key has {concurrency} open requests, which is its limit"
            raise _refusal(message, "concurrency", 1)
        self.check()

    def set_tokens(self, tokens: float) -> None:
        """Continue with the tokens that all servers share."""
        self._tokens, self._filled = tokens, self._clock()

    def _take_token(self) -> None:
        """Take a token from a bucket that holds one minute's requests and fills evenly."""
        rate = self.key.requests_per_minute
        if rate is None:
            return
        now = self._clock()
        self._tokens = refilled(self._tokens, now - self._filled, rate)
        self._filled = now
        check_tokens(self._tokens, rate)
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
        if limit is not None and self._n_bytes + self._today_elsewhere.n_bytes > limit:
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
        audio_seconds = self._audio_seconds + self._today_elsewhere.audio_seconds
        return limit is not None and audio_seconds >= limit * 3600

    @property
    def _today_elsewhere(self) -> KeyUse:
        return self.elsewhere if self.elsewhere.day == self._day else KeyUse()

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


def refilled(tokens: float, seconds: float, rate: float) -> float:
    """The tokens of a bucket after some seconds; it holds one minute's requests, at least one."""
    return min(max(rate, 1.0), tokens + max(0.0, seconds) * rate / 60)


def check_tokens(tokens: float, rate: float) -> None:
    """Check whether a bucket has a token.

    Raises:
        LimitReached: it has none.
    """
    if tokens < _ONE_TOKEN:
        wait = math.ceil((1 - tokens) * 60 / rate)
        raise _refusal(f"this key may send {rate:g} requests a minute", "rate", wait)


def _refusal(message: str, what: str, wait: int) -> LimitReached:
    return LimitReached(message, f"{what}_limit_exceeded", retry_after=max(1, wait))


class Meters:
    """The meters of all keys used since the start of the service.

    Args:
        now: returns seconds since 1970, UTC.
    """

    def __init__(self, now: Callable[[], float] = wall_time) -> None:
        self._now = now
        self._meters: dict[str, Meter] = {}

    def of(self, key: Key) -> Meter:
        """The meter of a key, with its current limits."""
        meter = self._meters.get(key.name)
        if meter is None:
            meter = self._meters[key.name] = Meter(key, now=self._now)
        meter.key = key
        return meter

    @contextlib.asynccontextmanager
    async def place(self, meter: Meter) -> AsyncGenerator[None]:
        """Hold a place for one request during the block.

        Raises:
            LimitReached: a limit is reached.
        """
        with meter.request():
            yield

    def add_audio(self, owner: str, seconds: float) -> None:
        """Count audio transcribed for an owner. Requests without a key have no limit."""
        if owner in self._meters:
            self._meters[owner].add_audio(seconds)
