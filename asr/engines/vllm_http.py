"""Omni on a vLLM server, over HTTP.

Batching is vLLM's own: it batches continuously whatever is in flight, so this engine only keeps
`slots` requests there. Closing the connection of a request makes vLLM abort it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import TYPE_CHECKING, Any, Final

import httpx

from asr.engines.omni import chat_request, read_answer
from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable
from asr.types import Hypothesis

if TYPE_CHECKING:
    from asr.config import DecodeOptions
    from asr.types import Audio, Chunk

logger = logging.getLogger(__name__)

SLOTS: Final = 64
RETRIES: Final = 3
RETRIED_STATUSES: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
FIRST_DELAY: Final = 0.5
TIMEOUT_BASE: Final = 60.0
TIMEOUT_PER_SECOND: Final = 4.0
CONNECT_SECONDS: Final = 5.0


class VllmHttpEngine:
    """Nemotron-3-Nano-Omni behind ``/v1/chat/completions``.

    Args:
        url: of the server, without ``/v1``.
        transport: for tests.
    """

    language = "en"

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.slots = SLOTS
        self.model = "omni"
        self.name = "omni (vLLM, model not yet known)"
        limits = httpx.Limits(max_connections=SLOTS, max_keepalive_connections=SLOTS)
        timeout = httpx.Timeout(TIMEOUT_BASE, connect=CONNECT_SECONDS)
        base = url.rstrip("/").removesuffix("/v1")
        self._url = base
        self._client = httpx.AsyncClient(
            base_url=base, limits=limits, timeout=timeout, transport=transport
        )

    def check(self, options: DecodeOptions) -> tuple[str, ...]:
        """Everything can be asked for; other languages than English are beyond the model card."""
        is_english = (options.language or "en").lower().split("-")[0] == "en"
        return () if is_english else ("the model card of Omni names English only",)

    async def open(self) -> None:
        """Ask the server for its model."""
        try:
            answer = await self._client.get("/v1/models", timeout=CONNECT_SECONDS)
            answer.raise_for_status()
            self.model = str(answer.json()["data"][0]["id"])
        except (httpx.HTTPError, json.JSONDecodeError, LookupError, TypeError) as error:
            message = f"the vLLM server at {self._url} does not answer: {error!r}"
            raise EngineUnavailable(message) from error
        self.name = f"omni ({self.model} on vLLM)"

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk. The model gives no times, so the hypothesis has no words."""
        request = await asyncio.to_thread(chat_request, self.model, audio, options)
        timeout = TIMEOUT_BASE + TIMEOUT_PER_SECOND * chunk.duration
        body = await self._post(request, timeout, chunk)
        text, warnings = read_answer(body, chunk.index)
        return Hypothesis(chunk.index, text, warnings=warnings)

    async def _post(self, request: dict[str, Any], timeout: float, chunk: Chunk) -> Any:
        """Send until it is answered; what a repetition cannot mend is not repeated."""
        for attempt in range(RETRIES + 1):
            try:
                answer = await self._client.post(
                    "/v1/chat/completions", json=request, timeout=timeout
                )
            except httpx.ReadTimeout as error:
                message = f"no answer on the chunk at {chunk.start:.1f} s within {timeout:.0f} s"
                raise EngineTimeout(message) from error
            except httpx.TransportError as error:
                problem, delay = repr(error), None
            else:
                if answer.is_success:
                    return answer.json()
                problem, delay = f"status {answer.status_code}", _retry_after(answer)
                if answer.status_code not in RETRIED_STATUSES:
                    message = f"the vLLM server refused the chunk at {chunk.start:.1f} s: {problem}"
                    raise EngineFailed(message, chunk.index)
            logger.warning("chunk %d, attempt %d: %s", chunk.index, attempt + 1, problem)
            if attempt < RETRIES:
                backoff = FIRST_DELAY * 2**attempt * random.uniform(0.75, 1)  # noqa: S311
                await asyncio.sleep(backoff if delay is None else delay)
        raise EngineUnavailable(f"the vLLM server at {self._url} does not answer: {problem}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _retry_after(answer: httpx.Response) -> float | None:
    """What the server asks for, up to two minutes."""
    try:
        return min(max(float(answer.headers["retry-after"]), 0.0), 120.0)
    except (KeyError, ValueError):
        return None
