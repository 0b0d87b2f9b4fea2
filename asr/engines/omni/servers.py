"""Servers with the same model: choose the next one, and check their health.

The next request goes to the server with the fewest requests in flight, which also favours faster
servers. A server leaves the rotation if it refuses connections or its health check fails. It is
then checked every second, and returns when it serves the right model. A server that is only slow
stays: under full load even a working server may miss a health check.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
from typing import TYPE_CHECKING, Final

import httpx

from asr.counters import COUNTS
from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

logger = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 5.0
RETURN_SECONDS: Final = 1.0
"""Seconds between health checks: when all servers are there, and while one is away."""
HEALTH_TIMEOUT: Final = 5.0
MAX_MISSES: Final = 3
"""A server is lost after this many unanswered health checks, with no successful request between."""
OUTAGE_SECONDS: Final = 60.0
"""How long a chunk waits for a server when all are away."""
MODELS_TIMEOUT: Final = 5.0
SPREAD_SECONDS: Final = 0.5
"""Chunks that wait for the same server return spread over this time."""
UNFIT_SECONDS: Final = 30.0
"""A server that rejects our key or model stays out for this time, healthy or not."""
NO_ROUTE: Final = frozenset({404, 405, 501})
MAX_REASON: Final = 160
_UNREAD: Final = (httpx.HTTPError, ValueError, LookupError, TypeError)
"""Errors of a list of models that is missing or malformed."""

_turns = itertools.count()


class Server:
    """One server.

    Attributes:
        url: without ``/v1``.
        name: host and port, for messages; the URL may hold a password.
        in_flight: number of our requests that it works on.
        alive: whether it is in the rotation.
        reason: why it is not, or an empty string.
        models: the models that it listed last.
        barred_until: it may return to the rotation at this time of the event loop.
        rest_until: it gets requests again at this time of the event loop.
        turn: number of its latest request, so that equally busy servers take turns.
        is_placed: whether the text of a request says where the audio goes; None if the server was
            not asked since it came up.
        asking: held while it is asked.
        ask_again_at: it is asked again at this time of the event loop.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = httpx.URL(url).netloc.decode()
        self.in_flight = 0
        self.alive = True
        self.reason = ""
        self.models: tuple[str, ...] = ()
        self.barred_until = 0.0
        self.rest_until = 0.0
        self.turn = next(_turns)
        self.misses = 0
        self.is_placed: bool | None = None
        self.asking = asyncio.Lock()
        self.ask_again_at = math.inf

    @contextlib.contextmanager
    def asked(self) -> Generator[None]:
        """Count a request while it is in flight."""
        self.in_flight += 1
        self.turn = next(_turns)
        try:
            yield
        finally:
            self.in_flight -= 1

    def rest(self, seconds: float) -> None:
        """Send it no requests for so many seconds."""
        self.rest_until = max(self.rest_until, asyncio.get_running_loop().time() + seconds)


