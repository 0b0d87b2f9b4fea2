"""tus 1.0 over HTTP (https://tus.io/protocols/resumable-upload): uploads that survive anything.

With the extensions creation, creation-with-upload, creation-defer-length, checksum, expiration and
termination. `asr.service.uploads.store` says what an upload is and what can go wrong on the disk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asr.service.errors import Refused
from asr.service.files import finished_in_thread
from asr.service.http.body import WRITE_BYTES, drain, pieces
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem, problem_of
from asr.service.uploads.parts import ALGORITHMS, Checksum

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.service.uploads.parts import Part
    from asr.service.uploads.store import Upload, Uploads, Writer

    Method = Callable[["UploadRoutes", Request], Awaitable[Response]]

logger = logging.getLogger(__name__)

PATH: Final = "/v1/uploads"
VERSION: Final = "1.0.0"
EXTENSIONS: Final = (
    "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
)
PART_TYPE: Final = "application/offset+octet-stream"
MAX_METADATA: Final = 8192
GATHER_SECONDS: Final = 0.1
"""How long bytes may wait for more: they do not count yet, and a follower cannot read them."""
_PAIR: Final = re.compile(r"([!-+\--~]+)(?: ([A-Za-z0-9+/=]*))?")
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)

EXPOSED_HEADERS: Final = (
    "Location",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Defer-Length",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "X-Request-Id",
)
"""What a page in a browser may read of an answer to another origin."""


class UploadRoutes:
    """The methods of the protocol."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def answer(self, request: Request) -> Response:
        """Do what the request's method says, or the one that overrides it.

        Raises:
            Problem: whatever is wrong, with the header that every answer of tus has.
        """
        try:
            response = await _method(request)(self, request)
        except (Problem, Refused) as error:
            problem = problem_of(error)
            with contextlib.suppress(ClientDisconnect):
                await drain(request)
            headers = {"tus-resumable": VERSION, **problem.headers}
            raise replace(problem, headers=headers) from error
        response.headers["tus-resumable"] = VERSION
        return response

    async def offer(self, request: Request) -> Response:  # noqa: ARG002
        """OPTIONS: what this server can do."""
        headers = {
            "tus-version": VERSION,
            "tus-extension": EXTENSIONS,
            "tus-max-size": str(self._uploads.max_bytes),
            "tus-checksum-algorithm": ",".join(ALGORITHMS),
        }
        return Response(status_code=204, headers=headers)

    async def create(self, request: Request) -> Response:
        """POST: begin an upload, perhaps with its first part."""
        length = _declared_length(request)
        metadata = _metadata(request)
        carries_part = _content_type(request) == PART_TYPE
        checksum = _checksum(request) if carries_part else None
        owner = owner_of(request)
        upload = await asyncio.to_thread(self._uploads.create, owner, length, metadata)
        if carries_part:
            try:
                upload = await self._append(request, upload, checksum)
            except (Problem, Refused, OSError, ClientDisconnect, asyncio.CancelledError):
                # The client never learns its address.
                await finished_in_thread(self._uploads.remove, upload.id, owner)
                raise
        path = request.scope.get("root_path", "") + f"{PATH}/{upload.id}"
        headers = {"location": path, **_expiry(upload)}
        if carries_part:
            headers["upload-offset"] = str(upload.offset)
        return Response(status_code=201, headers=headers)

    async def tell(self, request: Request) -> Response:
        """HEAD: where to go on."""
        upload = await asyncio.to_thread(self._uploads.status, *_named(request))
        headers = {"cache-control": "no-store", "upload-offset": str(upload.offset)}
        if upload.length is None:
            headers["upload-defer-length"] = "1"
        else:
            headers["upload-length"] = str(upload.length)
        if upload.metadata:
            headers["upload-metadata"] = upload.metadata
        return Response(status_code=200, headers=headers | _expiry(upload))

    async def append(self, request: Request) -> Response:
        """PATCH: the next part."""
        if _content_type(request) != PART_TYPE:
            raise Problem(415, f"send the part as {PART_TYPE}", "unsupported_body", "Content-Type")
        offset = _number(request, "Upload-Offset")
        if offset is None:
            raise Problem(400, "Upload-Offset: is missing", "invalid_value", "Upload-Offset")
        checksum = _checksum(request)
        upload = await asyncio.to_thread(self._uploads.status, *_named(request))
        if upload.offset != offset:
            message = f"Upload-Offset: the upload stands at {upload.offset}, not {offset}"
            raise Problem(409, message, "offset_mismatch", "Upload-Offset")
        upload = await self._append(request, upload, checksum)
        headers = {"upload-offset": str(upload.offset)}
        return Response(status_code=204, headers=headers | _expiry(upload))

    async def terminate(self, request: Request) -> Response:
        """DELETE: forget the upload."""
        await asyncio.to_thread(self._uploads.remove, *_named(request))
        return Response(status_code=204)

    async def _append(self, request: Request, upload: Upload, checksum: Checksum | None) -> Upload:
        """Write a body to the end of an upload, which must stand where it stood."""
        owner = owner_of(request)
        async with contextlib.AsyncExitStack() as stack:
            lock = self._uploads.writing(upload.id, owner)
            writer = stack.enter_context(lock)
            if writer.offset != upload.offset:
                message = f"Upload-Offset: the upload stands at {writer.offset} now"
                raise Problem(409, message, "offset_mismatch", "Upload-Offset")
            if (length := _number(request, "Upload-Length")) is not None:
                await finished_in_thread(writer.declare, length)
            if (_number(request, "Content-Length") or 0) > writer.room:
                raise _beyond(writer)
            await _receive(request, writer, stack.enter_context(writer.part(checksum)))
        return await asyncio.to_thread(self._uploads.status, upload.id, owner)


