"""The Omni engine with fake servers on real sockets: connections, rotation, failures, TLS."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter

import httpx
import pytest
import trustme

from asr.counters import COUNTS
from asr.engines.omni import http as vllm_http, servers
from asr.engines.omni.dialects import request_body
from asr.engines.omni.http import VllmHttpEngine, VllmOptions
from asr.errors import EngineFailed, EngineUnavailable, InvalidOption
from tests.support.chat_server import (
    URL,
    ChatServer,
    Vllm,
    ask,
    completion,
    engine_at,
    ok,
    pair,
    running,
)
from tests.support.serving import until


@pytest.fixture(autouse=True)
def _soon(impatient: None) -> None:
    """Retries and health checks have almost no delay."""


# --- connections --------------------------------------------------------------------------------


def test_a_cancelled_chunk_closes_its_connection() -> None:
    async def run() -> None:
        async with ChatServer(delay=30) as server, running(engine_at(server)) as engine:
            task = asyncio.create_task(ask(engine))
            await until(lambda: server.in_flight == 1)
            task.cancel()
            await until(lambda: server.aborted == 1, 20)
            assert server.in_flight == 0
            with pytest.raises(asyncio.CancelledError):
                await task
            server.delay = 0
            assert await ask(engine) == "hello from one"

    asyncio.run(run())


def test_without_tls_each_chunk_has_a_connection_of_its_own() -> None:
    """So the processes of a server that share its port also share the chunks."""

    async def run() -> None:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            for _ in range(20):
                await ask(engine)
            assert server.served == 20
            assert server.connections >= 20

    asyncio.run(run())


def test_as_many_chunks_as_there_are_slots_are_in_flight_at_once() -> None:
    async def run() -> None:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            server.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(engine.slots)]
            await until(lambda: server.in_flight == engine.slots == 64)
            server.gate.set()
            assert await asyncio.gather(*tasks) == ["hello from one"] * 64

    asyncio.run(run())


def test_the_server_with_the_fewest_in_flight_is_asked() -> None:
    async def run() -> None:
        async with pair() as (one, two, engine):
            one.gate.clear()
            two.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(10)]
            await until(lambda: one.in_flight == two.in_flight == 5)
            two.gate.set()
            await until(lambda: two.served == 5)
            assert {await ask(engine) for _ in range(5)} == {"hello from two"}
            assert one.in_flight == 5
            one.gate.set()
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_server_that_dies_in_work_loses_no_chunk() -> None:
    async def run() -> None:
        async with pair() as (one, two, engine):
            one.gate.clear()
            two.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(8)]
            await until(lambda: one.in_flight == two.in_flight == 4)
            await one.kill()
            two.gate.set()
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
        async with ChatServer() as server, running(engine_at(server)) as engine:
            server.gate.clear()
            task = asyncio.create_task(ask(engine))
            await until(lambda: server.in_flight == 1)
            await server.kill()
            server.gate.set()
            await asyncio.sleep(0.3)
            assert not task.done()
            await server.start()
            assert await task == "hello from one"

    asyncio.run(run())


def test_a_broken_connection_is_no_lost_server() -> None:
    """A busy server may close an idle connection just as a request arrives on it."""

    async def run() -> list[int]:
        before = Counter(COUNTS)
        async with ChatServer() as server, running(engine_at(server)) as engine:
            server.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(3)]
            await until(lambda: server.in_flight == 3)
            server.reset_connections()
            await until(lambda: server.aborted == 3)
            server.gate.set()
            assert await asyncio.gather(*tasks) == ["hello from one"] * 3
        return [COUNTS[name] - before[name] for name in ("servers_lost", "requests_retried")]

    assert asyncio.run(run()) == [0, 3]


def test_what_happens_is_counted() -> None:
    names = ("servers_lost", "servers_returned", "requests_retried", "requests_failed")

    async def run() -> list[int]:
        before = Counter(COUNTS)
        async with pair() as (one, two, engine):
            one.gate.clear()
            two.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(4)]
            await until(lambda: one.in_flight == two.in_flight == 2)
            await one.kill()
            one.gate.set()
            two.gate.set()
            await asyncio.gather(*tasks)
            await one.start()
            await until(lambda: engine._servers.all[0].alive)
            one.answers = two.answers = [(400, {}, {})]
            with pytest.raises(EngineFailed):
                await ask(engine)
        return [COUNTS[name] - before[name] for name in names]

    assert asyncio.run(run()) == [1, 1, 2, 1]


def test_an_error_says_that_no_server_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """vLLM's health check answers 503 when its engine has died but its HTTP server runs."""

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
        (server,) = engine._servers.all
        for n_before_an_answer in (2, 2, 3):
            for _ in range(n_before_an_answer):
                assert server.alive
                await engine._servers._probe(server)
            if n_before_an_answer == 2:
                await ask(engine)
        assert not server.alive
        await engine.close()

    asyncio.run(run())


