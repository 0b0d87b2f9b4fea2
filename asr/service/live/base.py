"""What a live session needs of the world around it: a client, and a service that transcribes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asr.config import DecodeOptions, VadOptions
    from asr.service.litserve.messages import WorkerEvent
    from asr.service.live.turns import Turn
    from asr.types import Transcript


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """When a session ends by itself.

    Attributes:
        idle_seconds: without a message.
        max_seconds: of audio or of the clock, whichever comes first.
    """

    idle_seconds: float
    max_seconds: float


class Socket(Protocol):
    """The client. Both methods raise `ConnectionError` when it has left."""

    async def receive(self) -> str:
        """The next text message."""
        ...

    async def send(self, body: dict[str, Any]) -> None:
        """Send one event."""
        ...


class Backend(Protocol):
    """What a session needs of the service."""

    def transcribe(
        self, turn: Turn, vad: VadOptions, decode: DecodeOptions
    ) -> AsyncGenerator[WorkerEvent]:
        """Have the worker transcribe a turn."""
        ...

    def spend(self, n_bytes: int) -> None:
        """Count what was received.

        Raises:
            Problem: 429, the key has used up what it may.
        """
        ...

    def keep(self, turn: Turn, transcript: Transcript) -> None:
        """Keep a transcript for who asks later."""
        ...
