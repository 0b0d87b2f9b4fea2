"""The files of one upload, and the lock on it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from asr.service.errors import Expired, Locked, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """What the client said about an upload.

    Attributes:
        length: bytes in total, or None until the client declares it.
        metadata: the header Upload-Metadata as it was sent.
    """

    length: int | None
    metadata: str


@dataclass(frozen=True, slots=True)
class UploadFiles:
    """The files of the upload `id` in the folder `home` of its owner."""

    home: Path
    id: str

    @property
    def data(self) -> Path:
        """The bytes that arrived. Its size is the offset of the upload."""
        return self.home / f"{self.id}.bin"

    @property
    def info(self) -> Path:
        """The `UploadInfo` as JSON."""
        return self.home / f"{self.id}.json"

    @property
    def unverified(self) -> Path:
        """Bytes of a part whose checksum was not compared yet."""
        return self.home / f"{self.id}.part"

    def read_info(self) -> UploadInfo:
        """Read the info.

        Raises:
            NotFound: there is no such upload, or its info is damaged.
        """
        try:
            return UploadInfo(**json.loads(self.info.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            raise not_found() from None

    def write_info(self, info: UploadInfo) -> None:
        """Replace the info atomically: a reader sees the old or the new one."""
        draft = self.home / f"{self.id}.draft"
        with draft.open("w", encoding="ascii") as file:
            json.dump(asdict(info), file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.info)

    def remove(self, *, keep_info: bool = False) -> None:
        """Remove the upload. With `keep_info`, later requests get Expired; otherwise NotFound."""
        if not keep_info:
            self.info.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
        self.unverified.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Generator[BinaryIO]:
    """Open a file for writing and hold the only lock on it.

    Raises:
        Locked: another request holds the lock.
        NotFound: the file does not exist, or was removed meanwhile.
    """
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise not_found() from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "another request writes to this upload"
            raise Locked(message, "upload_locked", retry_after=1) from None
        if not path.exists():  # ids are never reused, so an existing file is the one we opened
            raise not_found()
        yield file


def not_found() -> NotFound:
    """The error for an upload that does not exist or belongs to another owner."""
    return NotFound("there is no such upload", "upload_not_found", "upload_id")


def expired() -> Expired:
    """The error for an upload that has expired."""
    return Expired("the upload has expired", "upload_expired", "upload_id")
