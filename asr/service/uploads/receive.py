"""Receives the body of a request and writes it to an upload, in threads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect

from asr.errors import AsrError
from asr.service.errors import TooLarge
from asr.service.http.body import WRITE_BYTES, pieces
from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from asr.service.uploads.parts import Part
    from asr.service.uploads.writer import Writer

    Run = Callable[..., Awaitable[Any]]
    """Runs a function in a thread, and waits until it ends."""

GATHER_SECONDS: Final = 0.1
"""How long received bytes may stay in memory, so that several pieces are written at once. Until
they are written, Upload-Offset does not include them, and a transcription of the growing upload
cannot read them."""


class _Buffer:
    """Joins pieces that arrive quickly into one write; pieces of a slow client are written soon."""

    def __init__(self, part: Part, run: Run) -> None:
        self._part = part
        self._run = run
        self._bytes = bytearray()
        self._due = 0.0

    async def add(self, piece: bytes, following: asyncio.Future[bytes | None]) -> None:
        """Add a piece. Write when the buffer is full or `following`, the next piece, is late."""
        if not self._bytes:
            self._due = time.monotonic() + GATHER_SECONDS
        self._bytes += piece
        if len(self._bytes) < WRITE_BYTES:
            await asyncio.wait({following}, timeout=self._due - time.monotonic())
        is_late = not following.done() or time.monotonic() >= self._due
        if is_late or len(self._bytes) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        full, self._bytes = self._bytes, bytearray()
        await self._run(self._part.write, full)


async def write_body(request: Request, writer: Writer, part: Part, run: Run) -> None:
    """Write the body of a request to a part. Memory use does not grow with the body."""
    buffer, room = _Buffer(part, run), writer.room
    stream = pieces(request)
    following = asyncio.ensure_future(anext(stream, None))
    try:
        while (piece := await following) is not None:
            room -= len(piece)
            if room < 0:
                raise part_too_large(writer)
            following = asyncio.ensure_future(anext(stream, None))
            await buffer.add(piece, following)
    except (ClientDisconnect, Problem, AsrError, asyncio.CancelledError):
        try:
            await buffer.flush()
        finally:
            await run(part.give_up)
        raise
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await buffer.flush()
    await run(part.finish)


def part_too_large(writer: Writer) -> TooLarge:
    """The error for a part that is longer than the rest of the upload."""
    message = f"the part goes beyond the end of the upload, which has room for {writer.room} bytes"
    return TooLarge(message, "too_large", "Upload-Length")
