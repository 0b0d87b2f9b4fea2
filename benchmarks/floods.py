"""Floods by one client: the latency of another client's requests, and the memory of the server.

The service runs in its own processes, with an engine that answers at once (a test double) and two
API keys. While one process floods the service, another client transcribes a short file five times a
second with the other key. A flood ends after `--seconds`.

    quiet      no flood
    silent     300 connections that send nothing
    heads      300 connections that send a byte of a request head per second
    upgrades   200 WebSocket handshakes with a header of 9 KB, without a key
    pipelines  20 connections that send thousands of small requests at once, without a key
    headers    20 connections that send requests with 10,000 headers, without a key
    fields     4 connections that send JSON bodies of 4 MB with 300,000 fields
    query      4 connections that send queries of 60 KB with 12,000 fields
    events     4 live sessions that send session.update with lists of 2,000,000 items
    live       12 live sessions that send three messages of 20 MB each, again and again
    fragments  12 live sessions that send messages in fragments of one byte

    python -m benchmarks.floods [FLOOD ...] [--seconds 10]

`open after 40 s` is the number of the flood's sockets that the server has not closed 40 s after the
flood began, for the floods that only wait.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from asr.service import serve
from asr.settings import Settings
from benchmarks.load import SAMPLE, make_engine
from benchmarks.measure import family, save
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTE: Final = "/v1/audio/transcriptions"
PERIOD: Final = 0.2
WAITING_SECONDS: Final = 40.0
KEY: Final = b"X-API-Key: attacker\r\n"
UPGRADE: Final = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
Address = tuple[str, int]


def frame(data: bytes, head: int = 0x81) -> bytes:
    """One WebSocket frame with a mask of zeros."""
    n = len(data)
    if n < 126:
        length = bytes([0x80 | n])
    elif n < 1 << 16:
        length = b"\xfe" + n.to_bytes(2, "big")
    else:
        length = b"\xff" + n.to_bytes(8, "big")
    return bytes([head]) + length + bytes(4) + data


def post(path: str, body: bytes, kind: str) -> bytes:
    """A request of the attacker."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode()
    return head + KEY + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def many_fields() -> bytes:
    """A body of 300,000 fields."""
    fields = {f"f{n:06}": "" for n in range(300_000)}
    body = json.dumps(fields, separators=(",", ":")).encode()[: 4 << 20]
    return post(ROUTE, body[: body.rfind(b",")] + b"}", "application/json")


def long_query() -> bytes:
    """A query of 12,000 fields."""
    query = "&".join(f"{n:x}" for n in range(12_000))[:60_000]
    return post(f"{ROUTE}?{query}", b"x", "audio/wav")


def long_list() -> bytes:
    """A session.update with 2,000,000 numbers."""
    session = f'{{"type": "transcription", "x": [{",".join("1" * 2_000_000)}]}}'
    return frame(f'{{"type": "session.update", "session": {session}}}'.encode())


def large_audio() -> bytes:
    """15 MiB of audio in one message."""
    audio = base64.b64encode(bytes(15 << 20)).decode()
    return frame(json.dumps({"type": "input_audio_buffer.append", "audio": audio}).encode())


PAYLOADS: Final[dict[str, Callable[[], bytes]]] = {
    "pipelines": lambda: b"GET /v1/models HTTP/1.1\r\n\r\n" * 10_000,
    "headers": lambda: b"GET /health HTTP/1.1\r\n" + b"a:b\r\n" * 10_000 + b"\r\n",
    "fields": many_fields,
    "query": long_query,
    "events": long_list,
    "live": large_audio,
    "fragments": lambda: frame(b"{", 0x01) + frame(b" ", 0x00) * 100_000,
}
"""What each connection sends again and again."""
SOCKETS: Final = {"pipelines": 20, "headers": 20, "fields": 4, "query": 4, "events": 4}
LIVE: Final = ("events", "live", "fragments")
WAITING: Final = {"silent": 300, "heads": 300, "upgrades": 200}
FLOODS: Final = ("quiet", *WAITING, *SOCKETS, "live", "fragments")


def opened(address: Address, flood: str) -> socket.socket:
    """A connection, after the handshake if the flood is one of live sessions."""
    connection = socket.create_connection(address, timeout=30)
    if flood in LIVE:
        connection.sendall(UPGRADE + KEY + b"\r\n")
        connection.recv(4096)
    return connection


def read_away(connection: socket.socket) -> None:
    """Read all answers, so that they do not stop the flood."""
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            pass


def send_again_and_again(address: Address, flood: str, data: bytes, until: float) -> None:
    """Flood on one connection at a time."""
    while time.monotonic() < until:
        try:
            with opened(address, flood) as connection:
                reader = threading.Thread(target=read_away, args=(connection,), daemon=True)
                reader.start()
                while time.monotonic() < until:
                    connection.sendall(data)
                    if flood in ("fields", "query"):
                        time.sleep(0.05)
        except OSError:
            time.sleep(0.1)


