"""Resumable uploads on disk. Knows nothing of HTTP but the errors it raises.

    <folder>/<digest of the owner>/<id>.bin     what has arrived: its size is the offset
                                   <id>.json    length and metadata; outlives an expired upload
                                   <id>.part    bytes with a checksum, until they are proven
    <folder>/held/                              links to finished uploads that are being read

The offset is stored nowhere else, so a process that is killed cannot leave it wrong. Whoever writes
holds a lock on the .bin file, which the kernel releases with the process. A part with a checksum
goes to a file of its own and is appended once it is proven: no unproven byte ever counts.

Everything here blocks on the disk, so routes call it in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from asr.audio.growing import GrowingFile
from asr.service.http.problems import Problem
from asr.service.uploads.files import (
    Files,
    Info,
    expired,
    infos,
    lock,
    lock_folder,
    sync_folder,
    unknown,
)
from asr.service.uploads.parts import Part, ProvenPart

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import BinaryIO

    from asr.service.uploads.parts import Checksum

ID: Final = re.compile(r"[0-9a-f]{32}")
HELD: Final = "held"
MAX_UPLOADS: Final = 10_000
"""Of one owner; more would make counting them slow, and empty ones cost no quota."""


@dataclass(frozen=True, slots=True)
class Upload:
    """How an upload stands.

    Attributes:
        offset: bytes that arrived and count.
        length: bytes in all, or None while the client has not said.
        metadata: as the client sent it; names in it are never used as paths.
        expires: seconds since 1970.
    """

    id: str
    offset: int
    length: int | None
    metadata: str
    expires: float

    @property
    def is_finished(self) -> bool:
        """Whether all bytes are there."""
        return self.offset == self.length


class Uploads:
    """All uploads under `folder`.

    Args:
        folder: made when it is needed; shared by all processes of the service.
        max_bytes: of one upload.
        quota_bytes: of all uploads of one owner. An upload counts with its whole length from its
            beginning, and with `max_bytes` while the length is unknown.
        ttl: seconds after the last byte.
    """

    def __init__(self, folder: Path, max_bytes: int, quota_bytes: int, ttl: float) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._quota = quota_bytes
        self.ttl = ttl

    def create(self, owner: str, length: int | None, metadata: str = "") -> Upload:
        """Begin an upload.

        Raises:
            Problem: 413 larger than allowed or beyond the quota, 429 too many uploads.
        """
        if length is not None and length > self.max_bytes:
            raise self.too_large()
        home = self._home(owner)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = Files(home, secrets.token_hex(16))
        with lock_folder(home):
            self._check_quota(home, self.max_bytes if length is None else length)
            files.data.touch(mode=0o600)
            files.write_info(Info(length, metadata))
        sync_folder(home)
        return self.status(files.id, owner)

    def status(self, upload_id: str, owner: str) -> Upload:
        """How an upload stands.

        Raises:
            Problem: 404 no such upload of this owner, 410 expired.
        """
        files = self._files(upload_id, owner)
        info = files.read_info()
        try:
            stat = files.data.stat()
        except FileNotFoundError:
            raise expired() from None
        expires = stat.st_mtime + self.ttl
        if expires < _now():
            raise expired()
        return Upload(upload_id, stat.st_size, info.length, info.metadata, expires)

    @contextlib.contextmanager
    def writing(self, upload_id: str, owner: str) -> Generator[Writer]:
        """Lock an upload to write to it.

        Raises:
            Problem: as `status`; 423, somebody else writes.
        """
        upload, files = self.status(upload_id, owner), self._files(upload_id, owner)
        with lock(files.data) as data:
            yield Writer(self, files, data, upload)

    def remove(self, upload_id: str, owner: str) -> None:
        """Forget an upload. Who took it keeps it; who follows it is told.

        Raises:
            Problem: as `status`; 423, somebody writes.
        """
        self.status(upload_id, owner)
        files = self._files(upload_id, owner)
        with lock(files.data):
            files.remove()

    def open_finished(self, upload_id: str, owner: str) -> Path:
        """The file of a finished upload, which lies there until the upload ends; see `take`.

        Raises:
            Problem: as `status`; 409, bytes are missing.
        """
        upload = self.status(upload_id, owner)
        if not upload.is_finished:
            size = "an unknown number" if upload.length is None else upload.length
            message = f"upload_id: {upload.offset} of {size} bytes have arrived"
            raise Problem(409, message, "upload_unfinished", "upload_id")
        return self._files(upload_id, owner).data

    def take(self, upload_id: str, owner: str, target: Path) -> None:
        """Make `target` a name of a finished upload of its own: what ends the upload leaves it.

        Args:
            upload_id: of the upload.
            owner: its owner.
            target: on the same file system; it must not exist, and is never to be written to.

        Raises:
            Problem: as `open_finished`.
        """
        source = self.open_finished(upload_id, owner)
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise unknown() from None

    def growing(self, upload_id: str, owner: str) -> GrowingFile:
        """An upload to be read while it arrives; whoever reads it is told when it ends early.

        Raises:
            Problem: as `status`.
        """
        self.status(upload_id, owner)
        files = self._files(upload_id, owner)
        return GrowingFile(files.data, files.info)

    @contextlib.contextmanager
    def held(self, upload_id: str, owner: str) -> Generator[Path]:
        """A finished upload, readable throughout the block whatever becomes of it.

        Raises:
            Problem: as `open_finished`.
        """
        folder = self._folder / HELD
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = folder / secrets.token_hex(16)
        self.take(upload_id, owner, target)
        try:
            yield target
        finally:
            target.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what has expired and what killed processes left; returns how many uploads."""
        n_expired = 0
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError, Problem):
                n_expired += self._sweep(path)
        return n_expired

    async def counts(self) -> dict[str, float]:
        """Uploads of all owners by their state: arriving, finished."""
        return await asyncio.to_thread(self._counts)

    def _counts(self) -> dict[str, float]:
        found = {"arriving": 0.0, "finished": 0.0}
        for path in self._folder.glob("*/*.json"):
            files = Files(path.parent, path.stem)
            with contextlib.suppress(FileNotFoundError, Problem):
                n_bytes = files.data.stat().st_size
                is_finished = files.read_info().length == n_bytes
                found["finished" if is_finished else "arriving"] += 1
        return found

    def _sweep(self, path: Path) -> bool:
        files = Files(path.parent, path.stem)
        if path == files.info and files.data.exists():
            return self._expire(files)
        if path == files.data and files.info.exists():
            return False
        # What is left is no upload: the trace of one, a part, a link, what was never begun.
        stat = path.stat()
        # A new link leaves the time of the content as it was, but not that of the inode.
        since = stat.st_ctime if path.parent.name == HELD else stat.st_mtime
        if since + self.ttl < _now():
            path.unlink()
        return False

    def _expire(self, files: Files) -> bool:
        if files.data.stat().st_mtime + self.ttl > _now():
            return False
        with lock(files.data) as data:
            if os.fstat(data.fileno()).st_mtime + self.ttl > _now():
                return False
            files.remove(keep_info=True)
        os.utime(files.info)  # says 410 for as long again
        return True

    def too_large(self) -> Problem:
        """The answer to an upload that exceeds the limit."""
        message = f"an upload may have {self.max_bytes} bytes (ASR_MAX_UPLOAD_BYTES)"
        return Problem(413, message, "too_large", "Upload-Length")

    def _home(self, owner: str) -> Path:
        # A folder for each owner: what belongs to another is not even looked at.
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _files(self, upload_id: str, owner: str) -> Files:
        if not ID.fullmatch(upload_id):
            raise unknown()
        return Files(self._home(owner), upload_id)

    def _check_quota(self, home: Path, wanted: int) -> None:
        used, count = wanted, 0
        for info in infos(home):
            count += 1
            used += self.max_bytes if info.length is None else info.length
        if count >= MAX_UPLOADS:
            message = f"{MAX_UPLOADS} uploads are there already; delete some"
            raise Problem(429, message, "too_many_uploads", None, 60)
        if used > self._quota:
            message = f"this key may have {self._quota} bytes of uploads; delete some"
            raise Problem(413, message, "upload_quota_exceeded", "Upload-Length")


