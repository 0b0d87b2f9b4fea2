"""Omni over HTTP: on vLLM servers, or on other servers with OpenAI's chat completions.

The server batches the requests in flight, so this engine does no batching. `slots` says how many
requests it wants in flight. If a task is cancelled, its connection closes, and vLLM aborts the
request.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from asr.config import check
from asr.counters import COUNTS
from asr.engines.omni import prompt as omni
from asr.engines.omni.connections import Connections
from asr.engines.omni.dialects import DIALECTS, read_answer, request_body, was_aborted
from asr.engines.omni.instruction import TEMPLATE, Question, ignored
from asr.engines.omni.servers import Servers
from asr.engines.omni.trained_form import builds_trained_prompt
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable

if TYPE_CHECKING:
    from asr.config import DecodeOptions
    from asr.engines.omni.servers import Server
    from asr.settings import AudioFormat, DialectName
    from asr.types import Audio, Chunk, Hypothesis

logger = logging.getLogger(__name__)

SLOTS_PER_SERVER: Final = 64
RETRIES: Final = 3
RETRIED_STATUSES: Final = frozenset({408, 409, 429})
"""These and all statuses from 500 on are retried. The same server would repeat any other 4xx."""
UNFIT_STATUSES: Final = frozenset({401, 403, 404})
"""The server rejects our key or has another model; the chunk is not the cause."""
FIRST_DELAY: Final = 0.5
MAX_RETRY_AFTER: Final = 120.0
ANSWER_BASE: Final = 60.0
ANSWER_PER_SECOND: Final = 4.0
"""How long to wait for one answer: seconds for any chunk, plus seconds per second of its audio."""
DEADLINE_ANSWERS: Final = 2.0
"""The deadline of a chunk with all its attempts, as a multiple of the wait for one answer."""
SLOW_REST_SECONDS: Final = 30.0
"""If a server does not answer in time and there are others, it gets no requests for this time."""
CONNECT_SECONDS: Final = 5.0
KEEP_ALIVE_SECONDS: Final = 1.0
"""uvicorn closes idle connections after 5 s, and a request that is sent at that moment fails. So we
close them earlier. This costs nothing under load, because then no connection is idle."""
ASK_AGAIN_SECONDS: Final = 30.0
"""A server that could not show how it builds a prompt is asked again after this time."""
BAD_REQUEST: Final = 400
MAX_MESSAGE: Final = 300
WRITERS: Final = 2
"""Threads that build requests. If hundreds of chunks begin together, more threads would only take
the interpreter lock from the thread that sends them."""


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Addresses and dialect of the servers. The fields are settings of the service."""

    urls: tuple[str, ...]
    model: str = ""
    api_key: str = field(default="", repr=False)
    ca_file: str = ""
    dialect: DialectName = "vllm"
    audio_format: AudioFormat = "wav"
    slots: int = 0
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        formats = DIALECTS[self.dialect].audio_formats
        message = f"{self.dialect} decodes {' and '.join(formats)} only"
        check(self.audio_format in formats, "vllm_audio_format", message)
        is_printable = self.api_key.isascii() and self.api_key.isprintable()
        check(is_printable, "vllm_api_key", "must be printable ASCII")


