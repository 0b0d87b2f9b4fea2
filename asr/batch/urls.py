"""URLs through fsspec. It is imported only if a URL is used."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from asr.config import check
from asr.errors import InvalidOption

SCHEMES: Final = ("http", "https", "s3", "file", "memory", "gs", "az", "abfs", "sftp")
READ_SECONDS: Final = 60.0
"""An HTTP server that sends nothing for this long counts as dead."""
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_ENCODED: Final = re.compile(
    r"(%[0-9a-f]{2}|[\w.~:/?#\[\]@!$&'()*+,;=-])*", re.IGNORECASE | re.ASCII
)
"""A URL that is sent as it is, because a signature may cover each character."""
_PACKAGES: Final = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "sftp": "paramiko"}


def is_url(name: str) -> bool:
    """Whether a source or an output folder is a URL. Windows paths do not occur here."""
    return _URL.match(name) is not None


def scheme_of(url: str) -> str:
    """The scheme in lower case; empty for a path."""
    found = _URL.match(url)
    return found[1].lower() if found else ""


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        InvalidOption: the scheme is unknown, or the package that serves it is missing.
    """
    scheme = scheme_of(url)
    known = ", ".join(f"{name}://" for name in SCHEMES)
    check(scheme in SCHEMES, "source", f"{scheme}:// is not supported; use {known} or a path")
    try:
        if scheme in ("http", "https"):
            return _http(is_encoded="%" in url and _ENCODED.fullmatch(url) is not None), url
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "'asr-service[batch]'")
        told = f"{scheme}:// needs a package: pip install {package} ({error})"
        raise InvalidOption("source", told) from error
    return fs, path


@functools.cache
def _http(*, is_encoded: bool) -> Any:
    """One for all URLs, so that connections are used again and their number stays small."""
    import aiohttp
    from fsspec.implementations.http import HTTPFileSystem

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=READ_SECONDS)
    options = {"client_kwargs": {"timeout": timeout}, "encoded": is_encoded}
    return HTTPFileSystem(skip_instance_cache=True, **options)