class Servers:
    """The rotation.

    Attributes:
        all: every server, in the rotation or not.
        model: the model to serve. Once a server lists it, servers that list only others get no
            requests.

    Args:
        urls: at least one.
        client: client for the health checks.
        health: path of the health check.
        any_name: whether the servers accept any model name.
    """

    def __init__(
        self, urls: Sequence[str], client: httpx.AsyncClient, health: str, *, any_name: bool = False
    ) -> None:
        self.all = tuple(Server(url) for url in urls)
        self.model = ""
        self._client = client
        self._health = health
        self._any_name = any_name
        self._is_listed = False
        self._any_alive = asyncio.Event()
        self._any_alive.set()
        self._returned = asyncio.Event()  # replaced after each return
        self._doubt = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        """Return all names, with the reason for servers that are away."""
        return ", ".join(
            server.name if server.alive else f"{server.name} ({server.reason})"
            for server in self.all
        )

    def watch(self) -> None:
        """Start the health checks, if they do not run."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop the health checks."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])

    async def pick(self, avoid: Collection[Server] = ()) -> Server:
        """Return the server for the next request; wait while all rest or are away.

        Args:
            avoid: servers that have failed on the same chunk, used only if there is no other.

        Raises:
            EngineUnavailable: no server returned within `OUTAGE_SECONDS`.
        """
        while True:
            await self._wait_for_any()
            now = asyncio.get_running_loop().time()
            alive = [server for server in self.all if server.alive]
            if rested := [server for server in alive if server.rest_until <= now]:
                return min(rested, key=lambda it: (it in avoid, it.in_flight, it.turn))
            rest = min(server.rest_until for server in alive) - now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest + random.uniform(0, SPREAD_SECONDS)):  # noqa: S311
                    await self._returned.wait()

    async def _wait_for_any(self) -> None:
        try:
            async with asyncio.timeout(OUTAGE_SECONDS):
                await self._any_alive.wait()
        except TimeoutError:
            raise EngineUnavailable(f"no server answers at {self}") from None

    def lost(self, server: Server, reason: str) -> None:
        """Take a server out of the rotation and start a health check."""
        is_new, server.reason = reason[:MAX_REASON] != server.reason, reason[:MAX_REASON]
        if server.alive:
            server.alive = False
            COUNTS["servers_lost"] += 1
            logger.warning("server %s left the rotation: %s", server.name, server.reason)
            if not any(other.alive for other in self.all):
                self._any_alive.clear()
            self.check_now()
        elif is_new:
            logger.warning("server %s stays out of the rotation: %s", server.name, server.reason)

    def check_now(self) -> None:
        """Start a health check now.

        Used when a connection breaks. That alone does not remove the server: a busy server may also
        close a connection that it takes for idle.
        """
        self._doubt.set()

    def answered(self, server: Server) -> None:
        """Note that a server works, and return it to the rotation."""
        server.misses = 0
        server.reason = ""
        if not server.alive:
            server.alive = True
            server.is_placed = None  # it may have been started again with another template
            COUNTS["servers_returned"] += 1
            logger.warning("server %s is back in the rotation", server.name)
            self._any_alive.set()
            self._returned.set()
            self._returned = asyncio.Event()

    async def models(self, server: Server) -> tuple[str, ...]:
        """Return the models it serves. If it does not answer, mark it lost and return nothing."""
        try:
            return await self._listed(server)
        except _UNREAD as error:
            self.lost(server, _why(error))
            return ()

    async def _listed(self, server: Server) -> tuple[str, ...]:
        answer = await self._client.get(server.url + "/v1/models", timeout=MODELS_TIMEOUT)
        answer.raise_for_status()
        found = tuple(str(item["id"]) for item in answer.json()["data"])
        if not found:
            raise LookupError
        return found

    def expect(self, model: str) -> None:
        """Set the model that the servers must serve."""
        self.model = model
        self._is_listed = False

    def admit(self, server: Server, models: tuple[str, ...]) -> None:
        """Add a server to the rotation if it serves the model, and remove those that do not."""
        server.models = models
        self._is_listed = self._is_listed or (self.model in models and not self._any_name)
        if self._serves(server):
            self.answered(server)
        for other in self.all:
            if not self._serves(other):
                self.lost(other, f"it serves {', '.join(other.models)} and not {self.model}")

    def _serves(self, server: Server) -> bool:
        """Return whether it serves the model.

        It does if it lists the model. It may if it lists no models, or if no server lists this one.
        """
        return not (self._is_listed and server.models) or self.model in server.models

    def bar(self, server: Server, reason: str) -> None:
        """Remove a server that rejects our key or model, for at least `UNFIT_SECONDS`."""
        server.barred_until = asyncio.get_running_loop().time() + UNFIT_SECONDS
        self.lost(server, reason)

    async def _watch(self) -> None:
        while True:
            self._doubt.clear()
            await asyncio.gather(*map(self._probe, self.all))
            all_there = all(server.alive for server in self.all)
            with contextlib.suppress(TimeoutError):
                pause = HEALTH_SECONDS if all_there else RETURN_SECONDS
                async with asyncio.timeout(pause):
                    await self._doubt.wait()

    async def _probe(self, server: Server) -> None:
        try:
            answer = await self._client.get(server.url + self._health, timeout=HEALTH_TIMEOUT)
        except httpx.ReadTimeout:
            server.misses += 1
            if server.misses >= MAX_MISSES:
                self.lost(server, f"{server.misses} health checks without an answer")
        except httpx.RequestError as error:
            self.lost(server, type(error).__name__)
        else:
            if answer.is_server_error:
                self.lost(server, f"its health check has status {answer.status_code}")
            elif server.alive:  # even if it does not know the path
                self.answered(server)
            elif asyncio.get_running_loop().time() >= server.barred_until:
                await self._readmit(server)

    async def _readmit(self, server: Server) -> None:
        """Return it to the rotation, unless it has another model now or rejects our key."""
        try:
            models = await self._listed(server)
        except _UNREAD as error:
            answer = error.response if isinstance(error, httpx.HTTPStatusError) else None
            if answer is not None and answer.status_code in NO_ROUTE:
                self.answered(server)  # it lists no models, so its health decides
            else:
                self.lost(server, _why(error))
        else:
            self.admit(server, models)


def _why(error: Exception) -> str:
    """Return why a server's list of models could not be read."""
    match error:
        case httpx.HTTPStatusError():
            return f"/v1/models: status {error.response.status_code}"
        case httpx.ConnectError():  # for TLS errors the text helps
            return f"/v1/models: ConnectError: {error}"
        case LookupError():
            return "/v1/models: it lists no model"
    return f"/v1/models: {type(error).__name__}"
