"""Decode a text that a user sends: strictly UTF-8, without signs that nobody sees."""

from __future__ import annotations

import re
from typing import Final

from asr.config import check
from asr.errors import InvalidOption

_BYTE_ORDER_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip
"""UTF-32 comes first, because its mark begins with the one of UTF-16."""
_DOCUMENTS: Final = (
    (b"%PDF", "a PDF document"), (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a zip archive, such as a Word document"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"), (b"\x1f\x8b", "a gzip archive"),
)  # fmt: skip
_BREAKS: Final = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""All signs that end a line, besides the line feed. They become line feeds."""
_INVISIBLE: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb\U000e0001-\U000e007f]"
)
"""Control and format characters, and the colours of a terminal. The joiners U+200C and U+200D stay:
they change how letters look in Persian, in Indic scripts and in emoji."""
MAX_ZEROS: Final = 0.02
"""Largest share of zero bytes in a text. Data with more of them is binary."""
_FIX: Final = "save the text as UTF-8"


def decode_text(data: bytes) -> str:
    """Decode the bytes of a text.

    Raises:
        InvalidOption: the bytes are not UTF-8. The message names the encoding that they probably
            have.
    """
    for start, name in _DOCUMENTS:
        _refuse_if(data.startswith(start), f"is {name}; send plain text, SRT, VTT or LRC in UTF-8")
    for mark, name in _BYTE_ORDER_MARKS:
        _refuse_if(data.startswith(mark), f"is {name}, not UTF-8; {_FIX}")
    _refuse_zeros(data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{data[error.start]:02x} in line {line}"
        message = f"is {_encoding(data)}, not UTF-8 ({byte}); {_FIX}"
        raise InvalidOption("text", message) from error


def clean_text(text: str) -> str:
    r"""Drop control and format characters, and end all lines with ``\n``.

    Raises:
        InvalidOption: it holds many zeros or replacement characters, so it was decoded wrongly.
    """
    _refuse_zeros(text.encode("utf-8", "replace"))
    clean = _INVISIBLE.sub("", _BREAKS.sub("\n", text))
    broken = clean.find("\ufffd")
    line = clean.count("\n", 0, max(broken, 0)) + 1
    message = f"has the replacement character U+FFFD in line {line}, so it was decoded with a"
    _refuse_if(broken >= 0, f"{message} wrong encoding; send it as UTF-8")
    return clean


def _refuse_if(is_wrong: bool, message: str) -> None:
    check(not is_wrong, "text", message)


def _refuse_zeros(data: bytes) -> None:
    """Refuse data that is no text because of its zero bytes. A few are dropped like other signs.

    In UTF-16 most zeros have the same parity.
    """
    odd, even = data[1::2].count(0), data[::2].count(0)
    is_wide = max(odd, even) > 0.3 * len(data) / 2 and min(odd, even) < 0.2 * max(odd, even)
    name = "UTF-16 without a byte order mark" if is_wide else "binary data"
    is_binary = is_wide or odd + even > max(1, MAX_ZEROS * len(data))
    _refuse_if(is_binary, f"is {name}, not UTF-8; {_FIX}")


def _encoding(data: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8.

    In a Western text most letters are ASCII, so the others stand alone. In a Chinese, Japanese,
    Korean, Russian or Greek one they form runs.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    if sum(run for run in runs if run > 1) > sum(runs) / 2:
        return "probably in an Asian or Cyrillic encoding, such as GBK, Shift-JIS or Windows-1251"
    undefined = re.search(rb"[\x81\x8d\x8f\x90\x9d]", data)
    return "probably in an old Western encoding" if undefined else "probably Windows-1252 (cp1252)"
