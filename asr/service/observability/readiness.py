"""Whether the service can work: its disks, its descriptors, its database.

Anyone may ask ``GET /ready``, so an answer is used for `CACHE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asr.errors import StoreUnavailable
from asr.service.faults import errno_of, explain
from asr.service.files import restore_run_directory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

CACHE_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 3.0
PROBE_BYTES: Final = 256 << 10
"""A disk with less space counts as full."""
PROBE_DESCRIPTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What is wrong, as text for people without paths or addresses; empty if nothing is.

    Attributes:
        service: why the service can do no work.
        jobs: why it can do no jobs. Synchronous requests need no database.
    """

    service: str = ""
    jobs: str = ""


class Readiness:
    """Finds the reason why the service cannot work.

    Args:
        folders: run directories, to which the service writes.
        ask_jobs: raises `StoreUnavailable` if the database is unavailable, and `OSError` if no
            recording of a job can be stored.

    Attributes:
        is_ending: whether the server is about to end.
    """

    def __init__(self, folders: Sequence[Path], ask_jobs: Callable[[], Awaitable[object]]) -> None:
        self._folders = folders
        self._ask_jobs = ask_jobs
        self.is_ending = False
        self._found = Obstacles()
        self._until = 0.0
        self._checking = asyncio.Lock()

    async def obstacles(self) -> Obstacles:
        """What is wrong now."""
        if self.is_ending:
            return Obstacles("the server is about to end")
        async with self._checking:
            if time.monotonic() >= self._until:
                self._found = Obstacles(await self._look(), await self._look_at_jobs())
                self._until = time.monotonic() + CACHE_SECONDS
            return self._found

    async def _look_at_jobs(self) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._ask_jobs()
        except TimeoutError:
            return "the database of jobs does not answer"
        except StoreUnavailable as error:
            return error.summary
        except OSError as error:
            return explain(error.errno or 0)[0]
        return ""

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await asyncio.to_thread(_check_descriptors)
                for folder in self._folders:
                    await asyncio.to_thread(_check_folder, folder)
        except TimeoutError:  # an OSError, too
            return "the disk does not answer"
        except (OSError, MemoryError, RuntimeError) as error:
            number = errno_of(error)
            if number is None:
                raise
            return explain(number)[0]
        return ""


def _check_folder(folder: Path) -> None:
    restore_run_directory(folder)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(b"x" * PROBE_BYTES)
        if os.fstat(file.fileno()).st_size < PROBE_BYTES:  # the disk took only a part
            file.write(b"x" * PROBE_BYTES)


def _check_descriptors() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(PROBE_DESCRIPTORS):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
