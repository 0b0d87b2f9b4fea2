"""Bring a recording to the worker, and hash it.

A local file is read in place. A URL is copied to a temporary file, with limits on bytes and time,
because a server may send without end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asr.batch.faults import SourceAway, SourceError, SourceUnavailable
from asr.batch.identity import BLOCK_BYTES
from asr.batch.urls import filesystem, is_url, scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from asr.config import AudioLimits

FETCH_SECONDS: Final = 3600.0
"""Longest time to copy one recording from a URL."""
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of HTTP after which a later attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A recording on this machine.

    Attributes:
        path: the file.
        content: SHA-256 of it.
        size: bytes.
        verify: raises `SourceError` if the file changed since it was hashed.
    """

    path: Path
    content: str
    size: int
    verify: Callable[[], None] = lambda: None


@contextlib.contextmanager
def fetched(name: str, limits: AudioLimits, folder: Path) -> Generator[Fetched]:
    """A recording as a local file, until the block ends.

    Args:
        name: a path or a URL.
        limits: the largest number of bytes.
        folder: for copies.

    Raises:
        SourceError: it cannot be read, is too large, or changed while it was hashed.
        SourceAway: it cannot be read now.
    """
    if is_url(name):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            yield _copied(name, limits, Path(temporary) / "recording")
        return
    before = _stat(Path(name), limits)
    content = _hashed(_blocks(Path(name)))

    def verify() -> None:
        if _stat(Path(name), limits) != before:
            raise SourceError("the file changed while it was read; run again when it is complete")

    verify()
    yield Fetched(Path(name), content, before[0], verify)


def _stat(path: Path, limits: AudioLimits) -> tuple[int, int, int]:
    """Size, time of the last change, and inode of a regular file."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(error) from error
    if not path.is_file():
        raise SourceError("not a regular file")
    _check_size(found.st_size, limits)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _check_size(size: int, limits: AudioLimits) -> None:
    if size > limits.max_bytes:
        message = f"the recording has more than {limits.max_bytes} bytes"
        raise SourceError(f"{message} (ASR_MAX_UPLOAD_BYTES)")


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while block := file.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> Exception:
    """A file that is missing or forbidden stays so; other trouble, of a network disk, may pass."""
    message = error.strerror or str(error)
    kinds = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    is_lasting = isinstance(error, kinds) or message.startswith(("Too many levels", "File name"))
    return (SourceError if is_lasting else SourceAway)(f"cannot be read: {message}")


def _hashed(blocks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _copied(url: str, limits: AudioLimits, target: Path) -> Fetched:
    """Copy a URL to a file, hashing it on the way."""
    try:
        fs, path = filesystem(url)
        with target.open("wb") as copy:
            content = _hashed(_kept(_remote_blocks(fs, path, url), copy, limits))
    except (SourceError, SourceUnavailable):
        raise
    except Exception as error:  # each file system raises other errors
        raise _unfetched(error) from error
    return Fetched(target, content, target.stat().st_size)


def _remote_blocks(fs: Any, path: str, url: str) -> Iterator[bytes]:
    # With block_size 0 fsspec's HTTP streams; otherwise it needs a server that knows ranges.
    options = {"block_size": 0} if scheme_of(url).startswith("http") else {}
    with fs.open(path, "rb", **options) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _kept(blocks: Iterator[bytes], copy: Any, limits: AudioLimits) -> Iterator[bytes]:
    """Write blocks to a file, with limits on bytes and time."""
    deadline = time.monotonic() + FETCH_SECONDS
    for block in blocks:
        copy.write(block)
        _check_size(copy.tell(), limits)
        if time.monotonic() > deadline:
            raise SourceError(f"the recording did not arrive within {FETCH_SECONDS:.0f} s")
        yield block


def _unfetched(error: Exception) -> Exception:
    """The error of a URL. fsspec's HTTP calls any error FileNotFoundError; its cause tells more."""
    causes = list(_causes(error))
    statuses = [it.status for it in causes if isinstance(getattr(it, "status", None), int)]
    if 0 in statuses:
        return SourceError("cannot be fetched: the server redirects for ever")
    if statuses:
        kind = SourceAway if statuses[0] in _PASSING else SourceError
        return kind(f"cannot be fetched: the server answers {statuses[0]}")
    root = causes[-1]
    message = f"cannot be fetched: {type(root).__name__} {' '.join(str(root).split())}".strip()
    # A ValueError is a URL that means nothing, such as one with a port of letters.
    is_lasting = isinstance(root, (FileNotFoundError, PermissionError, ValueError))
    return (SourceError if is_lasting else SourceAway)(message)


def _causes(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__
