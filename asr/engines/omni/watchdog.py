"""Ends the processes that a library started, when the process that used the library is killed.

vLLM's processes do not notice that who started them is gone, and keep the memory of the GPU. So a
small process keeps watch. It notes which processes descend from its owner while the owner lives,
since nothing tells it afterwards, and holds the reading end of a pipe that closes when the owner
ends, however that ends. A mark in their environment would not do: vLLM's processes give themselves
titles, which on Linux are written over it.
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
GRACE_SECONDS: Final = 2.0
"""Between SIGTERM, on which vLLM frees what it shares, and SIGKILL."""
POLL_SECONDS: Final = 0.05


class Keeper:
    """The process that keeps watch over what this one starts."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and file
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],  # small: nothing is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for its owner
        )

    def dismiss(self) -> None:
        """End the watch, and nothing else."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(b"dismissed")


class Process(NamedTuple):
    """A process and when it began, since numbers are used again."""

    pid: int
    began: str


def living(pid: int) -> Process | None:
    """The process with this number, unless it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, fields[19])


def descendants(pid: int) -> set[Process]:
    """The living children of a process, their children, and so on."""
    found: set[Process] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text("utf-8").split()):
                process = living(child)
                found |= {process} if process else set()
                found |= descendants(child)
    return found


def watch(owner: int) -> None:
    """Wait for the end of the owner, and then end what descends from it."""
    known: set[Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        known = {it for it in known | descendants(owner) if living(it.pid) == it}
    if sys.stdin.buffer.read():
        return  # dismissed
    for process in list(known):
        known |= descendants(process.pid)
    end(it for it in known if it.pid != os.getpid())


def end(processes: Iterable[Process]) -> None:
    """Ask them to end, and kill those that do not."""
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
        signal.signal(number, signal.SIG_IGN)  # whoever ends all of a service wants this done first
    watch(int(sys.argv[1]))
