"""What clients see when a server is stopped with SIGTERM while it works, and after it starts again.

    python -m benchmarks.rolling [--grace 5]

The engine is a test double that takes as many seconds per chunk as the prompt says. The recordings
are one chunk long. SIGTERM comes two seconds after the last client has begun. "soon" needs less
than the grace period from then on, "late" needs more.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asr.service import serve
from asr.settings import Settings
from benchmarks.measure import save
from benchmarks.neighbours import RAW, ROUTE, recording
from benchmarks.pipeline import InstantEngine
from benchmarks.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asr.config import DecodeOptions
    from asr.engines.base import Engine
    from asr.types import Audio, Chunk, Hypothesis

BEFORE_SECONDS: Final = 2.0
SOON: Final = 4.0
PIECE: Final = 8_000
SLOW: Final = 0.25
"""Seconds between two pieces of a slow upload."""
TUS: Final = {"Tus-Resumable": "1.0.0"}


class PromptedEngine(InstantEngine):
    """Waits as long as the prompt says."""

    slots = 64

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Wait, then invent words."""
        await asyncio.sleep(float(options.prompt or 0))
        return await super().transcribe(chunk, audio, options)


def make_engine(_: Settings) -> Engine:
    """The engine of the service."""
    return PromptedEngine()


class Stop:
    """When SIGTERM was sent."""

    def __init__(self) -> None:
        self.at = 0.0
        self.sent = asyncio.Event()

    def after(self) -> float:
        """Seconds since then."""
        return time.perf_counter() - self.at


def told(answer: httpx.Response) -> str:
    """Status and code of an answer."""
    if answer.is_success:
        return str(answer.status_code)
    retry = answer.headers.get("Retry-After")
    code = answer.json()["error"]["code"]
    return f"{answer.status_code} {code}" + (f", Retry-After {retry}" if retry else "")


async def request(http: httpx.AsyncClient, seconds: float) -> str:
    """A synchronous request."""
    query = {"prompt": str(seconds)}
    body = recording(5.0, round(seconds * 10))
    return told(await http.post(ROUTE, params=query, content=body, headers=RAW))


async def stream(http: httpx.AsyncClient, seconds: float) -> str:
    """A stream of segments; its last event."""
    query = {"prompt": str(seconds), "stream": "true"}
    body = recording(5.0, round(seconds * 10) + 1)
    last = "nothing"
    async with http.stream("POST", ROUTE, params=query, content=body, headers=RAW) as answer:
        if not answer.is_success:
            await answer.aread()
            return told(answer)
        async for line in answer.aiter_lines():
            last = line if line.startswith("data:") else last
    event: dict[str, Any] = json.loads(last[5:]) if last.startswith("data: {") else {"type": last}
    return str(event.get("type") or event["error"]["code"])


