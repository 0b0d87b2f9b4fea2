"""How much of its quota an owner uses, without counting the uploads again.

The file ``<owner>.usage`` beside an owner's folder holds the numbers. They are derived from the
uploads, which remain the truth: if the file is missing or unreadable, the uploads are counted. A
process that is killed between a change of the uploads and a change of the file leaves the numbers
off by one upload. So `Uploads.recount` counts when a server starts, and `Uploads.create` counts
before it refuses.

A change holds the lock of this file. On NFS that lock holds on all machines.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.service.errors import NotFound
from asr.service.files import locked_file
from asr.service.uploads.files import UploadFiles, UploadInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LINE: Final = "{:20d} {:20d} {:20d}\n"
"""A constant width: readers without the lock must not see the rest of a longer line."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The uploads of one owner, or a change of them.

    Attributes:
        n_uploads: that exist and have not expired.
        n_finished: of these, those whose bytes have all arrived.
        n_bytes: the sum of their lengths. An unknown length counts as the largest allowed.
    """

    n_uploads: int = 0
    n_finished: int = 0
    n_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.n_uploads + other.n_uploads,
            self.n_finished + other.n_finished,
            self.n_bytes + other.n_bytes,
        )

    def __neg__(self) -> Usage:
        return Usage(-self.n_uploads, -self.n_finished, -self.n_bytes)


class Ledger:
    """The usage of the owner whose uploads are in `home`.

    Args:
        home: the folder of the owner.
        max_bytes: of one upload.
    """

    def __init__(self, home: Path, max_bytes: int) -> None:
        self._home = home
        self._file = home.with_suffix(".usage")
        self._max_bytes = max_bytes

    def cost(self, info: UploadInfo, n_arrived: int) -> Usage:
        """The usage of one upload."""
        length = self._max_bytes if info.length is None else info.length
        return Usage(1, int(n_arrived == info.length), length)

    def cost_of(self, files: UploadFiles) -> Usage:
        """The usage of one upload by its files. It is zero if one of them is missing."""
        try:
            return self.cost(files.read_info(), files.data.stat().st_size)
        except (NotFound, FileNotFoundError):
            return Usage()

    def usage(self) -> Usage:
        """The usage now."""
        return self._read() or self.recount()

    def recount(self) -> Usage:
        """Count the uploads, store the result and return it."""
        with locked_file(self._file, wait=True):
            return self._count()

    def update(self, change: Callable[[Usage], Usage]) -> None:
        """Hold the lock of the owner while `change` changes the uploads.

        Args:
            change: gets the usage and returns by how much it has changed the usage.
        """
        with locked_file(self._file, wait=True):
            now = self._read() or self._count()
            delta = change(now)
            if delta != Usage():
                self._write(now + delta)

    def _count(self) -> Usage:
        usage = sum((self.cost_of(files) for files in self._uploads()), Usage())
        self._write(usage)
        return usage

    def _uploads(self) -> Iterator[UploadFiles]:
        for path in self._home.glob("*.json"):
            yield UploadFiles(self._home, path.stem)

    def _read(self) -> Usage | None:
        with contextlib.suppress(OSError, ValueError):
            n_uploads, n_finished, n_bytes = self._file.read_text("ascii").split()
            return Usage(int(n_uploads), int(n_finished), int(n_bytes))
        return None

    def _write(self, usage: Usage) -> None:
        numbers = (max(0, it) for it in (usage.n_uploads, usage.n_finished, usage.n_bytes))
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, _LINE.format(*numbers).encode("ascii"), 0)
        finally:
            os.close(descriptor)
