"""Receives request bodies and writes them to disk as they arrive.

LitServe reads a multipart body into memory: for a file of 500 MB its processes took 4.3 GB in
total. Here each piece is parsed and written when it arrives, so that memory does not grow with the
length. The file name that a client sends is never used as a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.multipart import parse_options_header

from asr.service.errors import Refused
from asr.service.files import finished_in_thread, write_all
from asr.service.http.fields import (
    MAX_FIELD_BYTES,
    check_fields,
    parse_urlencoded,
    with_query,
)
from asr.service.http.json_body import MAX_JSON_BYTES, read_json
from asr.service.http.multipart import FILE_PARTS, MultipartForm
from asr.service.http.problems import Problem
from asr.service.names import sent_name
from asr.service.threads import FairThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from starlette.requests import Request

    from asr.audio.growing import GrowingFile

WRITE_BYTES: Final = 1 << 20
MAX_PIECES: Final = 4096
"""The most pieces collected for one write. A piece of one byte takes fifty bytes of memory, so the
number of bytes alone would not limit the memory."""
DRAIN_BYTES: Final = 1 << 20
DRAIN_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 60.0
"""A connection that sends nothing for this time counts as dead. It may hold a place or a lock."""
MIN_BYTES_PER_SECOND: Final = 100
"""A body must arrive at this rate on average, after the first `IDLE_SECONDS`. The speech codec with
the lowest bit rate needs 600 bytes per second."""

MAX_FORM_BYTES: Final = 1 << 20
MAX_TEXT_FORM_BYTES: Final = 4 << 20
"""The limits of a body with fields only, without and with a text to align."""

RAW_TYPES: Final = ("audio/", "video/", "application/octet-stream", "application/ogg")

_JSON_PARSERS: Final = FairThreads("json", 2, 1)
"""A body with a recording in base64 takes up to 200 MB of memory while it is parsed."""


@dataclass(slots=True)
class Body:
    """A received body: whether it has a file, its fields in order, and the name of the file."""

    n_file_bytes: int = 0
    has_file: bool = False
    fields: list[tuple[str, str]] = field(default_factory=list)
    file_name: str | None = None


async def receive_body(
    request: Request,
    target: Path,
    max_bytes: int,
    max_text_bytes: int = MAX_FIELD_BYTES,
    file_parts: Collection[str] = FILE_PARTS,
) -> Body:
    """Write the recording in a request to `target`.

    The body, chunked or of known length, is one of these:

    - ``multipart/form-data`` with the recording in a part that `file_parts` names
    - the bare recording with a content type of audio or video, and the fields in the query
    - a JSON object with the recording in base64, see `asr.service.http.json_body`
    - only fields, as an urlencoded form or a JSON object; the recording is then an upload

    The query may hold fields, too.

    Args:
        request: the request.
        target: the file to write.
        max_bytes: the limit of the whole body.
        max_text_bytes: the limit of the field called text; other fields may have 64 KiB.
        file_parts: the names that the part with the recording may have.

    Raises:
        Problem: 400 the body is malformed, has too many fields or another content type, 408 the
            client sends nothing, 413 the body is too large.
        ClientDisconnect: the client left.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes, int(declared))
    with target.open("wb", buffering=0) as file:
        writer = _Writer(file, target)
        try:
            if kind == b"multipart/form-data":
                boundary = _boundary_of(parameters)
                form = MultipartForm(boundary, writer.add, max_text_bytes, file_parts)
                body = await _receive_multipart(request, form, writer, max_bytes)
            else:
                fields_limit = max(MAX_FORM_BYTES, min(max_text_bytes, MAX_TEXT_FORM_BYTES))
                body = await _receive_other(request, kind, writer, max_bytes, fields_limit)
            body.fields = with_query(body.fields, request.query_params.multi_items())
            check_fields(body.fields, "text" if max_text_bytes > MAX_FIELD_BYTES else "")
        except (Problem, Refused):
            await drain(request)
            raise
        return body


async def _receive_other(
    request: Request, kind: bytes, writer: _Writer, max_bytes: int, max_form_bytes: int
) -> Body:
    if kind.decode("latin-1").startswith(RAW_TYPES):
        return await _receive_raw(request, writer, max_bytes)
    if kind == b"application/x-www-form-urlencoded":
        text = await _receive_fields(request, max_form_bytes)
        return Body(fields=await asyncio.to_thread(parse_urlencoded, text))
    if kind == b"application/json":
        return await _receive_json(request, writer, min(max_bytes, MAX_JSON_BYTES), max_form_bytes)
    message = "send multipart/form-data with a part called file, or the audio with its audio/ type"
    raise Problem(400, f"content type {kind.decode('latin-1')!r}: {message}", "unsupported_body")


def _too_large(max_bytes: int, n_bytes: int) -> Problem:
    message = f"Maximum content size limit ({max_bytes}) exceeded ({n_bytes} bytes read)"
    message += ". The limit is set by ASR_MAX_UPLOAD_BYTES."
    return Problem(413, message, "too_large", "file")


