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
_OURS = ("uploads", "recordings", "voices", "jobs.db", "clock")
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


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that the names in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
"""Descriptors that hold the locks on restored folders, until this process ends."""


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
    earlier = _restored.get(folder)
    _restored[folder] = descriptor
    if earlier is not None:
        os.close(earlier)


@contextlib.contextmanager
def run_directory(parent: Path) -> Generator[Path]:
    """Make a folder for the files of requests, and remove it after the block.

    A server that was killed leaves its folder behind, and the next server removes it. Each running
    server holds a lock on its folder, so folders without a lock belong to dead servers. A folder
    gets its name after it is locked. Otherwise another server that starts could remove it.
    """
    for left in (*parent.glob(f"{RUN_PREFIX}*"), *parent.glob(f"{_DRAFT_PREFIX}*")):
        if left.name.startswith(RUN_PREFIX) or _is_old(left):
            with contextlib.suppress(OSError), locked_folder(left, wait=False):
                shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=parent))
    folder = draft.with_name(RUN_PREFIX + draft.name.removeprefix(_DRAFT_PREFIX))
    try:
        with locked_folder(draft, wait=False):
            draft.rename(folder)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_old(path: Path) -> bool:
    """Whether a draft was left by a server that died before it could lock it."""
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
