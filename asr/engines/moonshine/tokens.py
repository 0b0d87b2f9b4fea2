"""Moonshine's tokenizer: token ids to text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SPACE: Final = "\u2581".encode()
_LONG: Final = 128


class Tokenizer:
    """A vocabulary. The id of a token is the index of its piece.

    Args:
        pieces: UTF-8 bytes as in the file, with U+2581 for a space.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [
            b"" if _is_control(piece) else piece.replace(_SPACE, b" ") for piece in pieces
        ]

    @classmethod
    def read(cls, path: Path) -> Tokenizer:
        """Read ``tokenizer.bin``: for each piece its length, then its bytes.

        A length below 128 is one byte. A longer one is two bytes: 128 plus the length modulo 128,
        then the length divided by 128.

        Raises:
            ValueError: the file is damaged.
        """
        data = path.read_bytes()
        pieces, here = [], 0
        while here < len(data):
            size, here = data[here], here + 1
            if size >= _LONG and here < len(data):
                size, here = size - _LONG + _LONG * data[here], here + 1
            if here + size > len(data):
                raise ValueError(f"{path} ends within a piece")
            pieces.append(data[here : here + size])
            here += size
        return cls(pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for a control token such as ``<s>``.

        They may be a part of a character. Only all bytes of a word together are valid UTF-8.
        """
        return self._pieces[token]


def _is_control(piece: bytes) -> bool:
    return len(piece) > 2 and piece.startswith(b"<") and piece.endswith(b">")
