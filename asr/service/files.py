"""Files and folders: writing in threads, locks, temporary folders, flushing to disk."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asr.service.clock import wall_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from typing import BinaryIO

P = ParamSpec("P")
T = TypeVar("T")

RUN_PREFIX = "asr-serve-"
_DRAFT_PREFIX = "asr-draft-"
_DRAFT_SECONDS = 3600.0
LOCK_PREFIX = "asr-lock-"
_OURS = ("uploads", "recordings", "voices", "jobs.db", "clock", LOCK_PREFIX)
"""What a data folder holds, in addition to the folders of running servers."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


async def finished_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread and wait until it ends, even if the caller is cancelled.

    A thread cannot be stopped. Without the wait it could write to a file that the caller closed.
    """
    return await finished(asyncio.to_thread(work, *args, **kwargs))


async def finished(work: Awaitable[T]) -> T:
    """Wait until `work` ends, even if the caller is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise


def write_all(file: BinaryIO, data: bytes | bytearray) -> None:
    """Write all of `data`. One call of `write` on an unbuffered file may write less."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@contextlib.contextmanager
def locked_file(path: Path, *, wait: bool) -> Generator[int]:
    """Hold a lock on a file, which is made if it is missing; yields its descriptor.

    Use it in folders that servers on several machines share. On NFS the lock of a file that is
    open for writing holds on all machines, but the lock of a folder only on one.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file. Its last holder may have removed it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def fresh_stat(path: Path) -> os.stat_result:
    """The status of a file that another machine may just have written.

    NFS answers `stat` from a cache for some seconds, but asks its server when a file is opened.

    Raises:
        FileNotFoundError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_folder(folder: Path, *, wait: bool) -> Generator[None]:
    """Hold a lock on a folder, against all processes of all servers on this machine.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def temporary_folder(parent: Path) -> AsyncGenerator[Path]:
    """Make a folder, and remove it after the block, even if the block is cancelled.

    `parent` is made again if something deleted it.

    Each step runs in a thread, and a cancelled block waits until the thread ends. Otherwise a
    cancellation could stop the removal before its thread starts. The recording would then stay on
    disk until the service ends.
    """
    folder = parent / uuid.uuid4().hex
    try:
        await finished_in_thread(_make, folder)
        yield folder
    finally:
        await finished_in_thread(shutil.rmtree, folder, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        restore_run_directory(folder.parent)
        folder.mkdir(mode=0o700)


_restored: dict[Path, int] = {}
"""Descriptors that hold the locks on restored folders and files, until this process ends."""


def restore_run_directory(folder: Path) -> None:
    """Make a run directory again that something deleted, such as a cleaner of old files.

    It gets a lock again, or the next server would take it for the folder of a dead one.
    """
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another thread of this server was faster
        os.close(descriptor)
        return
    _keep(folder, descriptor)
    _restore_lock(_lock_of(folder))


def _restore_lock(lock: Path) -> None:
    """Make the lock file of a run directory again, if it was deleted, too."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _keep(lock, descriptor)


def _keep(path: Path, descriptor: int) -> None:
    earlier = _restored.get(path)
    _restored[path] = descriptor
    if earlier is not None:
        os.close(earlier)


@contextlib.contextmanager
def run_directory(parent: Path) -> Generator[Path]:
    """Make a folder for the files of requests, and remove it after the block.

    A server that was killed leaves its folder behind, and the next server removes it. Each running
    server holds two locks: on its folder, which cleaners of old files respect, and on a file
    beside it, which holds on all machines that share `parent`. So a folder with neither lock
    belongs to a dead server. A folder gets its name after it is locked. Otherwise another server
    that starts could remove it.
    """
    for left in (*parent.glob(f"{RUN_PREFIX}*"), *parent.glob(f"{_DRAFT_PREFIX}*")):
        if left.name.startswith(RUN_PREFIX) or _is_old(left):
            with contextlib.suppress(OSError):
                _remove_if_dead(left)
    for lock in parent.glob(f"{LOCK_PREFIX}*"):
        if not _folder_of(lock).exists() and _is_old(lock):  # its server died while it started
            lock.unlink(missing_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=parent))
    folder = draft.with_name(RUN_PREFIX + draft.name.removeprefix(_DRAFT_PREFIX))
    lock = _lock_of(folder)
    try:
        with locked_file(lock, wait=False), locked_folder(draft, wait=False):
            draft.rename(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _remove_if_dead(folder: Path) -> None:
    """Remove a folder that no running server holds.

    Raises:
        BlockingIOError: a server holds it.
    """
    lock = _lock_of(folder)
    with locked_folder(folder, wait=False), locked_file(lock, wait=False):
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    """The file whose lock says that a server uses `folder`, a draft or a run directory."""
    name = folder.name.removeprefix(RUN_PREFIX).removeprefix(_DRAFT_PREFIX)
    return folder.with_name(LOCK_PREFIX + name)


def _folder_of(lock: Path) -> Path:
    return lock.with_name(RUN_PREFIX + lock.name.removeprefix(LOCK_PREFIX))


def _is_old(path: Path) -> bool:
    """Whether a file or folder is older than the start of a server takes."""
    with contextlib.suppress(FileNotFoundError):
        return wall_time() - path.stat().st_mtime > _DRAFT_SECONDS
    return False


def make_private(folder: Path) -> None:
    """Let only their owner read our files in `folder`. Earlier versions followed the umask.

    Another server may use the folder, and remove files meanwhile.
    """
    for path in folder.iterdir():
        if path.name.startswith((*_OURS, RUN_PREFIX)) and not path.is_symlink():
            _close_to_others(path)
            for home, folders, files in os.walk(path):  # skips what is gone; `rglob` raises
                for name in (*folders, *files):
                    _close_to_others(Path(home, name))
    if not folder.stat().st_mode & stat.S_ISVTX:  # a folder for everybody, such as /tmp
        _close_to_others(folder)


def _close_to_others(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & _OTHERS and not path.is_symlink():
            path.chmod(mode & ~_OTHERS)
