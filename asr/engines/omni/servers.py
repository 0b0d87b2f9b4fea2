"""One or many servers with the same model: which one is asked next, and which one is away.

The next request goes to the server with the fewest in flight, which also favours the faster one.
A server that refuses connections, or whose health check says so, leaves the rotation and is
looked at every second until it is back, with the model that it shall serve. One that only answers
slowly stays: under full load the health check of a server that works may well time out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
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
"""Between health checks: of servers that are all there, and while one is away."""
HEALTH_TIMEOUT: Final = 5.0
MAX_MISSES: Final = 3
"""Health checks in a row without an answer, and no request answered since."""
OUTAGE_SECONDS: Final = 60.0
"""How long a chunk waits for a server to come back when none is there."""
MODELS_TIMEOUT: Final = 5.0
SPREAD_SECONDS: Final = 0.5
"""Chunks that waited for the end of one rest return over so long, not in one moment."""
UNFIT_SECONDS: Final = 30.0
"""A server that refuses our key or model is left alone for so long, whatever it says of itself."""
NO_ROUTE: Final = frozenset({404, 405, 501})
MAX_REASON: Final = 160
_UNREAD: Final = (httpx.HTTPError, ValueError, LookupError, TypeError)
"""What comes of a list of models that does not, or is none."""

_turns = itertools.count()


class Server:
    """One address.

    Attributes:
        url: without ``/v1``.
        name: host and port, for messages; an address may hold a password.
        in_flight: requests that it works on for us.
        alive: whether it is in the rotation.
        reason: why it is not.
        models: which ones it listed when it was last asked.
        barred_until: loop time before which it is not taken back.
        rest_until: loop time before which it asked not to be asked.
        turn: grows with each request, so that equals take turns.
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
        """Leave it alone for a while; others are asked meanwhile."""
        self.rest_until = max(self.rest_until, asyncio.get_running_loop().time() + seconds)


class Servers:
    """The rotation.

    Attributes:
        all: every server, there or not.
        model: what they shall serve. As soon as one lists it, those that list others are not asked.

    Args:
        urls: at least one.
        client: for the health checks.
        health: their path.
        any_name: whether they answer to any name of a model.
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
        self._someone = asyncio.Event()
        self._someone.set()
        self._returned = asyncio.Event()  # another one after each return
        self._doubt = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        """All names, of those that are away with the reason."""
        return ", ".join(
            server.name if server.alive else f"{server.name} ({server.reason})"
            for server in self.all
        )

    def watch(self) -> None:
        """Begin the health checks, if they have not begun."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End the health checks."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])

    async def pick(self, avoid: Collection[Server] = ()) -> Server:
        """The server to ask next; waits while all rest or all are away.

        Args:
            avoid: those that have failed at the same, asked again only when there is no other.

        Raises:
            EngineUnavailable: none came back in time.
        """
        while True:
            await self._wait_for_someone()
            now = asyncio.get_running_loop().time()
            alive = [server for server in self.all if server.alive]
            if rested := [server for server in alive if server.rest_until <= now]:
                return min(rested, key=lambda it: (it in avoid, it.in_flight, it.turn))
            rest = min(server.rest_until for server in alive) - now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest + random.uniform(0, SPREAD_SECONDS)):  # noqa: S311
                    await self._returned.wait()

    async def _wait_for_someone(self) -> None:
        try:
            async with asyncio.timeout(OUTAGE_SECONDS):
                await self._someone.wait()
        except TimeoutError:
            raise EngineUnavailable(f"no server answers at {self}") from None

    def lost(self, server: Server, reason: str) -> None:
        """Take a server out of the rotation and look after it at once."""
        is_news, server.reason = reason[:MAX_REASON] != server.reason, reason[:MAX_REASON]
        if server.alive:
            server.alive = False
            COUNTS["servers_lost"] += 1
            logger.warning("server %s left the rotation: %s", server.name, server.reason)
            if not any(other.alive for other in self.all):
                self._someone.clear()
            self.look()
        elif is_news:
            logger.warning("server %s stays out of the rotation: %s", server.name, server.reason)

    def look(self) -> None:
        """Check the servers' health at once.

        For a connection that broke, as also a busy server does with one it takes for idle: that is
        no reason for all other chunks to stay away.
        """
        self._doubt.set()

    def answered(self, server: Server) -> None:
        """Note that a server works, whatever its health checks say."""
        server.misses = 0
        server.reason = ""
        if not server.alive:
            server.alive = True
            COUNTS["servers_returned"] += 1
            logger.warning("server %s is back in the rotation", server.name)
            self._someone.set()
            self._returned.set()
            self._returned = asyncio.Event()

    async def models(self, server: Server) -> tuple[str, ...]:
        """What it serves; nothing when it does not say so, and then it is lost."""
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
        """Set what they shall serve."""
        self.model = model
        self._is_listed = False

    def admit(self, server: Server, models: tuple[str, ...]) -> None:
        """Take a server into the rotation if it serves the model, and put out those that do not."""
        server.models = models
        self._is_listed = self._is_listed or (self.model in models and not self._any_name)
        if self._serves(server):
            self.answered(server)
        for other in self.all:
            if not self._serves(other):
                self.lost(other, f"it serves {', '.join(other.models)} and not {self.model}")

    def _serves(self, server: Server) -> bool:
        """Whether it does, or there is no telling."""
        return not (self._is_listed and server.models) or self.model in server.models

    def bar(self, server: Server, reason: str) -> None:
        """Take out a server that refuses what says nothing of the chunk: our key, or the model."""
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
                self.lost(server, f"its health check says {answer.status_code}")
            elif server.alive:  # also where that path is unknown
                self.answered(server)
            elif asyncio.get_running_loop().time() >= server.barred_until:
                await self._readmit(server)

    async def _readmit(self, server: Server) -> None:
        """Back into the rotation, unless it came back with another model or refuses our key."""
        try:
            models = await self._listed(server)
        except _UNREAD as error:
            answer = error.response if isinstance(error, httpx.HTTPStatusError) else None
            if answer is not None and answer.status_code in NO_ROUTE:
                self.answered(server)  # its health is all that it tells
            else:
                self.lost(server, _why(error))
        else:
            self.admit(server, models)


def _why(error: Exception) -> str:
    """Why a server does not say what it serves."""
    match error:
        case httpx.HTTPStatusError():
            return f"/v1/models: status {error.response.status_code}"
        case httpx.ConnectError():  # of TLS, its text is what helps
            return f"/v1/models: ConnectError: {error}"
        case LookupError():
            return "/v1/models: it lists no model"
    return f"/v1/models: {type(error).__name__}"