class Writer:
    """The one that may write to an upload. Made by `Uploads.writing`."""

    def __init__(self, uploads: Uploads, files: Files, data: BinaryIO, upload: Upload) -> None:
        self._uploads = uploads
        self._files = files
        self._data = data
        self._length = upload.length

    @property
    def offset(self) -> int:
        """Bytes that count."""
        return os.fstat(self._data.fileno()).st_size

    @property
    def room(self) -> int:
        """Bytes that may follow."""
        return (self._uploads.max_bytes if self._length is None else self._length) - self.offset

    def declare(self, length: int) -> None:
        """Set the length, once.

        Raises:
            Problem: 400 it was another or fewer bytes than there are, 413 larger than allowed.
        """
        if self._length not in (None, length) or length < self.offset:
            message = "Upload-Length: was declared before, or is less than what has arrived"
            raise Problem(400, message, "invalid_value", "Upload-Length")
        if length > self._uploads.max_bytes:
            raise self._uploads.too_large()
        if self._length is None:
            self._files.write_info(Info(length, self._files.read_info().metadata))
            self._length = length

    @contextlib.contextmanager
    def part(self, checksum: Checksum | None) -> Generator[Part]:
        """A part to be written at the end of the upload."""
        self._data.seek(0, os.SEEK_END)
        if checksum is None:
            yield Part(self._data)
            return
        try:
            with self._files.side.open("w+b", buffering=0) as side:
                yield ProvenPart(self._data, side, checksum)
        finally:
            self._files.side.unlink(missing_ok=True)


def _now() -> float:
    return datetime.now(UTC).timestamp()
