"""The files of an upload, and the locks on them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of an upload from its beginning, or from when its length was told."""

    length: int | None
    metadata: str


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one upload."""

    home: Path
    id: str

    @property
    def data(self) -> Path:
        """The bytes that count."""
        return self.home / f"{self.id}.bin"

    @property
    def info(self) -> Path:
        """The `Info`, as JSON."""
        return self.home / f"{self.id}.json"

    @property
    def side(self) -> Path:
        """Bytes that are not proven yet."""
        return self.home / f"{self.id}.part"

    def read_info(self) -> Info:
        """The `Info`.

        Raises:
            Problem: 404, there is no such upload.
        """
        try:
            return Info(**json.loads(self.info.read_bytes()))
        except FileNotFoundError:
            raise unknown() from None

    def write_info(self, info: Info) -> None:
        """Replace it in one step: a reader sees the old or the new."""
        draft = self.home / f"{self.id}.draft"
        with draft.open("w", encoding="ascii") as file:
            json.dump(asdict(info), file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.info)

    def remove(self, *, keep_info: bool = False) -> None:
        """End the upload; with its `Info` kept it has expired, and is not unknown."""
        if not keep_info:
            self.info.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
        self.side.unlink(missing_ok=True)


def infos(home: Path) -> Iterator[Info]:
    """Those of uploads that hold bytes or will."""
    for path in home.glob("*.json"):
        files = Files(home, path.stem)
        with contextlib.suppress(Problem):
            if files.data.exists():
                yield files.read_info()


@contextlib.contextmanager
def lock(path: Path) -> Generator[BinaryIO]:
    """Open a file and be the only one who has it locked.

    Raises:
        Problem: 423 somebody has, 404 it was removed meanwhile.
    """
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise unknown() from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = "another request writes to this upload"
            raise Problem(423, message, "upload_locked", None, 1) from None
        if not path.exists():  # an id is never used again, so it is not another file
            raise unknown()
        yield file


@contextlib.contextmanager
def lock_folder(folder: Path) -> Generator[None]:
    """Count and create as one step, over all processes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """See that the names in it outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unknown() -> Problem:
    """The answer where there is no upload, or none of this owner."""
    return Problem(404, "there is no such upload", "upload_not_found", "upload_id")


def expired() -> Problem:
    """The answer where there was one."""
    return Problem(410, "the upload has expired", "upload_expired", "upload_id")
