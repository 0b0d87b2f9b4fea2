"""Answers from which a client may fetch a part: Range, If-Range and If-None-Match (RFC 9110).

A request for several ranges gets the whole: players ask for one. Starlette's FileResponse answers
errors in its own format, and sends its head before it opens the file.
"""

from __future__ import annotations

import asyncio
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from starlette.responses import Response

from asr.service.http.head import wants_head
from asr.service.http.problems import Problem
from asr.service.jobs.documents import matches

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)
_STEP: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to send.

    Attributes:
        file: where they are read from.
        size: their number.
        tag: a strong ETag with its quotes.
        kind: the media type.
    """

    file: BinaryIO
    size: int
    tag: str
    kind: str


def of_bytes(data: bytes, tag: str, kind: str) -> Content:
    """Bytes in memory as a content."""
    return Content(io.BytesIO(data), len(data), tag, kind)


def of_file(path: Path, kind: str) -> Content:
    """A file as a content. Blocks on the disk. The file may be deleted afterwards.

    Raises:
        FileNotFoundError: it does not exist.
    """
    file = path.open("rb")
    status = file.seek(0, io.SEEK_END), path.stat().st_mtime_ns
    return Content(file, status[0], f'"{status[0]:x}-{status[1]:x}"', kind)


def answer(request: Request, content: Content, headers: Mapping[str, str]) -> Response:
    """The content, the part that the client asks for, or 304.

    Raises:
        Problem: 416, the content ends before the part.
    """
    given = request.headers
    shown = {"etag": content.tag, "accept-ranges": "bytes", **headers}
    if matches(content.tag, given.get("if-none-match", "")):
        content.file.close()
        return Response(status_code=304, headers=shown)
    first, last = 0, content.size - 1
    status = 200
    # A weak or another tag, or a date, does not show that the parts fit together.
    if given.get("if-range", content.tag) == content.tag and (asked := given.get("range")):
        part = _part(asked, content)
        if part is not None:
            (first, last), status = part, 206
            shown["content-range"] = f"bytes {first}-{last}/{content.size}"
    return _Part(content, (first, last - first + 1), status, shown)


def _part(asked: str, content: Content) -> tuple[int, int] | None:
    """The first and the last byte of a range; None for a header that is ignored."""
    found = _RANGE.fullmatch(asked)
    if found is None or found.groups() == ("", ""):
        return None  # several ranges, or another unit
    size = content.size
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), int(found[2] or size - 1)
        if found[2] and last < first:
            return None  # RFC 9110: such a header is invalid, and ignored
    if first >= size:
        content.file.close()
        message = f"Range: the file has {size} bytes"
        headers = {"content-range": f"bytes */{size}"}
        raise Problem(416, message, "range_not_satisfiable", "Range", headers=headers)
    return first, min(last, size - 1)


class _Part(Response):
    """A part of a content as an answer."""

    def __init__(
        self, content: Content, part: tuple[int, int], status: int, headers: Mapping[str, str]
    ) -> None:
        self._content = content
        self._first, n_bytes = part
        self._left = n_bytes
        shown = {**headers, "content-length": str(n_bytes)}
        super().__init__(None, status, shown, content.kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the part."""
        file = self._content.file
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await asyncio.to_thread(file.seek, self._first)
            while self._left > 0 and not wants_head(scope):
                data = await asyncio.to_thread(file.read, min(_STEP, self._left))
                if not data:
                    raise RuntimeError("a file is shorter than expected")
                self._left -= len(data)
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            file.close()
