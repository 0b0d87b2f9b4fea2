"""A temporary folder of one worker, which others remove if the worker was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "asr-batch-"
NEW: Final = "asr-new-"
MARK: Final = ".asr-batch-worker"
"""A file in each such folder. Without it a folder may be the user's, whatever its name."""


class Scratch:
    """A folder with a lock that ends with the process.

    Args:
        parent: where the folder is made. Folders of dead workers there are removed.
    """

    def __init__(self, parent: Path) -> None:
        made = Path(tempfile.mkdtemp(prefix=NEW, dir=parent))
        self._descriptor = os.open(made, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        (made / MARK).touch()
        # It gets its name when it is locked, so nobody takes it for abandoned.
        self.path = made.rename(parent / f"{PREFIX}{made.name.removeprefix(NEW)}")
        for other in parent.glob(f"{PREFIX}*"):
            if other != self.path and (other / MARK).is_file():
                _remove_abandoned(other)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder unless its owner lives."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(descriptor)
