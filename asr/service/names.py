"""File names that clients send, and the names of files to download.

A name is only shown and searched. It is never used as a path.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import quote, unquote_to_bytes

MAX_NAME_BYTES: Final = 255
"""As on most file systems. The extension is kept if a name is cut."""

_DROPPED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, halves of surrogate pairs, separators of lines."""
_BIDI: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They can make ``exe.wav`` look like ``vaw.exe``."""
_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,8}")
_PARAMETER: Final = re.compile(r';\s*(filename\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.IGNORECASE)
_ESCAPED_BY_BROWSERS: Final = {"%22": '"', "%0D": " ", "%0A": " "}


def clean_name(text: str) -> str | None:
    """A name without folders and control characters, of limited length; None if nothing is left."""
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    name = _visible(name).strip()
    return None if name in ("", ".", "..") else _shortened(name)


def _visible(text: str) -> str:
    return "".join(
        character
        for character in text
        if unicodedata.category(character) not in _DROPPED and character not in _BIDI
    )


def _shortened(name: str) -> str:
    stem, extension = _split(name)
    room = MAX_NAME_BYTES - len(extension)
    return stem.encode()[:room].decode("utf-8", "ignore").rstrip() + extension


def _split(name: str) -> tuple[str, str]:
    """The name without its extension, and the extension with its dot."""
    stem, dot, extension = name.rpartition(".")
    if stem and _EXTENSION.fullmatch(dot + extension):
        return stem, dot + extension
    return name, ""


def folded(text: str) -> str:
    """A name, or a part of one, for a search that ignores upper and lower case."""
    return unicodedata.normalize("NFC", _visible(text).casefold())


def sent_name(disposition: bytes) -> str | None:
    """The file name in a header Content-Disposition, cleaned.

    ``filename*`` (RFC 5987) takes precedence over ``filename``, whose bytes are UTF-8 or Latin-1.
    """
    header = disposition.decode("latin-1")
    found = {name.lower(): value.strip() for name, value in _PARAMETER.findall(header)}
    text = _extended(found.get("filename*", "")) or _plain(found.get("filename", ""))
    return clean_name(text)


def _extended(value: str) -> str:
    charset, _, rest = value.strip('"').partition("'")
    encoded = rest.partition("'")[2]
    try:
        return unquote_to_bytes(encoded).decode(charset or "utf-8")
    except (LookupError, ValueError):
        return ""


def _plain(value: str) -> str:
    if value.startswith('"'):
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
        # Browsers escape these three characters in forms, and no others.
        value = re.sub(r"%(?:22|0D|0A)", lambda found: _ESCAPED_BY_BROWSERS[found[0]], value)
    data = value.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return value


def attachment(name: str, extension: str) -> str:
    """The header Content-Disposition of a file to download.

    Args:
        name: of the recording; its extension is replaced.
        extension: of the file, without the dot.
    """
    target = f"{_split(name)[0]}.{extension}"
    plain = re.sub(r'[^ -~]|["\\%]', "_", target)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(target, safe='')}"
