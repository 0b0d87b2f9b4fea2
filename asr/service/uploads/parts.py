"""The parts in which an upload arrives, with or without a checksum."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.errors import InvalidOption
from asr.service.errors import Damaged
from asr.service.files import write_all

if TYPE_CHECKING:
    from typing import BinaryIO

ALGORITHMS: Final = ("sha1", "sha256", "sha512", "md5")


@dataclass(frozen=True, slots=True)
class Checksum:
    """The checksum that the client sent for a part."""

    algorithm: str
    digest: bytes

    @classmethod
    def parse(cls, header: str) -> Checksum:
        """Parse ``algorithm base64``.

        Raises:
            InvalidOption: the header is malformed, or the algorithm is not supported.
        """
        algorithm, _, encoded = header.partition(" ")
        if algorithm not in ALGORITHMS:
            message = f"the algorithms are {', '.join(ALGORITHMS)}"
            raise InvalidOption("Upload-Checksum", message)
        try:
            return cls(algorithm, base64.b64decode(encoded, validate=True))
        except ValueError:
            raise InvalidOption("Upload-Checksum", "the digest is not base64") from None


class Part:
    """A part without a checksum. Each write appends to the upload at once."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data

    def write(self, piece: bytes | bytearray) -> None:
        """Write the next bytes."""
        write_all(self._data, piece)

    def finish(self) -> None:
        """Flush the bytes to disk, so that they survive a loss of power."""
        os.fdatasync(self._data.fileno())

    def give_up(self) -> None:
        """Keep the bytes that arrived before the request failed."""
        self.finish()


class VerifiedPart(Part):
    """A part with a checksum. It is appended to the upload only if the checksum matches.

    Args:
        data: the upload, to which `finish` appends the part.
        unverified: a file for the bytes until `finish` compares the checksum.
        checksum: of the whole part.
    """

    def __init__(self, data: BinaryIO, unverified: BinaryIO, checksum: Checksum) -> None:
        super().__init__(data)
        self._unverified = unverified
        self._checksum = checksum
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=False)

    def write(self, piece: bytes | bytearray) -> None:
        """Write the next bytes to the file of unverified bytes."""
        self._hash.update(piece)
        write_all(self._unverified, piece)

    def finish(self) -> None:
        """Compare the checksum and append the part to the upload.

        Raises:
            Damaged: the checksum differs; nothing was appended.
        """
        if not hmac.compare_digest(self._hash.digest(), self._checksum.digest):
            raise Damaged("Upload-Checksum: the part arrived damaged", "checksum_mismatch")
        position, size = 0, self._unverified.tell()
        while position < size:  # copied in the kernel, so memory does not grow with the part
            position += os.sendfile(
                self._data.fileno(), self._unverified.fileno(), position, size - position
            )
        super().finish()

    def give_up(self) -> None:
        """Append nothing: an incomplete part cannot be verified."""