def wait_with_many(address: Address, flood: str, until: float) -> int:
    """Hold connections that never send a whole request; returns how many the server left open."""
    sockets = [socket.create_connection(address, timeout=30) for _ in range(WAITING[flood])]
    started = time.monotonic()
    for connection in sockets:
        if flood == "heads":
            connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        elif flood == "upgrades":
            connection.sendall(UPGRADE + b"X: " + b"x" * 9000 + b"\r\n\r\n")
    while time.monotonic() < max(until, started + WAITING_SECONDS):
        for connection in sockets if flood == "heads" else ():
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
        time.sleep(1)
    return sum(is_open(connection) for connection in sockets)


def is_open(connection: socket.socket) -> bool:
    """Whether the server has left a connection open."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def attack(address: Address, flood: str, seconds: float) -> None:
    """Flood the service, and print the number of sockets that it left open."""
    until = time.monotonic() + seconds
    if flood in WAITING:
        print(wait_with_many(address, flood, until))
        return
    data, n_sockets = PAYLOADS[flood](), SOCKETS.get(flood, 12)
    threads = [
        threading.Thread(target=send_again_and_again, args=(address, flood, data, until))
        for _ in range(n_sockets)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(0)


class Victim:
    """A client that transcribes a short file at a fixed rate, and measures latency and memory."""

    def __init__(self, url: str, root: int) -> None:
        self.latencies: list[float] = []
        self.failures = 0
        self.peak = 0.0
        self._url = url
        self._root = root
        self._wav = SAMPLE.read_bytes()[: 44 + 32_000]

    def run(self, is_over: Callable[[], bool]) -> None:
        """Send requests until `is_over` returns true."""
        memory = threading.Thread(target=self._watch_memory, args=(is_over,))
        memory.start()
        with httpx.Client(base_url=self._url, headers={"x-api-key": "victim"}, timeout=60) as http:
            while not is_over():
                started = time.perf_counter()
                self.failures += not self._transcribe(http)
                self.latencies.append(time.perf_counter() - started)
                time.sleep(max(0.0, PERIOD - (time.perf_counter() - started)))
        memory.join()

    def _transcribe(self, http: httpx.Client) -> bool:
        try:
            return http.post(ROUTE, files={"file": ("a.wav", self._wav)}).is_success
        except httpx.HTTPError:
            return False

    def _watch_memory(self, is_over: Callable[[], bool]) -> None:
        """Note the largest resident set of the API process, which has the sockets."""
        while not is_over():
            self.peak = max(self.peak, *(resident(pid) for pid in family(self._root)))
            time.sleep(0.02)


def resident(pid: int) -> float:
    """The resident set of a process in MB."""
    with contextlib.suppress(OSError):
        n_pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        return n_pages * os.sysconf("SC_PAGESIZE") / 1e6
    return 0.0


def keys() -> str:
    """The key file: one key floods, the other measures."""
    names = ("attacker", "victim")
    rows = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]
    return "\n".join(json.dumps(row) for row in rows)


def measure(flood: str, seconds: float) -> dict[str, Any]:
    """Run one flood against a new service."""
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as folder:
        settings = {"ASR_DATA_DIR": folder, "ASR_LOG_LEVEL": "error", "ASR_API_KEYS": keys()}
        with serving(["-m", __spec__.name, "--serve"], settings) as (url, root):
            host, port = url.removeprefix("http://").split(":")
            command = [sys.executable, "-m", __spec__.name, "--attack", flood, host, port]
            victim, until = Victim(url, root), time.monotonic() + seconds
            if flood == "quiet":
                victim.run(lambda: time.monotonic() > until)
                left = ""
            else:
                process = subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE)
                victim.run(lambda: process.poll() is not None)
                left = process.communicate()[0].decode().strip()
    latencies = sorted(victim.latencies)
    return {
        "flood": flood,
        "requests": len(latencies),
        "failures": victim.failures,
        "p50 ms": round(1000 * latencies[len(latencies) // 2]),
        "p95 ms": round(1000 * latencies[int(0.95 * len(latencies))]),
        "max ms": round(1000 * latencies[-1]),
        "peak MB": round(victim.peak),
        "open after 40 s": left if flood in WAITING else "",
    }


def main() -> None:
    """Measure, or be the service or the attacker."""
    if "--serve" in sys.argv:
        serve(Settings.from_env(), make_engine)
        return
    if "--attack" in sys.argv:
        flood, host, port, seconds = sys.argv[2:]
        attack((host, int(port)), flood, float(seconds))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floods", nargs="*", default=FLOODS, metavar="FLOOD")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    save("floods", [measure(flood, options.seconds) for flood in options.floods])


if __name__ == "__main__":
    main()
