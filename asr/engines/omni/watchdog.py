"""When the process that uses vLLM is killed, end the processes that vLLM started.

vLLM's processes do not notice the death of their parent, and keep the GPU's memory. The watchdog is
a small process that ends them. It holds the reading end of a pipe, which closes when its owner ends
for any reason. After the owner's death the kernel cannot list its descendants, so the watchdog
lists them every half second while the owner lives. An environment variable could not mark vLLM's
processes: they set their titles, and on Linux a title overwrites the environment.

This file runs as a script in the watchdog process, so it imports only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOK_SECONDS: Final = 0.5
"""Time between two listings of the descendants."""
GRACE_SECONDS: Final = 2.0
"""Time between SIGTERM and SIGKILL. On SIGTERM vLLM frees its shared memory."""
POLL_SECONDS: Final = 0.05


class Watchdog:
    """A small process that ends our descendants when we are killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and file
            [
                sys.executable,
                "-I",
                "-S",
                __file__,
                str(os.getpid()),
            ],  # without site-packages, to stay small
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must reach only the owner
        )

    def dismiss(self) -> None:
        """End the watchdog and leave the descendants alone."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(b"dismissed")


class Process(NamedTuple):
    """A process id with its start time, because the kernel reuses ids."""

    pid: int
    began: str


def living(pid: int) -> Process | None:
    """Return the process with this id, or None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, fields[19])


def descendants(pid: int) -> set[Process]:
    """Return the living children of a process, their children, and so on."""
    found: set[Process] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text("utf-8").split()):
                process = living(child)
                found |= {process} if process else set()
                found |= descendants(child)
    return found


def watch(owner: int) -> None:
    """Wait until the owner ends, then end its descendants."""
    known: set[Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        known = {it for it in known | descendants(owner) if living(it.pid) == it}
    if sys.stdin.buffer.read():
        return  # the owner dismissed us
    for process in list(known):
        known |= descendants(process.pid)
    end(it for it in known if it.pid != os.getpid())


def end(processes: Iterable[Process]) -> None:
    """Send SIGTERM, and SIGKILL to those that still run after `GRACE_SECONDS`."""
    left = list(processes)
    _signal(left, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while left:
        time.sleep(POLL_SECONDS)
        left = [it for it in left if living(it.pid) == it]
        if time.monotonic() > deadline:
            _signal(left, signal.SIGKILL)


def _signal(processes: Iterable[Process], number: int) -> None:
    for process in processes:
        if living(process.pid) == process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, signal.SIG_IGN
        )  # a signal to the whole service must not stop the cleanup
    watch(int(sys.argv[1]))
