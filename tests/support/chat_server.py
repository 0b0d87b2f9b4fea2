"""Stand-ins for vLLM: one on a real socket, and one for httpx's mock transport.

They test the protocol, not the quality of the answers. The one on a socket runs in the event loop
of the test, so that the test can inspect it at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from asr.config import DecodeOptions
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.types import SAMPLE_RATE, Audio, Chunk

if TYPE_CHECKING:
    import ssl

URL = "http://vllm:8000"
AUDIO = Audio(np.linspace(-0.5, 0.5, 2 * SAMPLE_RATE, dtype=np.float32))
CHUNK = Chunk(3, 0, 2 * SAMPLE_RATE)


def completion(text: str, finish: str = "stop", **choice: object) -> dict:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": finish, **choice}]}


def ok(text: str = "at last", **choice: Any) -> httpx.Response:
    """A response 200 with a chat completion."""
    return httpx.Response(200, json=completion(text, **choice))


class Vllm:
    """For httpx's mock transport: /v1/models, /health, and chat completions from a queue."""

    def __init__(self, *answers: httpx.Response | Exception, model: str = "nvidia/omni") -> None:
        self.answers = list(answers)
        self.model = model
        self.requests: list[httpx.Request] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": self.model}]})
        if request.url.path != "/v1/chat/completions":
            return httpx.Response(200)
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class ChatServer:
    """Answers chat completions with its own name, `delay` seconds later.

    Attributes:
        port: stays the same after a restart.
        in_flight: number of chat completions in progress.
        served: number of chat completions that were answered.
        aborted: number of clients that disconnected before their answer.
        connections: number of connections that were opened.
        answers: (status, headers, body) of the next answers; when empty, it answers normally.
        healthy: whether ``/health`` answers 200 or 503.
        gate: answers wait until it is set; it is set at first.
        model: the one that ``/v1/models`` lists; with None that route answers 404.
    """

    def __init__(self, name: str = "one", delay: float = 0.0, tls: ssl.SSLContext | None = None):
        self.name = name
        self.delay = delay
        self.port = 0
        self.in_flight = self.served = self.aborted = self.connections = self.most = 0
        self.answers: list[tuple[int, dict[str, str], object]] = []
        self.headers: list[dict[str, str]] = []
        self.healthy = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.model = "nvidia/omni"
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Stop like a killed process: connections are reset, new ones are refused."""
        self._server.close()
        self.reset_connections()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset_connections(self) -> None:
        """Reset every open connection; new ones are still accepted."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> ChatServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        try:
            while request := await self._read(reader):
                status, headers, body = await self._answer(*request, reader)
                data = json.dumps(body).encode()
                lines = [f"HTTP/1.1 {status} X", f"content-length: {len(data)}"]
                lines += [f"{key}: {value}" for key, value in headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
                await writer.drain()
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    async def _read(self, reader):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        lines = head.split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        return lines[0].split()[1], fields, body

    async def _answer(self, path, fields, body, reader):
        statuses = {"/health": 200 if self.healthy else 503, "/tokenize": 404}
        if path in statuses:
            return statuses[path], {}, {}
        if path == "/v1/models":
            if self.model is None:
                return 404, {}, {}
            return 200, {}, {"data": [{"id": self.model}]}
        self.headers.append(fields)
        if self.answers:
            return self.answers.pop(0)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self._work(reader)
        finally:
            self.in_flight -= 1
        self.served += 1
        return 200, {}, completion(f"hello from {self.name}")

    async def _work(self, reader) -> None:
        """Wait for the delay and the gate; stop at once when the client disconnects."""
        left = asyncio.create_task(reader.read(1))
        done = asyncio.create_task(self._finish())
        await asyncio.wait([left, done], return_when=asyncio.FIRST_COMPLETED)
        gone = left.done()
        for task in (left, done):
            task.cancel()
        await asyncio.gather(left, done, return_exceptions=True)
        if gone:
            self.aborted += 1
            raise ConnectionError

    async def _finish(self) -> None:
        await asyncio.sleep(self.delay)
        await self.gate.wait()


@contextlib.asynccontextmanager
async def running(engine: VllmHttpEngine):
    try:
        await engine.open()
        yield engine
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def pair(first_delay: float = 0.0, second_delay: float = 0.0):
    """Two servers and an engine that uses both."""
    async with (
        ChatServer("one", first_delay) as one,
        ChatServer("two", second_delay) as two,
        running(engine_at(one, two)) as engine,
    ):
        yield one, two, engine


def engine_at(*chat_servers: ChatServer, **options: Any) -> VllmHttpEngine:
    return VllmHttpEngine(VllmOptions(tuple(it.url for it in chat_servers), **options))


async def ask(engine: VllmHttpEngine, audio: Audio = AUDIO) -> str:
    return (await engine.transcribe(CHUNK, audio, DecodeOptions())).text
