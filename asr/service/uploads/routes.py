"""The protocol tus 1.0 over HTTP (https://tus.io/protocols/resumable-upload).

The server supports the extensions creation, creation-with-upload, creation-defer-length, checksum,
expiration and termination. `asr.service.uploads.store` describes the files of an upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asr.errors import AsrError
from asr.service.errors import Conflict
from asr.service.http.body import drain
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem, problem_of
from asr.service.http.proxy import public_path
from asr.service.threads import FairThreads
from asr.service.uploads import headers
from asr.service.uploads.description import described
from asr.service.uploads.parts import ALGORITHMS
from asr.service.uploads.receive import part_too_large, write_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import ExitStack

    from asr.service.uploads.parts import Checksum, Part
    from asr.service.uploads.receive import Run
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
N_THREADS: Final = 16
N_THREADS_PER_OWNER: Final = 4
"""Threads for the disk. They are not the threads of other requests, and no owner can use all."""
SWEEP_FILES: Final = 200
SWEEP_PAUSE_SECONDS: Final = 0.05
"""The sweep pauses after this many files, so that it does not slow down requests."""

EXPOSED_HEADERS: Final = (
    "Content-Disposition",
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
        self._threads = FairThreads("uploads", N_THREADS, N_THREADS_PER_OWNER)

    def _run(self, request: Request) -> Run:
        return partial(self._threads.run, owner_of(request))

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
        upload = await self._run(request)(self._uploads.create, owner, length, metadata)
        if carries_part:
            try:
                upload = await self._append(request, upload, checksum)
            except (Problem, AsrError, OSError, ClientDisconnect, asyncio.CancelledError):
                # The client never learns the address of this upload.
                await self._run(request)(self._uploads.remove, upload.id, owner)
                raise
        answer = {"location": public_path(request, f"{PATH}/{upload.id}"), **_expiry(upload)}
        if carries_part:
            answer["upload-offset"] = str(upload.offset)
        return Response(status_code=201, headers=answer)

    async def status(self, request: Request) -> Response:
        """HEAD: the offset at which the client resumes."""
        upload = await self._run(request)(self._uploads.status, *_id_and_owner(request))
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
        upload = await self._run(request)(self._uploads.status, *_id_and_owner(request))
        if upload.offset != offset:
            message = f"Upload-Offset: the upload stands at {upload.offset}, not {offset}"
            raise Conflict(message, "offset_mismatch", "Upload-Offset")
        upload = await self._append(request, upload, checksum)
        answer = {"upload-offset": str(upload.offset)}
        return Response(status_code=204, headers=answer | _expiry(upload))

    async def terminate(self, request: Request) -> Response:
        """DELETE: remove the upload."""
        await self._run(request)(self._uploads.remove, *_id_and_owner(request))
        return Response(status_code=204)

    async def _append(self, request: Request, upload: Upload, checksum: Checksum | None) -> Upload:
        """Append the body of a request to `upload`. Fail if its offset has changed meanwhile."""
        run, owner = self._run(request), owner_of(request)
        with contextlib.ExitStack() as stack:
            try:
                await self._write(request, upload, checksum, stack)
            finally:
                await run(stack.close)
        found: Upload = await run(self._uploads.status, upload.id, owner)
        return found

    async def _write(
        self, request: Request, upload: Upload, checksum: Checksum | None, stack: ExitStack
    ) -> None:
        """Open the upload on `stack`, and write the body to it."""
        run = self._run(request)
        lock = self._uploads.writing(upload.id, owner_of(request))
        writer: Writer = await run(stack.enter_context, lock)
        if writer.offset != upload.offset:
            message = f"Upload-Offset: the upload stands at {writer.offset} now"
            raise Conflict(message, "offset_mismatch", "Upload-Offset")
        if (length := headers.number(request, "Upload-Length")) is not None:
            await run(writer.declare, length)
        if (headers.number(request, "Content-Length") or 0) > writer.room:
            raise part_too_large(writer)
        part: Part = await run(stack.enter_context, writer.part(checksum))
        await write_body(request, writer, part, run)


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
            operation = f"{method.lower()}_{'one' if path == one else 'all'}"
            name = f"tus_{operation}"
            router.add_api_route(
                path,
                routes.answer,
                methods=[method],
                name=name,
                operation_id=name,
                summary="Resumable uploads, tus 1.0",
                response_class=Response,
                **described(operation),
            )
    return router


async def sweep_for_ever(uploads: Uploads) -> None:
    """Count the uploads once, and then remove expired ones soon after they expire."""
    with contextlib.suppress(OSError):
        await asyncio.to_thread(uploads.recount)
    while True:
        try:
            n_expired = await _sweep_slowly(uploads)
        except OSError as error:
            logger.warning("expired uploads cannot be removed: %s", error)
        else:
            level = logging.INFO if n_expired else logging.DEBUG
            logger.log(level, "%d expired uploads removed", n_expired)
        await asyncio.sleep(min(uploads.ttl / 4, 600))


async def _sweep_slowly(uploads: Uploads) -> int:
    steps, n_expired = uploads.sweep_steps(), 0
    while some := await asyncio.to_thread(list, islice(steps, SWEEP_FILES)):
        n_expired += sum(some)
        await asyncio.sleep(SWEEP_PAUSE_SECONDS)
    return n_expired
