"""Files and folders: writing in threads, locks, temporary folders, flushing to disk."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import BinaryIO

P = ParamSpec("P")
T = TypeVar("T")

RUN_PREFIX = "asr-serve-"


async def finished_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread and wait until it ends, even if the caller is cancelled.

    A thread cannot be stopped. Without the wait it could write to a file that the caller closed.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
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
    server holds a lock on its folder, so folders without a lock belong to dead servers.
    """
    for left in parent.glob(f"{RUN_PREFIX}*"):
        with contextlib.suppress(OSError), locked_folder(left, wait=False):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=parent))
    try:
        with locked_folder(folder, wait=False):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
