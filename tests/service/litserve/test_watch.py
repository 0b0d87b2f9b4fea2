"""The main process notices the death of each of its processes."""

import contextlib
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

from asr.service.litserve import watch
from asr.service.litserve.watch import ProcessLost, ProcessWatch
from tests.service.jobs.test_jobs import create, ended, recording
from tests.support.calamities import is_listening, tree_of
from tests.support.serving import FAKE, HTTP, PATH, launched, make_wav, wait_for

RAW = {"content-type": "audio/wav"}


class Process:
    exitcode = -9

    def __init__(self, *, alive=True):
        self.alive = alive

    def is_alive(self):
        return self.alive


@pytest.fixture
def watched(monkeypatch):
    """A watch of fake processes, and what it started."""
    monkeypatch.setattr(watch, "DRAIN_SECONDS", 0.0)
    state = SimpleNamespace(manager=Process(), apis={0: Process()}, workers=[Process()], started=[])

    def start():
        state.started.append(Process())
        return state.started[-1]

    state.watch = ProcessWatch(state.manager, state.apis, lambda: state.workers, start)
    return state


def test_nothing_is_done_while_all_live(watched):
    watched.watch.check()
    assert not watched.started


def test_a_dead_api_process_is_replaced(watched):
    watched.watch._api_started -= watch.SHORT_LIFE
    watched.apis[0].alive = False
    watched.watch.check()
    assert [watched.apis[0]] == watched.started
    watched.watch.check()
    assert len(watched.started) == 1


def test_an_api_process_that_cannot_start_ends_the_service(watched):
    for _ in range(watch.MAX_SHORT_LIVES - 1):
        watched.apis[0].alive = False
        watched.watch.check()
    watched.apis[0].alive = False
    with pytest.raises(ProcessLost, match="again and again"):
        watched.watch.check()
    assert len(watched.started) == watch.MAX_SHORT_LIVES - 1


def test_nothing_is_started_while_the_service_ends(watched):
    watched.apis[0].alive = False
    watched.watch.set()
    watched.watch.check()
    assert not watched.started


def test_a_dead_manager_ends_the_service(watched):
    watched.manager.alive = False
    with pytest.raises(ProcessLost, match="manager"):
        watched.watch.wait()


def test_a_worker_that_nobody_replaces_ends_the_service(watched):
    watched.workers[0].alive = False
    watched.watch.check()
    watched.watch._worker_seen -= watch.WORKER_SECONDS
    with pytest.raises(ProcessLost, match="recogniser"):
        watched.watch.check()


# --- real processes -----------------------------------------------------------------------------


def holders(server):
    """The processes that have the listening socket open."""
    return {pid for pid in server.pids() if is_listening(pid, server)}


def api_of(server):
    (api,) = tree_of(server)["api"]
    return api


def manager_of(server):
    (manager,) = tree_of(server)["manager"]
    return manager


def test_killed_processes():
    """The API process is replaced, and the job continues. Without its manager the service ends."""
    with launched(*FAKE, ASR_JOB_LEASE="2", FAKE_ENGINE_DELAY="0.5") as server:
        server.wait_ready()
        api, manager = api_of(server), manager_of(server)
        assert holders(server) == {server.pid, api}, "other processes have the listening socket"
        client = server.client()
        job = create(client, recording(95))
        wait_for(lambda: "finished" in server.engine_did(), 60, "the first chunk")
        os.kill(api, signal.SIGKILL)
        answer = HTTP.post(server.url + PATH, content=make_wav(), headers=RAW, timeout=30)
        assert answer.status_code == 200, "a client that connects meanwhile waits and is served"
        assert ended(client, job)["state"] == "succeeded"
        assert api_of(server) != api
        with ThreadPoolExecutor(1) as threads:
            began = server.engine_did().count("began")
            url = f"{server.url}{PATH}?prompt=60"
            lost = threads.submit(HTTP.post, url, content=make_wav(), headers=RAW, timeout=60)
            wait_for(lambda: server.engine_did().count("began") > began, 60, "the request in work")
            os.kill(manager, signal.SIGKILL)
            assert server.process.wait(20) == 1  # and does not wait for that request
            with contextlib.suppress(httpx.TransportError):
                assert lost.result().status_code == 503
        server.wait_gone()
        assert "the manager process died" in server.log


def test_connections_during_shutdown_are_refused():
    with launched(*FAKE, ASR_SHUTDOWN_GRACE="8", FAKE_ENGINE_DELAY="5") as server:
        server.wait_ready()
        with server.client() as client:
            client.get("/health")
            address = ("127.0.0.1", httpx.URL(server.url).port)
            body = make_wav()
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            request = socket.create_connection(address)
            request.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda: "began" in server.engine_did(), 60, "the request in work")
            os.kill(server.pid, signal.SIGTERM)

            def is_refused():
                try:
                    socket.create_connection(address, 1).close()
                except ConnectionRefusedError:
                    return True
                return False

            wait_for(is_refused, 60, "a refused connection")
            assert server.process.poll() is None, "the request is still in work"
            assert request.recv(15) == b"HTTP/1.1 200 OK"
            request.close()
        assert server.stop()[0] == 0