_ALL: Final[dict[str, Method]] = {"OPTIONS": UploadRoutes.offer, "POST": UploadRoutes.create}
_ONE: Final[dict[str, Method]] = {
    "OPTIONS": UploadRoutes.offer,
    "HEAD": UploadRoutes.tell,
    "PATCH": UploadRoutes.append,
    "DELETE": UploadRoutes.terminate,
}


def _method(request: Request) -> Method:
    """What to do.

    Raises:
        Problem: 405 nothing that can be done here, 412 another version of tus.
    """
    name = request.headers.get("x-http-method-override", request.method).upper()
    methods = _ONE if "upload_id" in request.path_params else _ALL
    if name not in methods:
        allowed = {"allow": ", ".join(methods)}
        raise Problem(405, "Method Not Allowed", "http_error", headers=allowed)
    if name != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
        message = f"Tus-Resumable: must be {VERSION}"
        headers = {"tus-version": VERSION}
        raise Problem(412, message, "unsupported_version", "Tus-Resumable", headers=headers)
    return methods[name]


class _Gathering:
    """Pieces, gathered for one write while they come fast; those of a slow client count soon."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._bytes = bytearray()
        self._due = 0.0

    async def add(self, piece: bytes, coming: asyncio.Future[bytes | None]) -> None:
        """Take a piece, and write when there is enough or `coming`, the next one, is not there."""
        if not self._bytes:
            self._due = time.monotonic() + GATHER_SECONDS
        self._bytes += piece
        if len(self._bytes) < WRITE_BYTES:
            await asyncio.wait({coming}, timeout=self._due - time.monotonic())
        is_late = not coming.done() or time.monotonic() >= self._due
        if is_late or len(self._bytes) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        full, self._bytes = self._bytes, bytearray()
        await finished_in_thread(self._part.write, full)


async def _receive(request: Request, writer: Writer, part: Part) -> None:
    """The body of a request to a part, in memory that does not grow with it."""
    gathered, room = _Gathering(part), writer.room
    stream = pieces(request)
    coming = asyncio.ensure_future(anext(stream, None))
    try:
        while (piece := await coming) is not None:
            room -= len(piece)
            if room < 0:
                raise _beyond(writer)
            coming = asyncio.ensure_future(anext(stream, None))
            await gathered.add(piece, coming)
    except (ClientDisconnect, Problem, asyncio.CancelledError):
        try:
            await gathered.flush()
        finally:
            await finished_in_thread(part.give_up)
        raise
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    await gathered.flush()
    await finished_in_thread(part.finish)


def _beyond(writer: Writer) -> Problem:
    message = f"the part goes beyond the end of the upload, which has room for {writer.room} bytes"
    return Problem(413, message, "too_large", "Upload-Length")


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["upload_id"], owner_of(request)


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(request: Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Problem(400, f"{header}: must be a whole number", "invalid_value", header)
    return int(text)


def _declared_length(request: Request) -> int | None:
    length = _number(request, "Upload-Length")
    deferred = request.headers.get("upload-defer-length")
    if (length is None) != (deferred == "1") or deferred not in (None, "1"):
        message = "Upload-Length: send it, or Upload-Defer-Length: 1"
        raise Problem(400, message, "invalid_value", "Upload-Length")
    return length


def _metadata(request: Request) -> str:
    """The metadata as they came.

    Raises:
        Problem: 400, they are not pairs of a key and base64 with commas between.
    """
    text = request.headers.get("upload-metadata", "")
    pairs = [_PAIR.fullmatch(pair.strip()) for pair in text.split(",")] if text else []
    keys = [pair[1] for pair in pairs if pair]
    if len(text) > MAX_METADATA or len(set(keys)) < len(pairs) or not _all_base64(pairs):
        message = f"Upload-Metadata: must be `key base64,...` of {MAX_METADATA} bytes at most"
        raise Problem(400, message, "invalid_value", "Upload-Metadata")
    return text


def _all_base64(pairs: list[re.Match[str] | None]) -> bool:
    try:
        for pair in pairs:
            base64.b64decode((pair and pair[2]) or "", validate=True)
    except ValueError:
        return False
    return True


def _checksum(request: Request) -> Checksum | None:
    header = request.headers.get("upload-checksum")
    return None if header is None else Checksum.parse(header)


def _expiry(upload: Upload) -> dict[str, str]:
    return {"upload-expires": formatdate(upload.expires, usegmt=True)}


def make_upload_router(uploads: Uploads) -> APIRouter:
    """The routes of tus."""
    router = APIRouter()
    routes = UploadRoutes(uploads)
    one = f"{PATH}/{{upload_id}}"
    for path, methods in ((PATH, _ALL), (one, [*_ONE, "POST"])):  # POST for those that override
        for method in methods:
            name = f"tus_{method.lower()}_{'one' if path == one else 'all'}"
            router.add_api_route(
                path,
                routes.answer,
                methods=[method],
                name=name,
                operation_id=name,
                summary="Resumable uploads, tus 1.0",
                response_class=Response,
            )
    return router


async def sweep_for_ever(uploads: Uploads) -> None:
    """Remove expired uploads, soon after they expire."""
    while True:
        try:
            n_expired = await asyncio.to_thread(uploads.sweep)
        except OSError as error:
            logger.warning("expired uploads cannot be removed: %s", error)
        else:
            logger.log(logging.INFO if n_expired else logging.DEBUG, "%d expired", n_expired)
        await asyncio.sleep(min(uploads.ttl / 4, 600))
