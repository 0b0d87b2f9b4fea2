"""The parts in which an upload arrives, with or without a checksum."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.service.files import write_all
from asr.service.http.problems import Problem

if TYPE_CHECKING:
    from typing import BinaryIO

ALGORITHMS: Final = ("sha1", "sha256", "sha512", "md5")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the client says of a part."""

    algorithm: str
    digest: bytes

    @classmethod
    def parse(cls, header: str) -> Checksum:
        """From ``algorithm base64``.

        Raises:
            Problem: 400, malformed or an algorithm that is not offered.
        """
        algorithm, _, encoded = header.partition(" ")
        if algorithm not in ALGORITHMS:
            message = f"Upload-Checksum: the algorithms are {', '.join(ALGORITHMS)}"
            raise Problem(400, message, "invalid_value", "Upload-Checksum")
        try:
            return cls(algorithm, base64.b64decode(encoded, validate=True))
        except ValueError:
            message = "Upload-Checksum: the digest is not base64"
            raise Problem(400, message, "invalid_value", "Upload-Checksum") from None


class Part:
    """Bytes that count as they are written."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next bytes."""
        write_all(self._data, piece)

    def finish(self) -> None:
        """See that what was written outlives a loss of power."""
        os.fdatasync(self._data.fileno())

    def give_up(self) -> None:
        """The client left: what has come counts."""
        self.finish()


class ProvenPart(Part):
    """Bytes that count once their checksum is right."""

    def __init__(self, data: BinaryIO, side: BinaryIO, checksum: Checksum) -> None:
        super().__init__(data)
        self._side = side
        self._checksum = checksum
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=False)

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next bytes, aside."""
        self._hash.update(piece)
        write_all(self._side, piece)

    def finish(self) -> None:
        """Append the part.

        Raises:
            Problem: 460, it is not what the client sent.
        """
        if not hmac.compare_digest(self._hash.digest(), self._checksum.digest):
            raise Problem(460, "Upload-Checksum: the part arrived damaged", "checksum_mismatch")
        position, size = 0, self._side.tell()
        while position < size:  # in the kernel: no memory, whatever the size
            position += os.sendfile(
                self._data.fileno(), self._side.fileno(), position, size - position
            )
        super().finish()

    def give_up(self) -> None:
        """The client left: nothing is proven, nothing counts."""
