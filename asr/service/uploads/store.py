"""Resumable uploads on disk.

    <folder>/<digest of the owner>/<id>.bin     the bytes that arrived; their number is the offset
                                   <id>.json    length and metadata; kept for a while after expiry
                                   <id>.part    bytes with a checksum that was not compared yet
    <folder>/<digest of the owner>.usage        its number of uploads and bytes, for the quota
    <folder>/held/                              hard links to finished uploads that are being read

The offset is stored nowhere else, so a killed process cannot leave a wrong one. A writer holds a
lock on the .bin file, and the kernel releases the lock when the process ends. A part with a
checksum is written to its own file first. It is appended to the .bin file only if the checksum
matches.

All methods except `counts` block on the disk. Call them in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from asr.audio.growing import GrowingFile
from asr.durable import sync_folder
from asr.service.clock import CautiousClock
from asr.service.errors import Conflict, LimitReached, Refused, TooLarge
from asr.service.files import fresh_stat
from asr.service.uploads.files import (
    UploadFiles,
    UploadInfo,
    expired,
    locked,
    not_found,
)
from asr.service.uploads.sweep import Sweep, discard, iterate
from asr.service.uploads.usage import Ledger, Usage
from asr.service.uploads.writer import Writer, too_large

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

ID: Final = re.compile(r"[0-9a-f]{32}")
HELD: Final = "held"
MAX_UPLOADS: Final = 10_000
"""Uploads of one owner. Uploads of length 0 use no quota, so their number needs its own limit."""
RECOUNT_SECONDS: Final = 60.0
"""Before a new upload is refused, the owner's uploads are counted, but not more often than this."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The state of an upload.

    Attributes:
        offset: bytes in the upload so far.
        length: bytes in total, or None until the client declares it.
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
        """Whether all bytes arrived."""
        return self.offset == self.length


