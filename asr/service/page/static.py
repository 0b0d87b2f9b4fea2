"""The files of the page and of the interactive documentation.

A file is found by its name in a table that is made at the start, so no request can name another
one. A changed file is read again, which helps who works on the page.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from asr.service.http.problems import Problem
from asr.service.jobs.documents import matches

if TYPE_CHECKING:
    from starlette.requests import Request

WEB: Final = Path(__file__).parent.parent / "web"
SWAGGER: Final = Path(__file__).parent / "swagger"
INDEX: Final = "index.html"
NONCE: Final = b"{{nonce}}"
"""In index.html, it is replaced by a new value for each answer. Styles that a script adds may carry
it, as those of the waveform do."""
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",  # LICENSE
}
_POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'{nonce}",
    "img-src 'self' data: blob:",
    "media-src 'self' blob:",
    "font-src 'self'",
    "connect-src 'self'",
    "worker-src 'self' blob:",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class _File:
    stamp: tuple[int, int]
    data: bytes
    tag: str


class StaticFiles:
    """The files of a folder and of those in it.

    Args:
        folder: it may be missing, and then has no files.
    """

    def __init__(self, folder: Path) -> None:
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in TYPES)
        self._paths = {path.relative_to(folder).as_posix(): path for path in found}
        self._read: dict[str, _File] = {}

    async def answer(self, request: Request, name: str) -> Response:
        """A file, or 304 if the client has it.

        Raises:
            Problem: 404, there is no such file.
        """
        path = self._paths.get(name)
        if path is None:
            raise no_such_file()
        file = await asyncio.to_thread(self._load, name, path)
        if NONCE in file.data:
            return _with_nonce(file.data, path)
        headers = {**HEADERS, "etag": file.tag, "cache-control": "no-cache", **policy("")}
        if matches(file.tag, request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=TYPES[path.suffix])

    def _load(self, name: str, path: Path) -> _File:
        status = path.stat()
        stamp = status.st_mtime_ns, status.st_size
        file = self._read.get(name)
        if file is None or file.stamp != stamp:
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            file = self._read[name] = _File(stamp, data, tag)
        return file


def _with_nonce(data: bytes, path: Path) -> Response:
    nonce = secrets.token_urlsafe(16)
    headers: dict[str, Any] = {**HEADERS, "cache-control": "no-store", **policy(nonce)}
    body = data.replace(NONCE, nonce.encode())
    return Response(body, headers=headers, media_type=TYPES[path.suffix])


def policy(nonce: str) -> dict[str, str]:
    """The header with the content security policy."""
    extra = f" 'nonce-{nonce}'" if nonce else ""
    return {"content-security-policy": "; ".join(_POLICY).replace("{nonce}", extra)}


def no_such_file() -> Problem:
    """The answer for a file that does not exist."""
    return Problem(404, "there is no such file", "http_error")
