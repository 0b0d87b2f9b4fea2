"""A folder for the files of one piece of work, which are gone when the work is."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from typing import TYPE_CHECKING

from asr.service.http.body import finished_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@contextlib.asynccontextmanager
async def temporary_folder(parent: Path) -> AsyncGenerator[Path]:
    """Make a folder, and remove it behind the block.

    Also for who is cancelled meanwhile: a thread that has not begun would be cancelled with them,
    and the recording would stay until the service ends.
    """
    folder = parent / uuid.uuid4().hex
    try:
        await finished_in_thread(folder.mkdir, mode=0o700)
        yield folder
    finally:
        await finished_in_thread(shutil.rmtree, folder, ignore_errors=True)