class Uploads:
    """All uploads under `folder`.

    Args:
        folder: made when it is needed; shared by all processes of the service.
        max_bytes: of one upload.
        quota_bytes: of all uploads of one owner. From its creation, an upload counts with its full
            length. While its length is unknown, it counts as `max_bytes`.
        ttl: an upload expires this many seconds after its last byte arrived.
    """

    def __init__(self, folder: Path, max_bytes: int, quota_bytes: int, ttl: float) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._quota = quota_bytes
        self.ttl = ttl
        self._clock = CautiousClock(folder / "clock")
        self._recounted: dict[Path, float] = {}  # when the uploads of each owner were counted

    def create(self, owner: str, length: int | None, metadata: str = "") -> Upload:
        """Create an empty upload.

        Raises:
            TooLarge: it is larger than allowed, or exceeds the owner's quota.
            LimitReached: the owner has too many uploads.
        """
        if length is not None and length > self.max_bytes:
            raise too_large(self.max_bytes)
        home = self._home(owner)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        files, info = UploadFiles(home, secrets.token_hex(16)), UploadInfo(length, metadata)
        ledger = Ledger(home, self.max_bytes)
        try:
            ledger.update(partial(self._create, ledger, files, info))
        except Refused:
            if not self._may_recount(home):
                raise
            ledger.recount()  # a killed process may have left wrong numbers
            ledger.update(partial(self._create, ledger, files, info))
        sync_folder(home)
        return self.status(files.id, owner)

    def _create(self, ledger: Ledger, files: UploadFiles, info: UploadInfo, used: Usage) -> Usage:
        """Check the limits of the owner and create an upload; returns its usage."""
        cost = ledger.cost(info, 0)
        self._check_quota(used + cost)
        files.data.touch(mode=0o600)
        files.write_info(info)
        return cost

    def _may_recount(self, home: Path) -> bool:
        now = time.monotonic()
        is_due = now - self._recounted.get(home, -RECOUNT_SECONDS) >= RECOUNT_SECONDS
        if is_due:
            self._recounted[home] = now
        return is_due

    def status(self, upload_id: str, owner: str) -> Upload:
        """The state of an upload.

        Raises:
            NotFound: this owner has no such upload.
            Expired: it has expired.
        """
        files = self._files(upload_id, owner)
        info = files.read_info()
        try:
            stat = fresh_stat(files.data)  # another server may have written the last part
        except FileNotFoundError:
            raise expired() from None
        expires = stat.st_mtime + self.ttl
        if expires < self._clock.now():
            raise expired()
        return Upload(upload_id, stat.st_size, info.length, info.metadata, expires)

    @contextlib.contextmanager
    def writing(self, upload_id: str, owner: str) -> Generator[Writer]:
        """Lock an upload and write to it.

        Raises:
            NotFound, Expired: as `status`.
            Locked: another request writes to it.
        """
        upload, files = self.status(upload_id, owner), self._files(upload_id, owner)
        ledger = Ledger(files.home, self.max_bytes)
        with locked(files.data) as data:
            writer = Writer(files, data, upload.length, self.max_bytes, ledger)
            try:
                yield writer
            finally:
                writer.settle()

    def remove(self, upload_id: str, owner: str) -> None:
        """Remove an upload.

        Links that `link` and `held` made stay. A reader that uses the file from `growing` gets an
        error.

        Raises:
            NotFound, Expired: as `status`.
            Locked: a request writes to it.
        """
        self.status(upload_id, owner)
        files = self._files(upload_id, owner)
        with locked(files.data):
            discard(files, Ledger(files.home, self.max_bytes))

    def open_finished(self, upload_id: str, owner: str) -> Path:
        """The file of a finished upload. It exists until the upload is removed or expires.

        Raises:
            NotFound, Expired: as `status`.
            Conflict: bytes are missing.
        """
        upload = self.status(upload_id, owner)
        if not upload.is_finished:
            size = "an unknown number" if upload.length is None else upload.length
            message = f"upload_id: {upload.offset} of {size} bytes have arrived"
            raise Conflict(message, "upload_unfinished", "upload_id")
        return self._files(upload_id, owner).data

    def link(self, upload_id: str, owner: str, target: Path) -> None:
        """Make `target` a hard link to a finished upload. The link outlives the upload.

        Args:
            upload_id: of the upload.
            owner: its owner.
            target: a new name on the same file system. Never write to it: the bytes are shared.

        Raises:
            NotFound, Expired, Conflict: as `open_finished`.
        """
        source = self.open_finished(upload_id, owner)
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise not_found() from None

    def growing(self, upload_id: str, owner: str) -> GrowingFile:
        """An upload to read while it arrives.

        If the upload is removed or expires, the reader gets an error.

        Raises:
            NotFound, Expired: as `status`.
        """
        self.status(upload_id, owner)
        files = self._files(upload_id, owner)
        return GrowingFile(files.data, files.info)

    @contextlib.contextmanager
    def held(self, upload_id: str, owner: str) -> Generator[Path]:
        """A finished upload that stays readable in the block, even if it is removed meanwhile.

        Raises:
            NotFound, Expired, Conflict: as `open_finished`.
        """
        folder = self._folder / HELD
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = folder / secrets.token_hex(16)
        self.link(upload_id, owner, target)
        try:
            yield target
        finally:
            target.unlink(missing_ok=True)

    def recount(self) -> None:
        """Count the uploads of every owner. A server does this once, at its start."""
        for home in self._homes():
            with contextlib.suppress(OSError):  # the others are still counted
                Ledger(home, self.max_bytes).recount()

    def sweep(self) -> int:
        """Remove expired uploads and files of killed processes; return how many uploads expired."""
        return sum(self.sweep_steps())

    def sweep_steps(self) -> Iterator[int]:
        """Sweep one file in each step; yield how many uploads expired in this step."""
        sweep = Sweep(self.ttl, self._clock.now())
        for home in self._homes():
            yield from sweep.home(home, Ledger(home, self.max_bytes))
        for path in iterate(self._folder / HELD):
            yield sweep.held(path)

    async def counts(self) -> dict[str, float]:
        """The number of uploads of all owners by state: arriving, finished."""
        return await asyncio.to_thread(self._counts)

    def _counts(self) -> dict[str, float]:
        usages = (Ledger(home, self.max_bytes).usage() for home in self._homes())
        used = sum(usages, Usage())
        arriving, finished = used.n_uploads - used.n_finished, used.n_finished
        return {"arriving": float(arriving), "finished": float(finished)}

    def _homes(self) -> list[Path]:
        """The folder of each owner."""
        return [path for path in iterate(self._folder) if ID.fullmatch(path.name)]

    def _home(self, owner: str) -> Path:
        # One folder per owner: files of another owner are never looked at.
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _files(self, upload_id: str, owner: str) -> UploadFiles:
        if not ID.fullmatch(upload_id):
            raise not_found()
        return UploadFiles(self._home(owner), upload_id)

    def _check_quota(self, wanted: Usage) -> None:
        if wanted.n_uploads > MAX_UPLOADS:
            message = f"this key already has {MAX_UPLOADS} uploads; delete some"
            raise LimitReached(message, "too_many_uploads", retry_after=60)
        if wanted.n_bytes > self._quota:
            message = f"this key may have at most {self._quota} bytes of uploads; delete some"
            raise TooLarge(message, "upload_quota_exceeded", "Upload-Length")
