"""The output folder: local, shared by the nodes, or a URL that fsspec can write to.

A file is written under a temporary name, flushed to disk and renamed. So a file under its final
name is complete, and writing it twice leaves one. Object stores replace an object at once, so no
temporary name is needed there.

Names are relative, with slashes. They consist of hashes and constants, never of names of
recordings.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from asr.batch.urls import filesystem, is_url, scheme_of
from asr.config import check
from asr.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

DRAFT: Final = ".part-"
OBJECT_STORES: Final = ("s3", "gs", "az", "abfs", "memory")
"""Schemes whose servers replace an object at once."""


class Lost(OSError):
    """A file that was written before is missing or damaged."""


class Store(Protocol):
    """Where results are kept."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it does not exist."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is complete or absent, whatever interrupts this."""
        ...

    def names(self, folder: str) -> set[str]:
        """The files in a folder and below it, relative to it; drafts are left out."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Delete a folder and everything in it."""
        ...

    def put(self, source: Path, name: str) -> None:
        """Move a local file into the store; it may be large."""
        ...

    def span(self, name: str, start: int, end: int, folder: Path) -> Path:
        """A local file that has the bytes [start, end) of a file at the same offset.

        Args:
            name: the file.
            start: offset of the first byte.
            end: offset after the last byte.
            folder: where a copy may be made.

        Raises:
            Lost: the file does not have these bytes.
        """
        ...


def open_store(out: str) -> Store:
    """The store at a folder or URL.

    Raises:
        InvalidOption: files at this kind of URL cannot be replaced at once.
    """
    if not is_url(out):
        return LocalStore(Path(out))
    if scheme_of(out) == "file":
        return LocalStore(Path(filesystem(out)[1]))
    known = ", ".join(f"{name}://" for name in OBJECT_STORES if name != "memory")
    told = f"must be a folder, or a URL of an object store ({known}), not {out}"
    check(scheme_of(out) in OBJECT_STORES, "out", told)
    return RemoteStore(out)


class LocalStore:
    """A folder of this machine, or one that all nodes share.

    Args:
        root: the folder; it is made when the first file is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it does not exist."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is complete or absent, whatever interrupts this."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}{DRAFT}{uuid.uuid4().hex}")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, OSError):
                error.filename = error.filename or str(path)  # a full disk does not tell which
            raise
        sync_folder(path.parent)

    def make(self) -> None:
        """Make the folder.

        Raises:
            InvalidOption: it cannot be made, or nobody may write to it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            check(False, "out", f"{self.root} is not a folder")
        except OSError as error:
            reason = f"{self.root} cannot be made: {error.strerror}"
            check(False, "out", reason)
        check(os.access(self.root, os.W_OK | os.X_OK), "out", f"{self.root} cannot be written to")

    def tidy(self, *patterns: str) -> None:
        """Delete the drafts of processes that were killed.

        Args:
            patterns: of the files that a run writes. All others may be the user's recordings, such
                as ``talk.part-2.wav``.
        """
        for pattern in patterns:
            for draft in self.root.glob(f"{pattern}{DRAFT}{'[0-9a-f]' * 32}"):
                draft.unlink(missing_ok=True)

    def names(self, folder: str) -> set[str]:
        """The files in a folder and below it, relative to it; drafts are left out."""
        top = self.root / folder
        found = (
            os.path.relpath(Path(parent, file), top)
            for parent, _, files in os.walk(top)
            for file in files
        )
        return {name for name in found if DRAFT not in name}

    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Delete a folder and everything in it."""
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def put(self, source: Path, name: str) -> None:
        """Move a local file into the store; it may be large."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}{DRAFT}{uuid.uuid4().hex}")
        try:
            shutil.move(source, draft)
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)

    def span(self, name: str, start: int, end: int, folder: Path) -> Path:  # noqa: ARG002
        """The file itself."""
        path = self.root / name
        if not path.is_file() or path.stat().st_size < end:
            raise Lost(f"{path} is missing or shorter than it was")
        return path


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Raise the errors of a file system as OSError. Some have classes of their own."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class RemoteStore:
    """A URL of an object store, such as ``s3://bucket/folder``."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = filesystem(url)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @_told()
    def read(self, name: str) -> bytes | None:
        """The content of a file, or None if it does not exist."""
        try:
            data: bytes = self._fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    @_told()
    def write(self, name: str, data: bytes) -> None:
        """Replace the whole object."""
        self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(self._path(name), data)

    @_told()
    def names(self, folder: str) -> set[str]:
        """The files in a folder and below it, relative to it."""
        top = self._path(folder)
        self._fs.invalidate_cache()
        try:
            found: list[str] = self._fs.find(top)
        except FileNotFoundError:
            return set()
        return {_below(path, top) for path in found}

    @_told()
    def remove(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are ignored."""
        for name in names:
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                continue

    @_told()
    def remove_folder(self, folder: str) -> None:
        """Delete a folder and everything in it."""
        if self._fs.exists(self._path(folder)):
            self._fs.rm(self._path(folder), recursive=True)

    @_told()
    def put(self, source: Path, name: str) -> None:
        """Upload a local file and delete it."""
        self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(source), self._path(name))
        source.unlink()

    @_told()
    def span(self, name: str, start: int, end: int, folder: Path) -> Path:
        """A sparse local file with these bytes at their offset."""
        try:
            data: Any = self._fs.cat_file(self._path(name), start=start, end=end)
        except FileNotFoundError as error:
            raise Lost(f"{name} is missing") from error
        if len(data) < end - start:
            raise Lost(f"{name} is shorter than it was")
        path = folder / f"{uuid.uuid4().hex}.pcm"
        with path.open("wb") as file:
            file.seek(start)
            file.write(data)
        return path


def _below(path: str, top: str) -> str:
    return path.lstrip("/").removeprefix(top.lstrip("/")).lstrip("/")
