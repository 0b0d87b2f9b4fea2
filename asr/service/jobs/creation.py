"""Turns a request into a job: checks it, receives the recording, stores the row."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from asr.errors import AsrError, InvalidOption
from asr.service.errors import Refused
from asr.service.files import temporary_folder
from asr.service.http.body import drain, receive_body
from asr.service.http.middleware import owner_of
from asr.service.jobs.addresses import check_callback_url
from asr.service.jobs.labels import is_label, pack_metadata, read_metadata
from asr.service.jobs.request import JobRequest, digest_of_sent
from asr.service.jobs.rows import NewJob
from asr.service.jobs.store import reserved, too_many_jobs
from asr.service.names import folded
from asr.service.threads import FairThreads
from asr.service.transcriptions.form import JobForm, parse_fields
from asr.service.uploads.headers import name_in
from asr.speakers.folder import obstacle

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

    from asr.service.jobs.recordings import Recordings
    from asr.service.jobs.rows import Job
    from asr.service.jobs.store import JobStore
    from asr.service.speakers.known import KnownSpeakers
    from asr.service.transcriptions.form import TranscriptionRequest
    from asr.service.uploads.store import Uploads
    from asr.settings import Settings

MAX_KEY_LENGTH: Final = 255
_JOB_FIELDS: Final = ("upload_id", "callback_url")
"""Fields of a job that a transcription does not have."""
_NO_EFFECT: Final = ("response_format", "stream", "timestamp_granularities")
"""Fields of a transcription that do not change a job: clients choose the format at download."""


@dataclass(frozen=True, slots=True)
class _Received:
    """The fields of a request, the file with the recording, and the client's name of that file."""

    fields: list[tuple[str, str]]
    file: Path
    name: str | None


class JobCreation:
    """Creates jobs.

    Args:
        store: of jobs.
        recordings: where the recording is stored.
        settings: of the service.
        incoming: a folder for request bodies while they arrive. It must be on the file system of
            the recordings.
        uploads: those to which ``upload_id`` may refer.
        known: finds the voices that a request names.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        recordings: Recordings,
        settings: Settings,
        incoming: Path,
        uploads: Uploads,
        known: KnownSpeakers | None = None,
    ) -> None:
        self._store = store
        self._known = known
        self._recordings = recordings
        self._settings = settings
        self._incoming = incoming
        self._uploads = uploads
        self._threads = FairThreads("recordings", 8, 2)  # the digest reads a whole recording

    async def create(self, request: Request) -> tuple[Job, bool]:
        """Receive a recording and make it a job. Returns the job, and whether it is new.

        Raises:
            AsrError: the request is malformed or refused.
            Problem: the body is malformed.
        """
        try:
            key = await self._check(request)
        except AsrError:
            await drain(request)
            raise
        async with temporary_folder(self._incoming) as folder:
            received = await self._receive(request, folder)
            return await self._store_job(owner_of(request), received, key)

    async def _check(self, request: Request) -> str | None:
        """Before the body is read, check the idempotency key, and whether the queue is full.

        Returns:
            The idempotency key, or None if the client sent none.
        """
        key = request.headers.get("idempotency-key")
        if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
            message = f"must have 1 to {MAX_KEY_LENGTH} characters"
            raise InvalidOption("Idempotency-Key", message)
        most = self._settings.max_waiting_jobs
        if await self._store.n_waiting() >= most:
            ours = await self._store.n_waiting(owner_of(request))
            if ours >= reserved(most):
                raise too_many_jobs()
        return key

    async def _receive(self, request: Request, folder: Path) -> _Received:
        target = folder / "body"
        body = await receive_body(request, target, self._settings.max_upload_bytes)
        upload_id = dict(body.fields).get("upload_id", "")
        if body.has_file:
            if upload_id:
                raise InvalidOption("upload_id", "send it or a file, not both")
            return _Received(body.fields, target, body.file_name)
        if not upload_id:
            message = "send the recording, or the upload_id of a finished upload"
            raise InvalidOption("file", message)
        target = folder / "upload"
        owner = owner_of(request)
        upload = await asyncio.to_thread(self._uploads.status, upload_id, owner)
        await asyncio.to_thread(self._uploads.link, upload_id, owner, target)
        return _Received(body.fields, target, name_in(upload.metadata))

    async def _store_job(
        self, owner: str, received: _Received, key: str | None
    ) -> tuple[Job, bool]:
        pairs, labels = received.fields, read_metadata(received.fields)
        callback_url = dict(pairs).get("callback_url", "")
        fields = [
            (name, value) for name, value in pairs if not (name in _JOB_FIELDS or is_label(name))
        ]
        sent = [pair for pair in fields if pair[0].partition("[")[0] not in _NO_EFFECT]
        settings = self._settings
        reason = obstacle(settings.speaker_model)
        checked = parse_fields(fields, settings.vad, settings.limits, JobForm, reason)
        asked = JobRequest.of(await self._with_voices(checked, owner, received.file.parent))
        if callback_url:
            check_callback_url(callback_url, self._settings)
        new = await self._adopt(owner, received, asked, labels)
        sent += [(f"metadata[{name}]", value) for name, value in sorted(labels.items())]
        callback = (uuid.uuid4().hex, callback_url) if callback_url else None
        max_waiting = self._settings.max_waiting_jobs
        # If the database does not answer, it may still have created the job. So keep the
        # recording. `Jobs._sweep` removes it later if there is no job.
        try:
            job, is_new = await self._store.create(
                new,
                key,
                callback,
                max_waiting,
                digest_of_sent(new.sha256, sent),
                max_kept=settings.upload_quota_bytes,
            )
        except Refused:
            await self._threads.run(owner, self._recordings.remove, new.id)
            raise
        if not is_new:
            await self._threads.run(owner, self._recordings.remove, new.id)
        return job, is_new

    async def _with_voices(
        self, checked: TranscriptionRequest, owner: str, folder: Path
    ) -> TranscriptionRequest:
        """The request with the voices of the speakers that it names."""
        if self._known is None:
            return checked
        options = await self._known.resolve(
            checked.options, checked.known_names, checked.references, owner, folder
        )
        return replace(checked, options=options)

    async def _adopt(
        self, owner: str, received: _Received, asked: JobRequest, labels: dict[str, str]
    ) -> NewJob:
        """Store the recording under the id of a new job."""
        job, name = uuid.uuid4().hex, received.name
        adopt = self._recordings.adopt
        digest, n_bytes = await self._threads.run(owner, adopt, received.file, job)
        engine = f"{self._settings.engine_name} {self._settings.vllm_url}"
        fingerprint = asked.fingerprint(owner, digest, engine, name, labels)
        return NewJob(
            job,
            owner,
            asked.pack(),
            fingerprint,
            digest,
            n_bytes,
            name=name,
            folded_name=None if name is None else folded(name),
            metadata=pack_metadata(labels),
            kept_bytes=n_bytes if asked.keep_recording else None,
        )
