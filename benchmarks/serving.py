"""Start the service in its own processes, for benchmarks of the whole service."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    command: Sequence[str], settings: Mapping[str, str], ready_seconds: float = READY_SECONDS
) -> Generator[tuple[str, int]]:
    """The service on a free port, ready; its address and the id of its main process.

    Args:
        command: arguments of ``python``.
        settings: environment variables.
        ready_seconds: how long the service may take to be ready.
    """
    port = free_port()
    env = {**os.environ, **settings, "ASR_PORT": str(port)}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, time.monotonic() + ready_seconds)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def _wait_ready(url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/ready").is_success:
                return
        time.sleep(0.2)
    raise SystemExit("the service did not become ready")
