"""Finds the recording of a request: its body or an upload, complete or still arriving."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from starlette.requests import ClientDisconnect

from asr.audio.growing import GrowingFile
from asr.errors import InvalidOption
from asr.service.errors import Refused
from asr.service.http.body import drain, is_raw, receive_body, receive_growing
from asr.service.http.disconnect import client_left
from asr.service.http.fields import MAX_FIELD_BYTES
from asr.service.http.middleware import owner_of
from asr.service.http.problems import Problem
from asr.service.transcriptions.form import AlignmentForm, TranscriptionForm, parse_fields
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AsyncExitStack
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.http.body import Body
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

DRAIN_SECONDS = 1.0
MAX_TEXT_BYTES = 8_000_000


class Incoming:
    """Receives the body of a request while its beginning is transcribed.

    Nothing else may receive from the client, so this also notices when the client leaves.

    Attributes:
        error: why the body was refused, or None.
    """

    def __init__(self, request: Request, file: GrowingFile, max_bytes: int) -> None:
        self.error: Exception | None = None
        self._request = request
        self._file = file
        self._max_bytes = max_bytes
        self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        """Receive the body, then wait until the client leaves."""
        try:
            await receive_growing(self._request, self._file, self._max_bytes)
        except ClientDisconnect:
            return
        except (Problem, Refused, OSError) as error:
            self.error = error
            return
        finally:
            if self.error is not None or not self._is_complete():
                self._file.abandon()
        with contextlib.suppress(ClientDisconnect):
            await client_left(self._request)

    def _is_complete(self) -> bool:
        return self._file.info.exists() and self._file.length() is not None

    async def ended(self) -> NoReturn:
        """Wait until the client leaves or its body is refused.

        Raises:
            ClientDisconnect: the client left.
            Exception: the body was refused, with `error`.
        """
        await asyncio.shield(self._task)
        raise self.error or ClientDisconnect

    async def left(self) -> NoReturn:
        """Wait until the client leaves.

        If the body is refused, this waits for ever, because nothing reads from the client any more.

        Raises:
            ClientDisconnect: the client left.
        """
        await asyncio.shield(self._task)
        if self.error is None:
            raise ClientDisconnect
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")

    async def close(self) -> None:
        """Stop receiving, but read a little more so that the client sees the answer."""
        self._task.cancel()
        await asyncio.wait([self._task])
        with contextlib.suppress(ClientDisconnect, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await drain(self._request)


@dataclass(frozen=True, slots=True)
class Source:
    """A checked request and its recording.

    Attributes:
        checked: its fields.
        file: the recording.
        incoming: receives the rest of the body, if the recording is a body that still arrives.
        text: a file with the text to align, if there is one.
    """

    checked: TranscriptionRequest
    file: Path | GrowingFile
    incoming: Incoming | None = None
    text: Path | None = None


class Sources:
    """Finds the recordings of requests.

    Args:
        settings: the settings of the service.
        uploads: the uploads that a request can name.
    """

    def __init__(self, settings: Settings, uploads: Uploads) -> None:
        self._settings = settings
        self._uploads = uploads

    async def open(
        self,
        request: Request,
        folder: Path,
        stack: AsyncExitStack,
        kind: type[TranscriptionForm],
    ) -> Source:
        """Receive and check a request.

        A bare recording with ``stream=true`` is returned at once and grows while it is received.

        Args:
            request: the request.
            folder: for the files of the request.
            stack: takes what must be freed after the answer.
            kind: the form that the fields must fit.

        Raises:
            Problem: the request is wrong; see `receive_body` and `parse_fields`.
            InvalidOption: an option has a wrong value.
            Refused: the upload is missing, in use, or no longer there.
            ClientDisconnect: the client left.
        """
        if is_raw(request) and kind is TranscriptionForm:
            try:
                checked = self._check(request.query_params.multi_items(), kind)
            except (Problem, Refused, InvalidOption):
                await drain(request)
                raise
            if checked.stream and checked.upload_id is None:
                return self._incoming(request, checked, folder, stack)
        target = folder / "upload"
        max_text = MAX_TEXT_BYTES if kind is AlignmentForm else MAX_FIELD_BYTES
        body = await receive_body(request, target, self._settings.max_upload_bytes, max_text)
        # In a thread, because a text of 2,000,000 characters takes a second to read.
        checked = await asyncio.to_thread(self._check, body.fields, kind)
        file = await self._find(checked, body, target, owner_of(request), stack)
        if checked.text is None:
            return Source(checked, file)
        text = folder / "text"
        # As bytes, because a text file would change the ends of lines.
        await asyncio.to_thread(text.write_bytes, checked.text.encode())
        return Source(checked, file, text=text)

    def _check(
        self, fields: Iterable[tuple[str, str]], kind: type[TranscriptionForm]
    ) -> TranscriptionRequest:
        settings = self._settings
        reason = obstacle(settings.speaker_model)
        return parse_fields(fields, settings.vad, settings.limits, kind, reason)

    async def _find(
        self,
        checked: TranscriptionRequest,
        body: Body,
        target: Path,
        owner: str,
        stack: AsyncExitStack,
    ) -> Path | GrowingFile:
        if checked.upload_id is None:
            if not body.has_file:
                message = "file: the recording is missing; send a file or an upload_id"
                raise Problem(400, message, "invalid_value", "file")
            return target
        if body.has_file:
            message = "upload_id: send either a file or an upload_id, not both"
            raise Problem(400, message, "invalid_value", "upload_id")
        return await self._upload(checked, owner, stack)

    def _incoming(
        self, request: Request, checked: TranscriptionRequest, folder: Path, stack: AsyncExitStack
    ) -> Source:
        file = GrowingFile(folder / "upload", folder / "upload.json")
        file.begin()
        incoming = Incoming(request, file, self._settings.max_upload_bytes)
        stack.push_async_callback(incoming.close)
        return Source(checked, file, incoming)

    async def _upload(
        self, checked: TranscriptionRequest, owner: str, stack: AsyncExitStack
    ) -> Path | GrowingFile:
        upload_id = checked.upload_id or ""
        upload = await asyncio.to_thread(self._uploads.status, upload_id, owner)
        if checked.stream and checked.text is None and not upload.is_finished:
            return self._uploads.growing(upload_id, owner)
        return stack.enter_context(self._uploads.held(upload_id, owner))
