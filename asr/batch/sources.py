"""List the recordings that the command line names: files, folders, globs, lists and URLs.

A folder is searched for files with a usual suffix, following links but entering no folder twice.
What is named one by one is taken whatever its suffix.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asr.batch.lists import LISTS, entries
from asr.batch.urls import filesystem, is_url, scheme_of
from asr.config import check
from asr.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIXES: Final = (
    *(".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac"),
    *(".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg"),
    *(".mpg", ".mpga", ".oga", ".ogg", ".ogv", ".opus", ".spx", ".ts", ".w64", ".wav", ".weba"),
    *(".webm", ".wma", ".wmv"),
)
"""Of recordings in a folder."""
PROBES: Final = 32
"""URLs whose size is asked for at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """A recording as the user named it.

    Attributes:
        path: a path or a URL.
        size: bytes, or None if unknown.
        stamp: changes whenever the content changes; empty if unknown.
        error: why it cannot be used; empty if it seems usable.
    """

    path: str
    size: int | None = None
    stamp: str = ""
    error: str = ""


@dataclass(slots=True)
class Listing:
    """What was found.

    Attributes:
        sources: one for each path, in the order found.
        n_skipped: files in folders whose suffix is not that of a recording.
        errors: folders that cannot be listed, each with the reason.
    """

    sources: list[Source] = field(default_factory=list)
    n_skipped: int = 0
    errors: dict[str, str] = field(default_factory=dict)


def list_sources(names: Iterable[str]) -> Listing:
    """List the recordings behind arguments of the command line.

    Raises:
        InvalidOption: a list cannot be read, a glob matches nothing, or URLs of a kind that cannot
            be read.
    """
    listing = Listing()
    paths = dict.fromkeys(path for name in names for path in _expand(name, listing))
    local = [path for path in paths if not is_url(path)]
    errors = listing.errors
    found = {
        path: Source(path, error=errors[path]) if path in errors else look_at(path)
        for path in local
    }
    remote = [path for path in paths if is_url(path)]
    if remote:
        for url in {scheme_of(url): url for url in reversed(remote)}.values():
            _check_scheme(url)
        with ThreadPoolExecutor(PROBES) as pool:
            found |= zip(remote, pool.map(_look_at_url, remote), strict=True)
    listing.sources = [found[path] for path in paths]
    return listing


def _check_scheme(url: str) -> None:
    """A missing package is an error of usage, not of each URL. A wrong URL is only its own."""
    with contextlib.suppress(ValueError):
        filesystem(url)


def _expand(name: str, listing: Listing) -> Iterator[str]:
    if name == "-":
        yield from _listed(sys.stdin.buffer.read(), "", "standard input", listing)
    elif is_url(name):
        yield from _url(name, listing)
    elif os.path.isdir(name):  # noqa: PTH112  # Path's fails if the name is too long
        yield from _folder(name, listing)
    elif name.lower().endswith(LISTS):
        yield from _listed(_bytes(name), str(Path(name).parent), name, listing)
    elif _is_glob(name):
        matches = list(_glob(name, listing))
        check(bool(matches), "source", f"nothing matches {name}")
        yield from matches
    else:
        yield name


def _is_glob(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)


def _listed(data: bytes, folder: str, where: str, listing: Listing) -> Iterator[str]:
    """The recordings of a list. What does not exist becomes a row with its error."""
    for entry in entries(data, where):
        path = _beside(entry, folder)
        if is_url(path):
            yield path
        elif os.path.isdir(path):  # noqa: PTH112
            yield from _folder(path, listing)
        elif _is_glob(path):
            yield from list(_glob(path, listing)) or [path]
        else:
            yield path


def _beside(entry: str, folder: str) -> str:
    """A path or URL of a list in `folder`."""
    if is_url(entry):
        return entry
    return f"{folder}/{entry}" if is_url(folder) else str(Path(folder, entry))


