"""Requests are spread over HTTP clients, even after some are cancelled; fake clients."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from asr.engines.omni.connections import REQUESTS_PER_CLIENT, Connections

URL = "http://vllm/v1/chat/completions"


class Clients:
    """Clients of a server that answers on demand; counts the requests of each client."""

    def __init__(self) -> None:
        self.in_flight: list[int] = []
        self.most: list[int] = []
        self.may_answer = asyncio.Event()

    def make(self) -> httpx.AsyncClient:
        place = len(self.in_flight)
        self.in_flight.append(0)
        self.most.append(0)

        async def handle(request: httpx.Request) -> httpx.Response:
            self.in_flight[place] += 1
            self.most[place] = max(self.most[place], self.in_flight[place])
            try:
                await self.may_answer.wait()
            finally:
                self.in_flight[place] -= 1
            return httpx.Response(200, content=await request.aread())

        return httpx.AsyncClient(transport=httpx.MockTransport(handle))


async def post(connections: Connections, count: int) -> list[asyncio.Task[httpx.Response]]:
    """Start `count` requests and wait until they arrive."""
    posts = [
        asyncio.create_task(connections.post(URL, b"%d" % index, httpx.Timeout(5)))
        for index in range(count)
    ]
    await asyncio.sleep(0.05)
    return posts


@pytest.mark.parametrize("count", [1, REQUESTS_PER_CLIENT, REQUESTS_PER_CLIENT + 1, 100])
def test_no_client_has_more_than_its_share(count: int) -> None:
    async def run() -> None:
        clients = Clients()
        connections = Connections(count, clients.make)
        posts = await post(connections, count)
        assert sum(clients.in_flight) == count
        assert max(clients.in_flight) <= REQUESTS_PER_CLIENT
        clients.may_answer.set()
        answers = await asyncio.gather(*posts)
        assert [answer.content for answer in answers] == [b"%d" % i for i in range(count)]
        await connections.close()

    asyncio.run(run())


def test_one_after_another_goes_through_one_client() -> None:
    """The first client is reused, because its connection is open."""

    async def run() -> None:
        clients = Clients()
        clients.may_answer.set()
        connections = Connections(4 * REQUESTS_PER_CLIENT, clients.make)
        for _ in range(5):
            await asyncio.gather(*await post(connections, 1))
        assert clients.most == [1, 0, 0, 0]
        await connections.close()

    asyncio.run(run())


def test_a_cancelled_request_frees_its_place() -> None:
    async def run() -> None:
        clients = Clients()
        count = 2 * REQUESTS_PER_CLIENT
        connections = Connections(count, clients.make)
        first = await post(connections, count)
        for task in first[:: len(clients.in_flight)]:  # all requests of one client
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert sorted(clients.in_flight) == [0, REQUESTS_PER_CLIENT]
        again = await post(connections, REQUESTS_PER_CLIENT)
        assert clients.in_flight == [REQUESTS_PER_CLIENT, REQUESTS_PER_CLIENT]
        assert clients.most == [REQUESTS_PER_CLIENT, REQUESTS_PER_CLIENT]
        clients.may_answer.set()
        await asyncio.gather(*first[1 :: len(clients.in_flight)], *again)
        await connections.close()

    asyncio.run(run())
