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
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from typing import BinaryIO

P = ParamSpec("P")
T = TypeVar("T")

RUN_PREFIX = "asr-serve-"


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

    Each step runs in a thread, and a cancelled block waits until the thread ends. Otherwise a
    cancellation could stop the removal before its thread starts. The recording would then stay on
    disk until the service ends.
    """
    folder = parent / uuid.uuid4().hex
    try:
        await finished_in_thread(folder.mkdir, mode=0o700)
        yield folder
    finally:
        await finished_in_thread(shutil.rmtree, folder, ignore_errors=True)


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