def test_another_server_is_asked_while_one_rests() -> None:
    async def run() -> None:
        async with pair() as (one, _, engine):
            one.answers = [(429, {"retry-after": "30"}, {})]
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}

    asyncio.run(run())


def test_two_that_fail_at_once_take_no_chunk_from_the_third() -> None:
    """A server that refuses at once has the fewest requests in flight, so it would be retried."""

    async def run() -> None:
        async with (
            ChatServer("one") as one,
            ChatServer("two") as two,
            ChatServer("three") as three,
            running(engine_at(one, two, three)) as engine,
        ):
            one.answers = [(500, {}, {})] * 99
            two.answers = [(500, {}, {})] * 99
            three.gate.clear()
            tasks = [asyncio.create_task(ask(engine)) for _ in range(9)]
            await until(lambda: three.in_flight == 9)
            three.gate.set()
            assert await asyncio.gather(*tasks) == ["hello from three"] * 9

    asyncio.run(run())


def test_requests_delayed_by_the_same_retry_after_return_one_by_one() -> None:
    async def run() -> list[float]:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            loop = asyncio.get_running_loop()
            engine._servers.all[0].rest(1.0)  # long enough for all to begin to wait

            async def wait() -> float:
                await engine._servers.pick()
                return loop.time()

            return sorted(await asyncio.gather(*(wait() for _ in range(40))))

    times = asyncio.run(run())
    assert times[-1] - times[0] > 0.1


def test_a_server_that_returns_is_asked_while_the_other_rests() -> None:
    async def run() -> None:
        async with pair() as (_, two, engine):
            first, second = engine._servers.all
            await two.kill()
            await until(lambda: not second.alive)
            first.rest(3600)
            task = asyncio.create_task(ask(engine))
            await asyncio.sleep(0.05)
            await two.start()
            assert await task == "hello from two"

    asyncio.run(run())


def test_an_answer_that_was_broken_off_is_asked_for_again() -> None:
    """vLLM aborts its running requests at SIGTERM and may answer 200 with half a sentence."""

    async def run() -> None:
        async with pair() as (one, two, engine):
            for server in (one, two):
                server.answers = [(200, {}, completion("half a sent", finish="abort"))]
            assert (await ask(engine)).startswith("hello from")

    asyncio.run(run())


def test_only_servers_with_the_model_that_was_chosen_are_asked() -> None:
    async def run() -> None:
        async with ChatServer("one") as one, ChatServer("two") as two:
            two.model = "nvidia/omni-fp8"
            async with running(engine_at(one, two, model="nvidia/omni-fp8")) as engine:
                assert {await ask(engine) for _ in range(6)} == {"hello from two"}
                assert "it serves nvidia/omni and not nvidia/omni-fp8" in str(engine._servers)
                one.model = "nvidia/omni-fp8"
                await until(lambda: engine._servers.all[0].alive)
                assert {await ask(engine) for _ in range(6)} == {
                    "hello from one",
                    "hello from two",
                }

    asyncio.run(run())


