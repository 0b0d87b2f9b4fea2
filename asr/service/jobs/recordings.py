"""The recordings of jobs on disk. A file's name is its job's id.

A recording is removed when its job ends, unless the client asked to keep it. Then it is removed
with its job. The folder ``<id>.made`` beside a kept recording has files made from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from asr.durable import sync_folder
from asr.service.errors import GivenUp

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

ORPHAN_SECONDS: Final = 3600.0
"""A job follows its recording within moments. A recording this old without a job is an orphan."""

MADE: Final = ".made"
"""The end of the name of a folder with files made from a recording."""

_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether `text` has the form of a job's id."""
    return _ID.fullmatch(text) is not None


class Recordings:
    """A folder that all servers of one database share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder, if it is missing."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def probe(self) -> None:
        """Check that a recording can be stored.

        Raises:
            OSError: it cannot: the folder is read-only, or something else has its name.
        """
        self.open()
        with tempfile.TemporaryFile(dir=self._folder):
            pass

    def path(self, job: str) -> Path:
        """The recording of a job.

        Raises:
            ValueError: `job` does not have the form of an id.
        """
        if not is_id(job):
            raise ValueError(f"{job!r} is not an id of a job")
        return self._folder / job

    def made(self, job: str) -> Path:
        """The folder of files made from the recording of a job. It may not exist.

        Raises:
            ValueError: `job` does not have the form of an id.
        """
        path = self.path(job)
        return path.with_name(f"{path.name}{MADE}")

    def check(self, job: str, created: float) -> None:
        """Check that a recording exists.

        Args:
            job: id of the job.
            created: when the job was created, in seconds since 1970.

        Raises:
            GivenUp: it is gone, although an older recording is in the folder.
            OSError: the folder or the file cannot be read, or the folder has no older recording. A
                disk may be missing, and come back with its files. Newer recordings prove nothing:
                they may be in a new folder in its place.
        """
        try:
            self.path(job).stat()
        except FileNotFoundError:
            others = self.stored_at()
            if not any(stored < created for stored in others.values()):
                raise
            raise GivenUp("the recording of this job is gone", "recording_missing") from None

    def adopt(self, source: Path, job: str) -> tuple[str, int]:
        """Move `source` into the folder, so that it survives a loss of power.

        Args:
            source: a file on the same file system.
            job: id of its job.

        Returns:
            The SHA-256 in hexadecimal, and the size in bytes.
        """
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.utime(file.fileno())  # an old upload must not look like an orphan
            os.fsync(file.fileno())
            n_bytes = os.fstat(file.fileno()).st_size
        self.open()  # something may have deleted the folder
        source.replace(self.path(job))
        sync_folder(self._folder)
        return digest, n_bytes

    def remove(self, job: str) -> None:
        """Remove a recording and the files made from it, if they exist.

        If the disk does not let us, a sweep tries again.
        """
        try:
            self.path(job).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.made(job))
        except OSError as error:
            logger.warning("the recording of job %s is not removed: %s", job, error)

    def stored(self, now: float) -> dict[str, bool]:
        """For the id of each job with a recording, whether that is older than `ORPHAN_SECONDS`.

        Args:
            now: seconds since 1970.
        """
        return {job: now - stored > ORPHAN_SECONDS for job, stored in self.stored_at().items()}

    def stored_at(self) -> dict[str, float]:
        """For the id of each job with a recording, when that was stored, in seconds since 1970.

        Files made from a recording that is gone count as one.
        """
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                job = path.name.removesuffix(MADE)
                with contextlib.suppress(FileNotFoundError):
                    if is_id(path.name) or (is_id(job) and not self.path(job).exists()):
                        found[job] = path.stat().st_mtime
        return found