class VllmHttpEngine:
    """Nemotron-3-Nano-Omni behind ``/v1/chat/completions``.

    Args:
        options: the servers.
        transport: replaces the network, for tests.
    """

    language = "en"
    preferred_seconds: float | None = None
    guarded = True
    retry_note = omni.RETRY_NOTE
    capabilities = omni.CAPABILITIES

    def __init__(
        self, options: VllmOptions, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.slots = options.slots or SLOTS_PER_SERVER * len(options.urls)
        self.model = options.model or "omni"
        self.name = f"omni ({options.dialect}, model not yet known)"
        self._options = options
        self._dialect = DIALECTS[options.dialect]
        make_client = functools.partial(
            _make_client, options, _ssl_context(options.ca_file), transport
        )
        self._client = make_client()  # for health checks, which must not wait behind chunks
        self._connections = Connections(self.slots, make_client)
        self._question = Question(options.template)
        self._writers = ThreadPoolExecutor(WRITERS, "omni-requests")
        self._servers = Servers(
            options.urls, self._client, self._dialect.health, any_name=self._dialect.any_name
        )

    @property
    def obstacle(self) -> str:
        """Why no chunk can be recognised now; empty if one can."""
        is_up = any(server.alive for server in self._servers.all)
        return "" if is_up else f"no server answers at {self._servers}"

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Accept everything; warn about text that is not read in full."""
        return ignored(options, self._options.template)

    async def open(self) -> None:
        """Ask the servers for their models, and start the health checks."""
        answers = await asyncio.gather(*map(self._servers.models, self._servers.all))
        served = {it: ids for it, ids in zip(self._servers.all, answers, strict=True) if ids}
        if not served:
            raise EngineUnavailable(f"no server answers at {self._servers}")
        first = sorted({ids[0] for ids in served.values()})
        if len(first) > 1 and not self._options.model:
            names = ", ".join(first)
            raise EngineUnavailable(f"the servers differ ({names}): set ASR_VLLM_MODEL to one")
        self.model = self._options.model or first[0]
        self.name = f"omni ({self.model} on {self._options.dialect}{self._question.note})"
        self._servers.expect(self.model)
        for server, ids in served.items():
            self._servers.admit(server, ids)
        self._servers.watch()
        await asyncio.gather(*map(self._is_placed, served))

    async def _is_placed(self, server: Server) -> bool:
        """Whether the text for a server says where the audio goes.

        A server is asked once, and again after `ASK_AGAIN_SECONDS` if it could not tell.
        """
        if not self._dialect.shows_tokens:
            return False
        async with server.asking:
            now = asyncio.get_running_loop().time()
            if server.is_placed is None or now >= server.ask_again_at:
                found = await builds_trained_prompt(
                    self._client, server.url, self.model, self._dialect
                )
                server.is_placed = bool(found)
                server.ask_again_at = math.inf if found is not None else now + ASK_AGAIN_SECONDS
                known = [it.is_placed for it in self._servers.all if it.is_placed is not None]
                self._question = replace(self._question, is_placed=all(known))
            return server.is_placed

    async def _has_another_template(self, server: Server) -> bool:
        """Ask a server again that refused a text with the place of the audio."""
        if server.is_placed:  # otherwise another chunk was refused before, and asks or has asked
            server.is_placed = None
        return not await self._is_placed(server)

    @property
    def question_id(self) -> str:
        """Fingerprint of the text that the model gets; hypotheses of another one are not reused.

        Where servers differ, it is that of the text without the place of the audio.
        """
        return self._question.fingerprint

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk. The model gives no times, so the hypothesis has no words."""
        request = _Request(self, audio, options)
        await request.body(is_placed=self._question.is_placed)  # before a server is chosen
        patience = ANSWER_BASE + ANSWER_PER_SECOND * audio.duration
        try:
            async with asyncio.timeout(DEADLINE_ANSWERS * patience):
                answer = await self._ask(request, patience, chunk)
        except TimeoutError as error:
            COUNTS["requests_failed"] += 1
            message = f"no answer for the chunk at {chunk.start:.1f} s before its deadline"
            raise EngineTimeout(message) from error
        return read_answer(
            answer, chunk.index
        )  # faster here than in a thread that waits for the GIL

    async def retry(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk at a higher temperature."""
        return await self.transcribe(chunk, audio, omni.warmer(options))

    async def _write(self, audio: Audio, options: DecodeOptions, *, is_placed: bool) -> bytes:
        """Build the body of a request, in a thread."""
        question = replace(self._question, is_placed=is_placed)
        form = self._dialect, self._options.audio_format, question
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._writers, request_body, self.model, audio, options, *form
        )

    async def _ask(self, request: _Request, patience: float, chunk: Chunk) -> Any:
        """Send until a server answers. Errors that a retry cannot fix are raised at once."""
        failed: set[Server] = set()
        for attempt in range(RETRIES + 1):
            if attempt:
                COUNTS["requests_retried"] += 1
                await asyncio.sleep(_backoff(attempt))
            server = await self._servers.pick(avoid=failed)
            failed.add(server)
            try:
                return await self._ask_once(server, request, patience, chunk, failed)
            except _RetryableError as error:
                problem = f"{server.name}: {error}"
                logger.warning("chunk %d, attempt %d: %s", chunk.index, attempt + 1, problem)
        COUNTS["requests_failed"] += 1
        raise EngineUnavailable(f"no server answered; the last error was {problem}")

    async def _ask_once(
        self,
        server: Server,
        request: _Request,
        patience: float,
        chunk: Chunk,
        failed: set[Server],
    ) -> Any:
        with server.asked():
            is_placed = await self._is_placed(server)
            body = await request.body(is_placed=is_placed)
            answer = await self._post(server, body, patience)
        is_bad = is_placed and answer.status_code == BAD_REQUEST
        if is_bad and await self._has_another_template(server):
            raise _RetryableError("its chat template has changed")
        if not answer.is_success:
            return self._refused(server, answer, chunk, failed)
        said = _json(answer)
        if was_aborted(said):
            self._servers.check_now()  # it is probably shutting down
            raise _RetryableError("it aborted the answer")
        self._servers.answered(server)
        return said

    async def _post(self, server: Server, body: bytes, patience: float) -> httpx.Response:
        """Send a request.

        Raises:
            TimeoutError: the only server does not answer in time.
            _RetryableError: another attempt, perhaps at another server, may succeed.
        """
        timeout = httpx.Timeout(patience, connect=CONNECT_SECONDS, pool=None)
        try:
            return await self._connections.post(server.url + "/v1/chat/completions", body, timeout)
        except httpx.ReadTimeout as error:
            if len(self._servers.all) == 1:  # a retry would only add load
                raise TimeoutError from error
            server.rest(SLOW_REST_SECONDS)
            raise _RetryableError("no answer in time") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._servers.lost(server, type(error).__name__)
            raise _RetryableError(type(error).__name__) from error
        except httpx.RequestError as error:
            self._servers.check_now()
            raise _RetryableError(type(error).__name__) from error

    def _refused(
        self, server: Server, answer: httpx.Response, chunk: Chunk, failed: set[Server]
    ) -> Any:
        problem = f"status {answer.status_code}{_message(answer)}"
        if answer.status_code in RETRIED_STATUSES or answer.is_server_error:
            server.rest(_retry_after(answer))
            if answer.is_server_error:
                self._servers.check_now()
            raise _RetryableError(problem)
        others = any(other.alive and other not in failed for other in self._servers.all)
        if answer.status_code in UNFIT_STATUSES and others:
            self._servers.bar(server, problem)
            raise _RetryableError(problem)
        COUNTS["requests_failed"] += 1
        message = f"the server refused the chunk at {chunk.start:.1f} s: {problem}"
        raise EngineFailed(message, chunk.index)

    async def close(self) -> None:
        """Close the connections."""
        await self._servers.close()
        await self._connections.close()
        await self._client.aclose()
        self._writers.shutdown(wait=False)


class _Request:
    """The body of a request, in the form that a server wants."""

    def __init__(self, engine: VllmHttpEngine, audio: Audio, options: DecodeOptions) -> None:
        self._engine = engine
        self._audio = audio
        self._options = options
        self._is_placed: bool | None = None
        self._body = b""

    async def body(self, *, is_placed: bool) -> bytes:
        if is_placed != self._is_placed:
            self._body = await self._engine._write(self._audio, self._options, is_placed=is_placed)
            self._is_placed = is_placed
        return self._body


class _RetryableError(Exception):
    """An attempt that failed and may be repeated; the message says why."""


def _make_client(
    options: VllmOptions, trust: ssl.SSLContext, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    headers = {"content-type": "application/json"}
    if options.api_key:
        headers["authorization"] = f"Bearer {options.api_key}"
    # The slots bound the requests in flight, so the pool needs no limit of connections. Without TLS
    # each chunk has a connection of its own. vLLM's API processes share a port, and a connection
    # stays with the process that accepted it. So kept connections leave some processes idle, while
    # new ones go to a process that has time to accept them.
    kept = None if any(url.startswith("https") for url in options.urls) else 0
    limits = httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=KEEP_ALIVE_SECONDS)
    return httpx.AsyncClient(headers=headers, limits=limits, verify=trust, transport=transport)


def _ssl_context(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts the certificates in the file, or else httpx's defaults."""
    if not ca_file:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        check(False, "vllm_ca_file", f"{ca_file} holds no certificates: {error}")
        raise


def _backoff(attempt: int) -> float:
    """Return seconds to wait before an attempt. Random, to spread chunks that failed together."""
    return float(FIRST_DELAY * 2 ** (attempt - 1) * random.uniform(0.5, 1))  # noqa: S311


def _retry_after(answer: httpx.Response) -> float:
    """Return the seconds that Retry-After asks for, at most `MAX_RETRY_AFTER`; 0 without it."""
    value = answer.headers.get("retry-after", "")
    try:
        if re.fullmatch(r"[\d.]+", value):
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None  # read_answer raises the error


def _message(answer: httpx.Response) -> str:
    """Return ": " and the server's message, without long audio data that it may repeat."""
    body = _json(answer)
    error = body.get("error", body) if isinstance(body, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    if not isinstance(said, str):
        return ""
    said = re.sub(r"[\w+/=,;:-]{80,}", "...", said)
    return ": " + said[:MAX_MESSAGE]
