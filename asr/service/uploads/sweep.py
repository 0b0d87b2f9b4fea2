"""Removes expired uploads, and files that killed processes left behind."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from asr.service.clock import TOLERANCE_SECONDS
from asr.service.errors import Refused
from asr.service.uploads.files import UploadFiles, locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asr.service.uploads.usage import Ledger, Usage


logger = logging.getLogger(__name__)


class Sweep:
    """One sweep of all uploads.

    Args:
        ttl: an upload expires this many seconds after its last byte arrived.
        now: seconds since 1970.
    """

    def __init__(self, ttl: float, now: float) -> None:
        self._ttl = ttl
        self._now = now

    def home(self, home: Path, ledger: Ledger) -> Iterator[int]:
        """Sweep one file of an owner in each step; yield how many uploads expired in this step.

        What cannot be removed stays, so that it does not keep the uploads of other owners.
        """
        trouble: OSError | None = None
        for path in iterate(home):
            n_expired = 0
            try:
                n_expired = int(self._sweep(path, ledger))
            except (FileNotFoundError, Refused):
                pass
            except OSError as error:
                trouble = error
            yield n_expired
        if trouble is not None:
            logger.warning("some expired uploads cannot be removed: %s", trouble)

    def held(self, path: Path) -> int:
        """Remove a link that a killed process left. Returns 0, because no upload expires here."""
        with contextlib.suppress(FileNotFoundError):
            # Linking changes the ctime of a file but not its mtime, which the upload shares.
            if path.stat().st_ctime + self._ttl < self._now:
                path.unlink()
        return 0

    def _sweep(self, path: Path, ledger: Ledger) -> bool:
        files = UploadFiles(path.parent, path.stem)
        if path == files.info and files.data.exists():
            return self._expire(files, ledger)
        if path == files.data and files.info.exists():
            return False
        # Any other file is a leftover: the info of an expired upload, unverified bytes, or data
        # without info.
        if self._is_old(path):
            path.unlink()
        return False

    def _expire(self, files: UploadFiles, ledger: Ledger) -> bool:
        if not self._is_old(files.data):
            return False
        with locked(files.data):
            if not self._is_old(files.data):
                return False
            discard(files, ledger, keep_info=True)
        os.utime(files.info)  # `Uploads.status` raises Expired for `ttl` more seconds
        return True

    def _is_old(self, path: Path) -> bool:
        changed = path.stat().st_mtime
        if changed > self._now + TOLERANCE_SECONDS:
            # The clock was ahead, or that of the file server is. Without its own time, the latter
            # would be set again, and each sweep would put off the end of the upload.
            os.utime(path, (self._now, self._now))
        return changed + self._ttl < self._now


def discard(files: UploadFiles, ledger: Ledger, *, keep_info: bool = False) -> None:
    """Remove a locked upload, and take it from its owner's usage. As `UploadFiles.remove`."""

    def remove(_: Usage) -> Usage:
        cost = ledger.cost_of(files)
        files.remove(keep_info=keep_info)
        return -cost

    ledger.update(remove)


def iterate(folder: Path) -> Iterator[Path]:
    """The files in a folder; none if there is no such folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()
