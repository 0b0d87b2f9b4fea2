"""A transport that records every chat completion, and may change the request before it is sent.

So the requests are those of the service, apart from the one thing that an experiment changes.
"""

from __future__ import annotations

import json
import ssl
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import httpx

from benchmarks.first_hour.answers import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    Rewrite = Callable[[dict[str, Any]], None]

CALLS: ContextVar[list[Call] | None] = ContextVar("CALLS", default=None)
"""Where the calls of the current clip are recorded. The tasks of a clip inherit it."""
KEEP_ALIVE_SECONDS: Final = 1.0
_LENGTHS: Final = ("content-length", "content-encoding", "transfer-encoding")


class Wire(httpx.AsyncBaseTransport):
    """Records and rewrites chat completions; other requests pass unchanged.

    Args:
        rewrite: changes the JSON of a request in place.
        ca_file: PEM file of authorities to trust, or an empty string for the default.
        inner: sends the requests; by default over the network.
    """

    def __init__(
        self,
        rewrite: Rewrite | None = None,
        ca_file: str = "",
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._rewrite = rewrite
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS)
        trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._inner = inner or httpx.AsyncHTTPTransport(verify=trust, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        if not request.url.path.endswith("/chat/completions"):
            return await self._inner.handle_async_request(request)
        body = json.loads(request.content)
        if self._rewrite is not None:
            self._rewrite(body)
            request = _with_body(request, body)
        start = time.perf_counter()
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        await response.aclose()
        calls = CALLS.get()
        if calls is not None and response.status_code == httpx.codes.OK:
            calls.append(read_call(body, content, time.perf_counter() - start))
        headers = [item for item in response.headers.multi_items() if item[0] not in _LENGTHS]
        return httpx.Response(response.status_code, headers=headers, content=content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _with_body(request: httpx.Request, body: dict[str, Any]) -> httpx.Request:
    headers = [item for item in request.headers.multi_items() if item[0] not in _LENGTHS]
    content = json.dumps(body).encode()
    return httpx.Request(
        request.method,
        request.url,
        headers=headers,
        content=content,
        extensions=request.extensions,
    )


def read_call(sent: dict[str, Any], received: bytes, seconds: float) -> Call:
    """Return the record of a call. Fields that the server leaves out are empty or None."""
    try:
        answer = json.loads(received)
        choice = answer["choices"][0]
        message = choice["message"]
    except (ValueError, LookupError, TypeError):
        answer, choice, message = {}, {}, {}
    usage = answer.get("usage") or {}
    text, is_audio_first = text_part(sent)
    return Call(
        seconds=seconds,
        content=message.get("content") or "",
        reasoning=message.get("reasoning") or message.get("reasoning_content") or "",
        finish=choice.get("finish_reason"),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
        text_part=text,
        is_audio_first=is_audio_first,
    )


def text_part(body: dict[str, Any]) -> tuple[str, bool]:
    """Return the text that a request sends beside the audio, and whether the audio comes first."""
    parts = body["messages"][-1]["content"]
    texts = [index for index, part in enumerate(parts) if part["type"] == "text"]
    sounds = [index for index, part in enumerate(parts) if part["type"] != "text"]
    text = "".join(parts[index]["text"] for index in texts)
    return text, min(sounds, default=-1) < min(texts, default=0)
