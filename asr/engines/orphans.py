"""Ends processes that a library started, when the process that used the library is killed.

vLLM's processes notice neither that who started them is gone nor that nobody asks them any more,
and keep the memory of the GPU. So a small process keeps watch: it holds the reading end of a pipe
that closes when its owner ends, however that ends. What the owner started while `watching` is
known by a variable in its environment, whoever its parent is by then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

MARK: Final = "ASR_OWNER_OF_THIS_PROCESS"
GRACE_SECONDS: Final = 2.0
"""Between SIGTERM, on which vLLM frees what it shares, and SIGKILL."""
POLL_SECONDS: Final = 0.05


class Keeper:
    """The process that keeps watch. One for each set of processes."""

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and file
            [
                sys.executable,
                "-I",
                "-S",
                __file__,
                self._token,
            ],  # small: it imports nothing of ours
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for its owner
        )

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Processes that are started in this block belong to the keeper."""
        before = os.environ.get(MARK)
        os.environ[MARK] = self._token
        try:
            yield
        finally:
            if before is None:
                del os.environ[MARK]
            else:
                os.environ[MARK] = before

    def kill(self) -> None:
        """End them now, those that have not ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def marked(token: str) -> list[int]:
    """Living processes with this mark, ourselves excepted."""
    wanted = f"{MARK}={token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                is_alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if is_alive and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(token: str) -> None:
    """Ask processes with this mark to end, and kill those that do not."""
    deadline = time.monotonic() + GRACE_SECONDS
    _signal(marked(token), signal.SIGTERM)
    while (left := marked(token)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    while left:
        _signal(left, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
        left = marked(token)


def _signal(processes: list[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # whoever ends all of a service wants this done first
    sys.stdin.buffer.read()
    end(sys.argv[1])
