"""Request bodies to disk, as they arrive.

LitServe reads a multipart body whole: 500 MB became 4.3 GB of memory over its processes. Here each
piece is parsed and written as it comes, so memory stays flat for any length. A file name that the
client sends is never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from asr.service.errors import Refused
from asr.service.files import finished_in_thread, write_all
from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from starlette.requests import Request

    from asr.audio.growing import GrowingFile

WRITE_BYTES: Final = 1 << 20
MAX_PIECES: Final = 4096
"""Gathered for one write: pieces of a byte each would take fifty times their size."""
MAX_FIELD_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 64
DRAIN_BYTES: Final = 1 << 20
DRAIN_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 60.0
"""A connection that brings nothing for so long is dead, and may hold a place or a lock."""
MIN_BYTES_PER_SECOND: Final = 100
"""What a body must bring on average beyond `IDLE_SECONDS`; the leanest speech codec needs 600."""

RAW_TYPES: Final = ("audio/", "video/", "application/octet-stream", "application/ogg")


@dataclass(slots=True)
class Body:
    """What arrived: the file, and the other fields in the order in which they came."""

    n_file_bytes: int = 0
    has_file: bool = False
    fields: list[tuple[str, str]] = field(default_factory=list)


async def receive_body(
    request: Request, target: Path, max_bytes: int, max_text_bytes: int = MAX_FIELD_BYTES
) -> Body:
    """Write the recording in a request to `target`.

    Takes ``multipart/form-data`` with a part called file, or the bare bytes with a content type
    of audio or video and the fields in the query, of known length or chunked; or only fields, as
    an urlencoded form or a JSON object, where the recording is an upload. A field called text may
    have `max_text_bytes`, the others 64 KiB.

    Raises:
        Problem: 400 a malformed body, 408 the client is silent, 413 too large, 415 another content
            type.
        ClientDisconnect: the client went away.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes, int(declared))
    with target.open("wb", buffering=0) as file:
        try:
            return await _receive(
                request, kind, parameters.get(b"boundary"), _Sink(file, max_text_bytes), max_bytes
            )
        except (Problem, Refused):
            await drain(request)
            raise


async def _receive(
    request: Request, kind: bytes, boundary: bytes | None, sink: _Sink, max_bytes: int
) -> Body:
    if kind == b"multipart/form-data":
        return await _receive_multipart(request, boundary, sink, max_bytes)
    if kind.decode("latin-1").startswith(RAW_TYPES):
        return await _receive_raw(request, sink, max_bytes)
    if kind in _FIELD_PARSERS:
        return Body(fields=_FIELD_PARSERS[kind](await _receive_fields(request)))
    message = "send multipart/form-data with a part called file, or the audio with its audio/ type"
    raise Problem(415, f"content type {kind.decode('latin-1')!r}: {message}", "unsupported_body")


def _too_large(max_bytes: int, n_bytes: int) -> Problem:
    message = f"Maximum content size limit ({max_bytes}) exceeded ({n_bytes} bytes read)"
    message += ". The limit is set by ASR_MAX_UPLOAD_BYTES."
    return Problem(413, message, "too_large", "file")


class _Sink:
    """Gathers small pieces and writes large ones, off the event loop."""

    def __init__(self, file: BinaryIO, max_text_bytes: int) -> None:
        self.max_text_bytes = max_text_bytes
        self._file = file
        self._pieces: list[bytes] = []
        self._n_gathered = 0
        self.n_bytes = 0

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._n_gathered += len(data)
        self.n_bytes += len(data)

    async def flush(self, at_least: int = 1) -> None:
        if self._n_gathered >= at_least or len(self._pieces) >= MAX_PIECES:
            pieces, self._pieces, self._n_gathered = self._pieces, [], 0
            await finished_in_thread(write_all, self._file, b"".join(pieces))


async def _receive_raw(request: Request, sink: _Sink, max_bytes: int) -> Body:
    async for data in pieces(request):
        sink.add(data)
        if sink.n_bytes > max_bytes:
            raise _too_large(max_bytes, sink.n_bytes)
        await sink.flush(WRITE_BYTES)
    await sink.flush()
    return Body(sink.n_bytes, sink.n_bytes > 0, request.query_params.multi_items())


def is_raw(request: Request) -> bool:
    """Whether the body is the recording itself."""
    return request.headers.get("content-type", "").strip().lower().startswith(RAW_TYPES)


