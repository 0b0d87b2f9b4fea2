"""One or many servers on real sockets: connections, rotation, death and return, TLS."""

from __future__ import annotations

import asyncio
import ssl
import time

import httpx
import numpy as np
import pytest
import trustme

from asr.engines import servers, vllm_http
from asr.engines.vllm_http import VllmHttpEngine, VllmOptions
from asr.errors import EngineUnavailable, InvalidOption
from asr.types import SAMPLE_RATE, Audio
from tests.chat_server import URL, ChatServer, Vllm, ask, engine_at, ok, pair, running, until


@pytest.fixture(autouse=True)
def _soon(impatient: None) -> None:
    """Retries and health checks come at once."""


# --- connections --------------------------------------------------------------------------------


def test_a_cancelled_chunk_closes_its_connection() -> None:
    async def run() -> None:
        async with ChatServer(delay=30) as server, running(engine_at(server)) as engine:
            task = asyncio.create_task(ask(engine))
            await until(lambda: server.in_flight == 1)
            task.cancel()
            await until(lambda: server.aborted == 1, 1)
            assert server.in_flight == 0
            with pytest.raises(asyncio.CancelledError):
                await task
            server.delay = 0
            assert await ask(engine) == "hello from one"

    asyncio.run(run())


def test_connections_are_kept_and_used_again() -> None:
    async def run() -> None:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            for _ in range(20):
                await ask(engine)
            assert server.served == 20
            assert server.connections <= 3

    asyncio.run(run())


def test_as_many_chunks_as_there_are_slots_are_in_flight_at_once() -> None:
    async def run() -> None:
        async with ChatServer(delay=0.3) as server, running(engine_at(server)) as engine:
            await asyncio.gather(*(ask(engine) for _ in range(engine.slots)))
            assert server.most == engine.slots == 64

    asyncio.run(run())


def test_the_server_with_the_fewest_in_flight_is_asked() -> None:
    async def run() -> None:
        async with pair(0.4, 0.1) as (one, two, engine):
            await asyncio.gather(*(ask(engine) for _ in range(10)))
            assert (one.most, two.most) == (5, 5)
            tasks = [asyncio.create_task(ask(engine)) for _ in range(6)]
            await until(lambda: two.served == 8 and two.in_flight == 0)
            assert one.in_flight == 3
            assert await ask(engine) == "hello from two"
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_server_that_dies_in_work_loses_no_chunk() -> None:
    async def run() -> None:
        async with pair(0.3, 0.3) as (one, two, engine):
            tasks = [asyncio.create_task(ask(engine)) for _ in range(8)]
            await until(lambda: one.in_flight == two.in_flight == 4)
            await one.kill()
            assert await asyncio.gather(*tasks) == ["hello from two"] * 8

    asyncio.run(run())


def test_a_dead_server_leaves_the_rotation_and_returns() -> None:
    async def run() -> None:
        async with pair() as (one, _, engine):
            first, second = engine._servers.all
            await one.kill()
            await until(lambda: not first.alive)
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}
            assert second.alive
            await one.start()
            await until(lambda: first.alive)
            assert {await ask(engine) for _ in range(6)} == {"hello from one", "hello from two"}

    asyncio.run(run())


def test_the_only_server_may_be_killed_and_started_again() -> None:
    async def run() -> None:
        async with ChatServer(delay=0.2) as server, running(engine_at(server)) as engine:
            task = asyncio.create_task(ask(engine))
            await until(lambda: server.in_flight == 1)
            await server.kill()
            await asyncio.sleep(0.3)
            assert not task.done()
            await server.start()
            assert await task == "hello from one"

    asyncio.run(run())


def test_when_none_comes_back_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "OUTAGE_SECONDS", 0.2)

    async def run() -> None:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            await server.kill()
            with pytest.raises(EngineUnavailable, match=f"127.0.0.1:{server.port}"):
                await ask(engine)

    asyncio.run(run())


def test_a_server_that_is_there_when_the_other_is_not_is_enough() -> None:
    async def run() -> None:
        async with ChatServer("one") as one, ChatServer("two") as two:
            await one.kill()
            async with running(engine_at(one, two)) as engine:
                assert await ask(engine) == "hello from two"
                await one.start()
                await until(lambda: engine._servers.all[0].alive)

    asyncio.run(run())


def test_a_sick_server_leaves_the_rotation() -> None:
    """vLLM's health check says 503 when its engine is dead and its HTTP is not."""

    async def run() -> None:
        async with pair() as (one, _, engine):
            one.healthy = False
            await until(lambda: not engine._servers.all[0].alive)
            assert {await ask(engine) for _ in range(4)} == {"hello from two"}

    asyncio.run(run())


def test_a_health_check_without_an_answer_is_no_death_at_once() -> None:
    def busy(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            raise httpx.ReadTimeout("busy")
        return vllm(request)

    vllm = Vllm(ok(), ok())

    async def run() -> None:
        engine = VllmHttpEngine(VllmOptions((URL,)), httpx.MockTransport(busy))
        async with running(engine):
            (server,) = engine._servers.all
            await until(lambda: server.misses == 2)
            assert server.alive
            await ask(engine)
            assert server.misses <= 1
            await until(lambda: not server.alive)

    asyncio.run(run())


def test_another_server_is_asked_while_one_rests() -> None:
    async def run() -> None:
        async with pair() as (one, _, engine):
            one.answers = [(429, {"retry-after": "30"}, {})]
            started = time.perf_counter()
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}
            assert time.perf_counter() - started < 5

    asyncio.run(run())


def test_a_slow_server_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_http, "ANSWER_BASE", 0.3)
    monkeypatch.setattr(vllm_http, "ANSWER_PER_SECOND", 0.0)

    async def run() -> None:
        async with pair(30, 0) as (one, _, engine):
            assert await ask(engine) == "hello from two"
            assert await ask(engine) == "hello from two"
            assert one.aborted == 1

    asyncio.run(run())


def test_the_loop_is_free_while_audio_is_encoded() -> None:
    """Ten chunks of 30 s are about 13 MB of base64."""
    audio = Audio(np.zeros(30 * SAMPLE_RATE, np.float32))

    async def run() -> float:
        async with ChatServer(delay=0.05) as server, running(engine_at(server)) as engine:
            tasks = [asyncio.create_task(ask(engine, audio)) for _ in range(10)]
            longest = 0.0
            while not all(task.done() for task in tasks):
                started = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - started)
            await asyncio.gather(*tasks)
        return longest

    assert asyncio.run(run()) < 0.5


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory):
    made = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(path)
    return made, path


def test_certificates_are_checked_against_the_authority_that_is_set(authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer, path = authority
    issuer.issue_cert("127.0.0.1").configure_cert(context)

    async def run() -> None:
        async with ChatServer(tls=context) as server:
            async with running(engine_at(server, ca_file=str(path))) as engine:
                assert await ask(engine) == "hello from one"
            with pytest.raises(EngineUnavailable):
                async with running(engine_at(server)):
                    pass

    asyncio.run(run())


def test_a_file_without_certificates_is_named(tmp_path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(InvalidOption) as caught:
        VllmHttpEngine(VllmOptions((URL,), ca_file=str(path)))
    assert caught.value.name == "vllm_ca_file"
