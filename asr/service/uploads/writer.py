"""Writes to one locked upload."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from asr.errors import InvalidOption
from asr.service.errors import TooLarge
from asr.service.uploads.files import UploadFiles, UploadInfo
from asr.service.uploads.parts import Checksum, Part, VerifiedPart
from asr.service.uploads.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import BinaryIO

    from asr.service.uploads.usage import Ledger


class Writer:
    """Writes to an upload. Made by `Uploads.writing`, which holds the lock.

    Args:
        files: of the upload.
        data: its bytes, open for writing.
        length: bytes in total, or None until the client declares it.
        max_bytes: the limit of one upload.
        ledger: the usage of the owner.
    """

    def __init__(
        self,
        files: UploadFiles,
        data: BinaryIO,
        length: int | None,
        max_bytes: int,
        ledger: Ledger,
    ) -> None:
        self._files = files
        self._data = data
        self._length = length
        self._max_bytes = max_bytes
        self._ledger = ledger
        self._is_counted = self.is_finished  # as finished, in the usage of the owner

    @property
    def offset(self) -> int:
        """Bytes in the upload so far."""
        return os.fstat(self._data.fileno()).st_size

    @property
    def room(self) -> int:
        """Bytes that may still be appended."""
        return (self._max_bytes if self._length is None else self._length) - self.offset

    @property
    def is_finished(self) -> bool:
        """Whether all bytes arrived."""
        return self.offset == self._length

    def declare(self, length: int) -> None:
        """Set the length. It can be set once.

        Raises:
            InvalidOption: another length was set before, or more than `length` bytes have arrived.
            TooLarge: it is larger than allowed.
        """
        if self._length not in (None, length) or length < self.offset:
            message = "was declared before, or is less than what has arrived"
            raise InvalidOption("Upload-Length", message)
        if length > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._length is None:
            self._ledger.update(lambda _: self._store_length(length))
            self._length = length
            self._is_counted = self.is_finished

    def _store_length(self, length: int) -> Usage:
        before = self._files.read_info()
        after = UploadInfo(length, before.metadata)
        self._files.write_info(after)
        n_arrived = self.offset
        return self._ledger.cost(after, n_arrived) + -self._ledger.cost(before, n_arrived)

    def settle(self) -> None:
        """Count the upload as finished in the usage of the owner, if its last byte arrived."""
        if self.is_finished and not self._is_counted:
            self._ledger.update(lambda _: Usage(n_finished=1))
            self._is_counted = True

    @contextlib.contextmanager
    def part(self, checksum: Checksum | None) -> Generator[Part]:
        """Open a part at the end of the upload."""
        self._data.seek(0, os.SEEK_END)
        if checksum is None:
            yield Part(self._data)
            return
        try:
            with self._files.unverified.open("w+b", buffering=0) as unverified:
                yield VerifiedPart(self._data, unverified, checksum)
        finally:
            self._files.unverified.unlink(missing_ok=True)


def too_large(max_bytes: int) -> TooLarge:
    """The error for an upload of more than `max_bytes`."""
    message = f"an upload may have at most {max_bytes} bytes (ASR_MAX_UPLOAD_BYTES)"
    return TooLarge(message, "too_large", "Upload-Length")
