"""The demo: start the service, send it a recording, show the SRT and the word times, stop it.

Uses only the standard library, as a client in any language would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "meeting.wav"
READY_SECONDS = 120.0
STOP_SECONDS = 15.0


def main() -> None:
    """Run the demo; exit with an error if no words were recognised."""
    with service() as url:
        print(f"\nPOST {SAMPLE.relative_to(ROOT)} as response_format=srt\n")
        print(post(url, "srt").strip())
        transcript = json.loads(post(url, "full_json"))
        words = [word for segment in transcript["segments"] for word in segment["words"]]
        print(f"\nEvery word has its time; {len(words)} of them, the first ten:\n")
        print("     start       end  confidence  timing        word")
        for word in words[:10]:
            line = f"{word['start']:10.3f}{word['end']:10.3f}{word['confidence']:12.2f}"
            print(f"{line}  {word['timing']:<12}  {word['text']}")
        print(f"\nengine: {transcript['engine']}")
        if not words:
            sys.exit("the demo heard nothing")
    print("the service has stopped")


@contextlib.contextmanager
def service() -> Generator[str]:
    """The service on a free port, ended by SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = {**os.environ, "ASR_PORT": str(port), "ASR_LOG_LEVEL": "warning"}
    print(f"starting server.py on {url}")
    process = subprocess.Popen([sys.executable, ROOT / "server.py"], env=env, cwd=ROOT)
    try:
        wait_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the engine is loaded."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"server.py ended with exit code {process.returncode}")
        not_yet = contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError)
        with not_yet, urllib.request.urlopen(f"{url}/ready", timeout=5):
            return
        time.sleep(0.2)
    sys.exit("the service did not become ready")


def post(url: str, response_format: str) -> str:
    """Send the sample as a raw body; curl -F or OpenAI's client work as well."""
    request = urllib.request.Request(
        f"{url}/v1/audio/transcriptions?response_format={response_format}",
        data=SAMPLE.read_bytes(),
        headers={"Content-Type": "audio/wav"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
