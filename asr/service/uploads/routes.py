"""The protocol tus 1.0 over HTTP (https://tus.io/protocols/resumable-upload).

The server supports the extensions creation, creation-with-upload, creation-defer-length, checksum,
expiration and termination. `asr.service.uploads.store` describes the files of an upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asr.errors import AsrError
from asr.service.errors import Conflict, TooLarge
from asr.service.files import finished_in_thread
from asr.service.http.body import WRITE_BYTES, drain, pieces
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem, problem_of
from asr.service.uploads import headers
from asr.service.uploads.parts import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asr.service.uploads.parts import Checksum, Part
    from asr.service.uploads.store import Upload, Uploads
    from asr.service.uploads.writer import Writer

    Method = Callable[["UploadRoutes", Request], Awaitable[Response]]

logger = logging.getLogger(__name__)

PATH: Final = "/v1/uploads"
VERSION: Final = "1.0.0"
EXTENSIONS: Final = (
    "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
)
PART_TYPE: Final = "application/offset+octet-stream"
GATHER_SECONDS: Final = 0.1
"""How long received bytes may stay in memory, so that several pieces are written at once. Until
they are written, Upload-Offset does not include them, and a transcription of the growing upload
cannot read them."""

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
"""The headers that a web page of another origin may read."""


class UploadRoutes:
    """The methods of tus."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def answer(self, request: Request) -> Response:
        """Dispatch on the method, or on X-HTTP-Method-Override.

        Raises:
            Problem: any error, with the header Tus-Resumable that every answer must have.
        """
        try:
            response = await _method(request)(self, request)
        except (Problem, AsrError) as error:
            problem = problem_of(error)
            with contextlib.suppress(ClientDisconnect):
                await drain(request)
            tus_headers = {"tus-resumable": VERSION, **problem.headers}
            raise replace(problem, headers=tus_headers) from error
        response.headers["tus-resumable"] = VERSION
        return response

    async def options(self, request: Request) -> Response:  # noqa: ARG002
        """OPTIONS: what this server supports."""
        supported = {
            "tus-version": VERSION,
            "tus-extension": EXTENSIONS,
            "tus-max-size": str(self._uploads.max_bytes),
            "tus-checksum-algorithm": ",".join(ALGORITHMS),
        }
        return Response(status_code=204, headers=supported)

    async def create(self, request: Request) -> Response:
        """POST: create an upload, optionally with its first part."""
        length = headers.declared_length(request)
        metadata = headers.metadata(request)
        carries_part = headers.content_type(request) == PART_TYPE
        checksum = headers.checksum(request) if carries_part else None
        owner = owner_of(request)
        upload = await asyncio.to_thread(self._uploads.create, owner, length, metadata)
        if carries_part:
            try:
                upload = await self._append(request, upload, checksum)
            except (Problem, AsrError, OSError, ClientDisconnect, asyncio.CancelledError):
                # The client never learns the address of this upload.
                await finished_in_thread(self._uploads.remove, upload.id, owner)
                raise
        path = request.scope.get("root_path", "") + f"{PATH}/{upload.id}"
        answer = {"location": path, **_expiry(upload)}
        if carries_part:
            answer["upload-offset"] = str(upload.offset)
        return Response(status_code=201, headers=answer)

    async def status(self, request: Request) -> Response:
        """HEAD: the offset at which the client resumes."""
        upload = await asyncio.to_thread(self._uploads.status, *_id_and_owner(request))
        answer = {"cache-control": "no-store", "upload-offset": str(upload.offset)}
        if upload.length is None:
            answer["upload-defer-length"] = "1"
        else:
            answer["upload-length"] = str(upload.length)
        if upload.metadata:
            answer["upload-metadata"] = upload.metadata
        return Response(status_code=200, headers=answer | _expiry(upload))

    async def append(self, request: Request) -> Response:
        """PATCH: append a part at the offset that the client names."""
        if headers.content_type(request) != PART_TYPE:
            raise Problem(415, f"send the part as {PART_TYPE}", "unsupported_body", "Content-Type")
        offset = headers.required_number(request, "Upload-Offset")
        checksum = headers.checksum(request)
        upload = await asyncio.to_thread(self._uploads.status, *_id_and_owner(request))
        if upload.offset != offset:
            message = f"Upload-Offset: the upload stands at {upload.offset}, not {offset}"
            raise Conflict(message, "offset_mismatch", "Upload-Offset")
        upload = await self._append(request, upload, checksum)
        answer = {"upload-offset": str(upload.offset)}
        return Response(status_code=204, headers=answer | _expiry(upload))

    async def terminate(self, request: Request) -> Response:
        """DELETE: remove the upload."""
        await asyncio.to_thread(self._uploads.remove, *_id_and_owner(request))
        return Response(status_code=204)

    async def _append(self, request: Request, upload: Upload, checksum: Checksum | None) -> Upload:
        """Append the body of a request to `upload`. Fail if its offset has changed meanwhile."""
        owner = owner_of(request)
        async with contextlib.AsyncExitStack() as stack:
            lock = self._uploads.writing(upload.id, owner)
            writer = stack.enter_context(lock)
            if writer.offset != upload.offset:
                message = f"Upload-Offset: the upload stands at {writer.offset} now"
                raise Conflict(message, "offset_mismatch", "Upload-Offset")
            if (length := headers.number(request, "Upload-Length")) is not None:
                await finished_in_thread(writer.declare, length)
            if (headers.number(request, "Content-Length") or 0) > writer.room:
                raise _too_large(writer)
            await _receive(request, writer, stack.enter_context(writer.part(checksum)))
        return await asyncio.to_thread(self._uploads.status, upload.id, owner)


