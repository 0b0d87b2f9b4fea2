"""Shared by the benchmarks: peak memory of processes, a description of the machine, results."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

RESULTS = Path(__file__).resolve().parent / "results"
POLL_SECONDS = 0.02


class PeakMemory:
    """Largest resident set of this process and of each descendant, in MB (10**6 bytes).

    The kernel keeps the peak of each process (VmHWM). It is read every 20 ms, to catch short-lived
    children. Pages that a child shares with its parent count in both.
    """

    def __init__(self) -> None:
        self._peaks: dict[tuple[int, str], int] = {}
        self._stop = threading.Event()

    @property
    def largest(self) -> float:
        """The largest peak of all processes, in MB."""
        return max(self._peaks.values(), default=0) / 1e6

    @property
    def by_role(self) -> dict[str, float]:
        """The peak of the main process and the largest peak of its helpers, in MB."""
        roles: dict[str, float] = {}
        for (_, role), peak in self._peaks.items():
            roles[role] = max(roles.get(role, 0.0), peak / 1e6)
        return roles

    @contextlib.contextmanager
    def watch(self) -> Generator[PeakMemory]:
        """Measure while the block runs."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
        thread = threading.Thread(target=self._poll, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for pid in family(os.getpid()):
                role = "main" if pid == os.getpid() else "helper"
                with contextlib.suppress(OSError):
                    peak = _peak_bytes(pid)
                    self._peaks[pid, role] = max(self._peaks.get((pid, role), 0), peak)


def family(root: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    family = [root]
    for pid in family:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text("ascii").split())
    return family


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def machine() -> dict[str, Any]:
    """Describe the machine and the commit."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": git.stdout.strip() or None,
    }


def start_with_one_thread(module: str) -> None:
    """Restart a module with one thread in numpy, as in the service's child processes.

    numpy reads the setting at import. With several threads, CPU seconds would include threads that
    wait for each other.
    """
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def save(name: str, rows: list[dict[str, Any]], more: dict[str, Any] | None = None) -> None:
    """Print the rows as a Markdown table, and write them with a description of the machine."""
    RESULTS.mkdir(exist_ok=True)
    body = {"machine": machine(), **(more or {}), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    print(f"| {' | '.join(rows[0])} |")
    print(f"|{' --- |' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row.values())} |")
