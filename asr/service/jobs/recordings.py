"""The recordings of jobs on disk, each under the id of its job, until the job has ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

ORPHAN_SECONDS: Final = 3600.0
"""A recording is moved here moments before its job is made; after this long it has none."""

_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether `text` may be the id of a job."""
    return _ID.fullmatch(text) is not None


class Recordings:
    """A folder that all servers of one database share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, job: str) -> Path:
        """Where the recording of a job lies."""
        if not is_id(job):
            raise ValueError(f"{job!r} is no id of a job")
        return self._folder / job

    def adopt(self, source: Path, job: str) -> tuple[str, int]:
        """Move `source` here such that no loss of power can take it back; its sha256 and size.

        The source must lie in the same file system.
        """
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.utime(file.fileno())  # it may have waited long as an upload
            os.fsync(file.fileno())
            n_bytes = os.fstat(file.fileno()).st_size
        source.replace(self.path(job))
        self._sync()
        return digest, n_bytes

    def remove(self, job: str) -> None:
        """Remove one, if it is there."""
        self.path(job).unlink(missing_ok=True)

    def old(self) -> list[str]:
        """Ids of those that were written too long ago to be without a job."""
        now = time.time()  # noqa: TID251  # compared with the clock of the files
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if is_id(path.name) and now - path.stat().st_mtime > ORPHAN_SECONDS:
                        found.append(path.name)
        return found

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