_COLLECTION: Final[dict[str, Method]] = {
    "OPTIONS": UploadRoutes.options,
    "POST": UploadRoutes.create,
}
_UPLOAD: Final[dict[str, Method]] = {
    "OPTIONS": UploadRoutes.options,
    "HEAD": UploadRoutes.status,
    "PATCH": UploadRoutes.append,
    "DELETE": UploadRoutes.terminate,
}


def _method(request: Request) -> Method:
    """The function for a request.

    Raises:
        Problem: 405 for a method that this path lacks, 412 for another version of tus.
    """
    name = request.headers.get("x-http-method-override", request.method).upper()
    methods = _UPLOAD if "upload_id" in request.path_params else _COLLECTION
    if name not in methods:
        allowed = {"allow": ", ".join(methods)}
        raise Problem(405, "Method Not Allowed", "http_error", headers=allowed)
    if name != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
        message = f"Tus-Resumable: must be {VERSION}"
        version = {"tus-version": VERSION}
        raise Problem(412, message, "unsupported_version", "Tus-Resumable", headers=version)
    return methods[name]


class _Buffer:
    """Joins pieces that arrive quickly into one write; pieces of a slow client are written soon."""

    def __init__(self, part: Part) -> None:
        self._part = part
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
        await finished_in_thread(self._part.write, full)


async def _receive(request: Request, writer: Writer, part: Part) -> None:
    """Write the body of a request to a part. Memory use does not grow with the body."""
    buffer, room = _Buffer(part), writer.room
    stream = pieces(request)
    following = asyncio.ensure_future(anext(stream, None))
    try:
        while (piece := await following) is not None:
            room -= len(piece)
            if room < 0:
                raise _too_large(writer)
            following = asyncio.ensure_future(anext(stream, None))
            await buffer.add(piece, following)
    except (ClientDisconnect, Problem, AsrError, asyncio.CancelledError):
        try:
            await buffer.flush()
        finally:
            await finished_in_thread(part.give_up)
        raise
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await buffer.flush()
    await finished_in_thread(part.finish)


def _too_large(writer: Writer) -> TooLarge:
    message = f"the part goes beyond the end of the upload, which has room for {writer.room} bytes"
    return TooLarge(message, "too_large", "Upload-Length")


def _id_and_owner(request: Request) -> tuple[str, str]:
    return request.path_params["upload_id"], owner_of(request)


def _expiry(upload: Upload) -> dict[str, str]:
    return {"upload-expires": formatdate(upload.expires, usegmt=True)}


def make_upload_router(uploads: Uploads) -> APIRouter:
    """The routes of tus."""
    router = APIRouter()
    routes = UploadRoutes(uploads)
    one = f"{PATH}/{{upload_id}}"
    # Clients that send X-HTTP-Method-Override use POST on the address of an upload, too.
    for path, methods in ((PATH, _COLLECTION), (one, [*_UPLOAD, "POST"])):
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
            level = logging.INFO if n_expired else logging.DEBUG
            logger.log(level, "%d expired uploads removed", n_expired)
        await asyncio.sleep(min(uploads.ttl / 4, 600))