class _Writer:
    """Collects small pieces and writes them in large ones, outside the event loop."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self._file = file
        self._pieces: list[bytes] = []
        self._n_collected = 0
        self.n_bytes = 0

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._n_collected += len(data)
        self.n_bytes += len(data)

    def replace(self, data: bytes) -> None:
        """Write `data` in place of everything that was written."""
        self._file.seek(0)
        self._file.truncate()
        write_all(self._file, data)

    async def flush(self, at_least: int = 1) -> None:
        """Write the collected pieces if they have `at_least` bytes, or are `MAX_PIECES`."""
        if self._n_collected >= at_least or len(self._pieces) >= MAX_PIECES:
            collected, self._pieces, self._n_collected = self._pieces, [], 0
            await finished_in_thread(write_all, self._file, b"".join(collected))


def _boundary_of(parameters: Mapping[bytes, bytes]) -> bytes:
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise Problem(400, "the multipart content type names no boundary", "malformed_body")
    return boundary


async def _receive_multipart(
    request: Request, form: MultipartForm, writer: _Writer, max_bytes: int
) -> Body:
    n_bytes = 0
    async for data in pieces(request):
        n_bytes += len(data)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes, n_bytes)
        form.feed(data)
        await writer.flush(WRITE_BYTES)
    await writer.flush()
    form.finish()
    return Body(writer.n_bytes, form.has_file, form.fields, form.file_name)


async def _receive_raw(request: Request, writer: _Writer, max_bytes: int) -> Body:
    async for data in pieces(request):
        writer.add(data)
        if writer.n_bytes > max_bytes:
            raise _too_large(max_bytes, writer.n_bytes)
        await writer.flush(WRITE_BYTES)
    await writer.flush()
    name = sent_name(request.headers.get("content-disposition", "").encode("latin-1"))
    return Body(writer.n_bytes, writer.n_bytes > 0, request.query_params.multi_items(), name)


async def _receive_json(
    request: Request, writer: _Writer, max_bytes: int, max_form_bytes: int
) -> Body:
    """Receive a JSON object on disk, then put its recording there instead."""
    async for data in pieces(request):
        writer.add(data)
        if writer.n_bytes > max_bytes:
            message = f"a JSON body may have {max_bytes} bytes; send the recording as a form"
            raise Problem(413, f"{message} (multipart/form-data)", "too_large")
        await writer.flush(WRITE_BYTES)
    await writer.flush()

    def parse() -> Body:
        fields, recording = read_json(writer.path.read_bytes(), max_form_bytes)
        writer.replace(recording or b"")
        return Body(len(recording or b""), recording is not None, fields)

    owner = str(request.scope.get("state", {}).get("owner", ""))
    return await _JSON_PARSERS.run(owner, parse)


async def _receive_fields(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    text = bytearray()
    if declared.isdigit() and int(declared) > max_bytes:
        raise _form_too_large(max_bytes)
    async for data in pieces(request):
        text += data
        if len(text) > max_bytes:
            raise _form_too_large(max_bytes)
    return bytes(text)


def _form_too_large(max_bytes: int) -> Problem:
    return Problem(413, f"a form without a file may have {max_bytes} bytes", "too_large")


def is_raw(request: Request) -> bool:
    """Whether the body is the bare recording."""
    return request.headers.get("content-type", "").strip().lower().startswith(RAW_TYPES)


async def receive_growing(request: Request, target: GrowingFile, max_bytes: int) -> None:
    """Write a bare recording to a file that is read at the same time.

    Each piece is written when it arrives.

    Raises:
        Problem: 408 the client sends nothing, 413 the body is too large.
        ClientDisconnect: the client left.
    """
    n_bytes = 0
    with target.path.open("ab", buffering=0) as file:
        async for data in pieces(request):
            n_bytes += len(data)
            if n_bytes > max_bytes:
                raise _too_large(max_bytes, n_bytes)
            await finished_in_thread(write_all, file, data)
    target.complete(n_bytes)


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield the body of a request as it arrives.

    Raises:
        ClientDisconnect: the client left.
        Problem: 408, the client sends nothing, or so little that it only holds a place.
    """
    stream = request.stream()
    credit = IDLE_SECONDS  # the time that may still be spent waiting; each piece adds to it
    while True:
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(credit, IDLE_SECONDS)):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"no data for {IDLE_SECONDS:g} seconds, or on average less than"
            message += f" {MIN_BYTES_PER_SECOND} bytes a second"
            raise Problem(408, message, "idle", None, 1) from None
        credit += len(piece) / MIN_BYTES_PER_SECOND - (time.monotonic() - started)
        yield piece


async def drain(request: Request) -> None:
    """Read a little more of a body that is refused, so that the client sees the answer.

    Closing a connection with unread bytes resets it, and the reset can overtake the answer. A slow
    client is not waited for, since it may have no key.
    """
    n_bytes = 0
    with contextlib.suppress(RuntimeError, TimeoutError):  # RuntimeError: the body was read before
        async with asyncio.timeout(DRAIN_SECONDS):
            async for data in request.stream():
                n_bytes += len(data)
                if n_bytes > DRAIN_BYTES:
                    return