async def slowly(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    """A body that takes this long to send."""
    n_pieces = max(1, round(seconds / SLOW))
    size = -(-len(body) // n_pieces)
    for begin in range(0, len(body), size):
        yield body[begin : begin + size]
        await asyncio.sleep(SLOW)


async def slow_body(http: httpx.AsyncClient, seconds: float) -> str:
    """A synchronous request whose body takes this long."""
    body = recording(5.0, round(seconds * 10) + 2)
    return told(await http.post(ROUTE, content=slowly(body, seconds), headers=RAW))


async def idle(http: httpx.AsyncClient, stop: Stop) -> str:
    """A request over a connection that was idle when SIGTERM came."""
    await http.get("/health")
    await stop.sent.wait()
    await asyncio.sleep(1)
    return told(await http.get("/health"))


async def live(url: str) -> str:
    """A live session with half a second of a turn; its events after SIGTERM."""
    seen: list[str] = []
    async with connect(url.replace("http", "ws") + "/v1/realtime?intent=transcription") as socket:
        audio = base64.b64encode(recording(3.0)[44:]).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        try:
            async for message in socket:
                event = json.loads(message)
                error = (event.get("error") or {}).get("code", "")
                seen.append(f"{event['type'].rpartition('.')[2]} {error}".strip())
        except ConnectionClosed:
            pass
        return f"{', '.join(seen[-3:])}; closed with {socket.close_code}"


async def followed(http: httpx.AsyncClient, job: str) -> str:
    """The event stream of a job."""
    last = "nothing"
    async with http.stream("GET", f"/v1/jobs/{job}/events") as answer:
        async for line in answer.aiter_lines():
            last = line if line.startswith("event:") else last
    return f"ended after {last}"


async def measure(url: str, process: int, late: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Begin everything, send SIGTERM, and collect what the clients see."""
    stop = Stop()
    rows: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        query = {"prompt": str(late)}
        made = await http.post("/v1/jobs", params=query, content=recording(5.0, 3), headers=RAW)
        upload = await resumable(http)
        later = made.json()["id"]
        actions: dict[str, Callable[[], Awaitable[str]]] = {
            "request, soon": lambda: request(http, SOON),
            "request, late": lambda: request(http, late),
            "stream, soon": lambda: stream(http, SOON),
            "stream, late": lambda: stream(http, late),
            "body still arriving, soon": lambda: slow_body(http, SOON),
            "body still arriving, late": lambda: slow_body(http, late),
            "upload (tus)": lambda: patch(http, upload, late),
            "events of a job": lambda: followed(http, later),
            "live session": lambda: live(url),
            "idle connection": lambda: idle(http, stop),
        }

        async def note(name: str, action: Callable[[], Awaitable[str]]) -> None:
            try:
                outcome = await action()
            except (httpx.HTTPError, OSError) as error:
                outcome = f"{type(error).__name__}: {error}"
            rows[name] = {"seen": outcome, "seconds_after": round(stop.after(), 1)}

        work = asyncio.gather(*(note(*item) for item in actions.items()))
        await asyncio.sleep(BEFORE_SECONDS)
        stop.at = time.perf_counter()
        os.kill(process, signal.SIGTERM)
        stop.sent.set()
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=url) as other:
            await note("new connection", lambda: request(other, 0))
        await work
    return rows, {"job": later, "upload": upload}


async def resumable(http: httpx.AsyncClient) -> str:
    """Create an upload of 10 s of audio; its path."""
    length = {"Upload-Length": str(len(recording(10.0)))}
    made = await http.post("/v1/uploads", headers=TUS | length)
    return httpx.URL(made.headers["Location"]).path


async def patch(http: httpx.AsyncClient, path: str, seconds: float) -> str:
    """Send the upload slowly."""
    headers = TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    answer = await http.patch(path, content=slowly(recording(10.0), seconds), headers=headers)
    return told(answer)


async def afterwards(url: str, left: dict[str, str]) -> dict[str, str]:
    """What became of the job and the upload, at a new server with the same data."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        offset = int((await http.head(left["upload"], headers=TUS)).headers["Upload-Offset"])
        rest = recording(10.0)[offset:]
        headers = TUS | {"Upload-Offset": str(offset)}
        headers["Content-Type"] = "application/offset+octet-stream"
        done = await http.patch(left["upload"], content=rest, headers=headers)
        state = ""
        while state not in {"succeeded", "failed"}:
            state = (await http.get(f"/v1/jobs/{left['job']}")).json()["state"]
            await asyncio.sleep(0.1)
    resumed = f"continued at byte {offset}: {done.status_code}"
    return {"upload": resumed, "job": state}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--grace", type=float, default=5.0, help="ASR_SHUTDOWN_GRACE")
    options = parser.parse_args()
    if options.serve:
        serve(Settings.from_env(), make_engine)
        return
    with tempfile.TemporaryDirectory() as name:
        env = {"ASR_WORK_DIR": name, "ASR_DATA_DIR": f"{name}/data", "ASR_ALIGNER": "none"}
        env |= {"ASR_SHUTDOWN_GRACE": str(options.grace), "ASR_LOG_LEVEL": "error"}
        command = ["-m", "benchmarks.rolling", "--serve"]
        with serving(command, env, 300.0) as (url, process):
            late = options.grace + BEFORE_SECONDS + 3
            rows, left = asyncio.run(measure(url, process, late))
        with serving(command, env, 300.0) as (url, _):
            after = asyncio.run(afterwards(url, left))
    for row, value in rows.items():
        print(f"{row:<28}{value['seconds_after']:>6} s  {value['seen']}")
    print(after)
    save("rolling", [{"client": row, **value} for row, value in rows.items()])


if __name__ == "__main__":
    main()