async def receive_growing(request: Request, target: GrowingFile, max_bytes: int) -> None:
    """Write a raw body to a file that is read meanwhile: each piece at once.

    Raises:
        Problem: 408 the client is silent, 413 too large.
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


async def _receive_fields(request: Request) -> bytes:
    text = bytearray()
    async for data in pieces(request):
        text += data
        if len(text) > MAX_FIELDS * MAX_FIELD_BYTES:
            raise _too_large(MAX_FIELDS * MAX_FIELD_BYTES, len(text))
    return bytes(text)


def _form_fields(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Problem(400, f"malformed form: {error}", "malformed_body") from error


def _json_fields(text: bytes) -> list[tuple[str, str]]:
    """The members of an object as a form has them: a list repeats its name."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON", "malformed_body") from None
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object", "malformed_body")
    pairs = [pair for name, value in body.items() for pair in _flatten(name, value)]
    try:
        "".join(text for pair in pairs for text in pair).encode()
    except UnicodeEncodeError:  # JSON may escape half a surrogate pair, which is no text
        raise Problem(400, "the body holds half a character", "malformed_body") from None
    return pairs


def _flatten(name: str, value: object) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            yield name, json.dumps(value)
        case list():
            yield from ((name, _scalar(name, item)) for item in value)
        case _:
            yield name, _scalar(name, value)


def _scalar(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
    raise Problem(400, f"{name}: must not hold lists or objects", "invalid_value", name)


_FIELD_PARSERS: Final = {
    b"application/x-www-form-urlencoded": _form_fields,
    b"application/json": _json_fields,
}


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body of a request as it comes.

    Raises:
        ClientDisconnect: the client left.
        Problem: 408, the client is silent, or sends so little that it only holds a place.
    """
    stream = request.stream()
    credit = IDLE_SECONDS  # seconds that it may still be waited for, in all
    while True:
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(credit, IDLE_SECONDS)):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"nothing came for {IDLE_SECONDS:g} seconds, or far too little"
            raise Problem(408, message, "idle", None, 1) from None
        credit += len(piece) / MIN_BYTES_PER_SECOND - (time.monotonic() - started)
        yield piece


async def _receive_multipart(
    request: Request, boundary: bytes | None, sink: _Sink, max_bytes: int
) -> Body:
    if not boundary:
        raise Problem(400, "the multipart content type names no boundary", "malformed_body")
    form = _Form(boundary, sink)
    n_bytes = 0
    async for data in pieces(request):
        n_bytes += len(data)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes, n_bytes)
        form.feed(data)
        await sink.flush(WRITE_BYTES)
    await sink.flush()
    return form.finish()


class _Form:
    """The callbacks of the multipart parser."""

    def __init__(self, boundary: bytes, sink: _Sink) -> None:
        self._sink = sink
        self._body = Body()
        self._name = ""
        self._value = bytearray()
        self._header = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Problem(400, f"malformed multipart body: {error}", "malformed_body") from error

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Problem(400, f"malformed multipart body: {error}", "malformed_body") from error

    def finish(self) -> Body:
        if not self._ended:
            message = "the multipart body ends before its last boundary"
            raise Problem(400, message, "malformed_body")
        self._body.n_file_bytes = self._sink.n_bytes
        return self._body

    def _begin(self) -> None:
        self._disposition = b""
        self._name = ""
        self._value.clear()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]  # the parser bounds the length and number of headers

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise Problem(400, "a part of the multipart body has no name", "malformed_body")
        if self._name == "file":
            if self._body.has_file:
                raise Problem(400, "file: send one file in a request", "invalid_value", "file")
            self._body.has_file = True
        elif len(self._body.fields) >= MAX_FIELDS:
            raise Problem(400, f"more than {MAX_FIELDS} fields", "malformed_body")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._sink.add(data[start:end])
            return
        self._value += data[start:end]
        limit = self._sink.max_text_bytes if self._name == "text" else MAX_FIELD_BYTES
        if len(self._value) > limit:
            message = f"{self._name}: longer than {limit} bytes"
            raise Problem(400, message, "invalid_value", self._name)

    def _end_part(self) -> None:
        if self._name != "file":
            self._body.fields.append((self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self._ended = True


async def drain(request: Request) -> None:
    """Read a little of a body that is refused, so that small clients see the answer.

    A connection closed with unread bytes is reset, and the reset can overtake the answer. Who sends
    slowly is not waited for: it may have no key.
    """
    n_bytes = 0
    with contextlib.suppress(RuntimeError, TimeoutError):  # all of it was read before
        async with asyncio.timeout(DRAIN_SECONDS):
            async for data in request.stream():
                n_bytes += len(data)
                if n_bytes > DRAIN_BYTES:
                    return