def _url(url: str, listing: Listing) -> Iterator[str]:
    """The recordings behind a URL: a list, a folder, a glob, or itself.

    HTTP has neither folders nor globs.
    """
    is_http = scheme_of(url).startswith("http")
    plain = url.partition("?")[0]
    if plain.lower().endswith(LISTS):
        yield from _listed(_remote_bytes(url), plain.rpartition("/")[0], url, listing)
    elif is_http or not (glob.has_magic(url) or _is_remote_folder(url)):
        yield url
    else:
        yield from _remote_folder(url, listing)


def _remote_folder(url: str, listing: Listing) -> Iterator[str]:
    """The recordings in a folder, or those that match a glob."""
    fs, path = filesystem(url)
    is_glob = glob.has_magic(url)
    try:
        found = sorted(fs.glob(path) if is_glob else fs.find(path))
    except Exception as error:  # each file system raises other errors
        raise InvalidOption("source", f"cannot list {url}: {error}") from error
    check(bool(found), "source", f"nothing matches {url}")
    for name in found:
        if is_glob or Path(name).suffix.lower() in SUFFIXES:
            yield str(fs.unstrip_protocol(name))
        else:
            listing.n_skipped += 1


def _is_remote_folder(url: str) -> bool:
    if url.endswith("/"):
        return True
    fs, path = filesystem(url)
    try:
        return bool(fs.isdir(path))
    except Exception:  # noqa: BLE001  # each file system raises other errors; the worker tells
        return False


def _remote_bytes(url: str) -> bytes:
    try:
        fs, path = filesystem(url)
        data: bytes = fs.cat_file(path)
    except Exception as error:
        if isinstance(error, InvalidOption):
            raise
        raise InvalidOption("source", f"cannot read the list {url}: {error}") from error
    return data


def _bytes(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise InvalidOption("source", f"cannot read the list {name}: {error.strerror}") from error


def _glob(pattern: str, listing: Listing) -> Iterator[str]:
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  # may be absolute
        if os.path.isdir(match):  # noqa: PTH112
            yield from _folder(match, listing)
        else:
            yield match


def _folder(top: str, listing: Listing) -> Iterator[str]:
    """The recordings below a folder; one that cannot be listed is reported as a source."""
    entered: set[tuple[int, int]] = set()
    errors: list[OSError] = []
    for parent, folders, files in os.walk(top, followlinks=True, onerror=errors.append):
        try:
            here = Path(parent).stat()
        except OSError as error:  # it was removed meanwhile
            errors.append(error)
            continue
        if (here.st_dev, here.st_ino) in entered:
            folders.clear()
            continue
        entered.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield str(Path(parent, name))
            else:
                listing.n_skipped += 1
    for unlisted in errors:
        listing.errors[unlisted.filename] = f"cannot be listed: {unlisted.strerror}"
        yield unlisted.filename


def look_at(path: str) -> Source:
    """Size and stamp of a local file.

    The stamp contains the time of the last change of the inode, which no program can set back, so
    a file that was replaced by one with the same size and time is noticed.
    """
    try:
        found = Path(path).stat()
        if not Path(path).is_file():
            return Source(path, error="not a regular file")
        if not os.access(path, os.R_OK):
            return Source(path, error="cannot be read: Permission denied")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Source(path, error=f"cannot be read: {reason}")
    stamp = f"{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"
    return Source(path, found.st_size, stamp)


def _look_at_url(url: str) -> Source:
    """Size and stamp of a URL. Errors are left to the worker, which tries again."""
    try:
        fs, path = filesystem(url)
        facts = fs.info(path)
    except Exception:  # noqa: BLE001  # each file system raises other errors
        return Source(url)
    stamp = next((str(facts[key]) for key in ("ETag", "etag", "LastModified") if key in facts), "")
    size = facts.get("size")
    return Source(url, size if isinstance(size, int) else None, stamp)