def test_a_server_that_comes_back_with_another_model_stays_out() -> None:
    async def run() -> None:
        async with pair() as (one, _, engine):
            first, _ = engine._servers.all
            await one.kill()
            await until(lambda: not first.alive)
            one.model = "another"
            await one.start()
            await until(lambda: "it serves another and not nvidia/omni" in str(engine._servers))
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}

    asyncio.run(run())


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_request_that_one_server_refuses_goes_to_another(status: int) -> None:
    async def run() -> None:
        async with pair() as (one, _, engine):
            one.answers = [(status, {}, {"error": {"message": "not here"}})] * 2
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}
            await asyncio.sleep(0.2)  # some health checks
            assert {await ask(engine) for _ in range(6)} == {"hello from two"}
            assert len(one.answers) == 1, "it was asked again, whatever it lists"

    asyncio.run(run())


@pytest.mark.parametrize("status", [401, 404])
def test_what_all_servers_refuse_is_a_refusal(status: int) -> None:
    """Treated as an outage, it would make a job wait forever."""

    async def run() -> None:
        async with pair() as (one, two, engine):
            for server in (one, two):
                server.answers = [(status, {}, {"error": {"message": "no such model"}})] * 9
            for _ in range(3):
                with pytest.raises(EngineFailed, match=f"{status}: no such model"):
                    await ask(engine)

    asyncio.run(run())


def test_a_server_without_the_model_is_left_when_one_with_it_comes() -> None:
    async def run() -> None:
        async with ChatServer("one") as one, ChatServer("two") as two:
            two.model = "right"
            await two.kill()
            async with running(engine_at(one, two, model="right")) as engine:
                assert await ask(engine) == "hello from one"
                await two.start()
                await until(lambda: engine._servers.all[1].alive)
                assert {await ask(engine) for _ in range(6)} == {"hello from two"}

    asyncio.run(run())


def test_model_names_are_not_compared_where_the_server_ignores_them() -> None:
    """llama.cpp names its model by a file path, which may differ between machines."""

    async def run() -> None:
        async with ChatServer("one") as one, ChatServer("two") as two:
            one.model, two.model = "/models/omni.gguf", "/data/omni.gguf"
            both = engine_at(one, two, model="/models/omni.gguf", dialect="llamacpp")
            async with running(both) as engine:
                names = {"hello from one", "hello from two"}
                assert {await ask(engine) for _ in range(6)} == names

    asyncio.run(run())


def test_a_server_that_lists_nothing_is_taken_back_by_its_health() -> None:
    async def run() -> None:
        async with pair() as (one, two, engine):
            first, _ = engine._servers.all
            await one.kill()
            await until(lambda: not first.alive)
            one.model = None
            await one.start()
            await until(lambda: first.alive)
            await two.kill()
            assert await ask(engine) == "hello from one"

    asyncio.run(run())


def test_a_health_check_that_cannot_be_read_ends_no_watch() -> None:
    zipped = {"content-encoding": "gzip"}
    answers = [httpx.Response(200, headers=zipped, stream=httpx.ByteStream(b"no gzip"))]

    def serve(request: httpx.Request) -> httpx.Response:
        return answers.pop() if answers and request.url.path == "/health" else vllm(request)

    vllm = Vllm()

    async def run() -> None:
        engine = VllmHttpEngine(VllmOptions((URL,)), httpx.MockTransport(serve))
        async with running(engine):
            await until(lambda: not answers)
            await until(lambda: engine._servers.all[0].alive)
            assert not engine._servers._watching.done()

    asyncio.run(run())


def test_a_slow_server_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_http, "ANSWER_BASE", 2.0)
    monkeypatch.setattr(vllm_http, "ANSWER_PER_SECOND", 0.0)

    async def run() -> None:
        async with pair(300, 0) as (one, _, engine):
            assert await ask(engine) == "hello from two"
            assert await ask(engine) == "hello from two"
            assert one.aborted == 1

    asyncio.run(run())


def test_audio_is_encoded_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of 30 s is 1.3 MB of base64."""
    threads = []

    def note(*given: object) -> bytes:
        threads.append(threading.current_thread())
        return request_body(*given)

    monkeypatch.setattr(vllm_http, "request_body", note)

    async def run() -> None:
        async with ChatServer() as server, running(engine_at(server)) as engine:
            await ask(engine)

    asyncio.run(run())
    (thread,) = threads
    assert thread is not threading.main_thread()


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
