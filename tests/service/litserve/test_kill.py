"""Killed processes and shutdowns, with real server processes.

No client may hang, and no process or file may remain.
"""

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from asr.service.files import run_directory
from tests.service.live.test_live import MANUAL, append, pcm16, receive, session
from tests.support.makers import speech
from tests.support.serving import (
    FAKE,
    HTTP,
    PATH,
    STOP_SECONDS,
    launched,
    make_wav,
    serving,
    wait_for,
)

WAV = make_wav()
RAW = {"content-type": "audio/wav"}
WORDS = "word0 word1 word2 word3"
ENGINE_SECONDS = 1


@pytest.fixture(scope="module")
def server():
    with serving(*FAKE, ASR_WORKER_TIMEOUT="2", FAKE_ENGINE_DELAY=str(ENGINE_SECONDS)) as server:
        yield server


def post(server, **query):
    return HTTP.post(server.url + PATH, params=query, content=WAV, headers=RAW, timeout=60)


@contextlib.contextmanager
def in_flight(server, n=1, **query):
    """Futures of `n` requests, all of which the engine has begun."""
    began = server.engine_did().count("began")
    with ThreadPoolExecutor(n) as threads:
        futures = [threads.submit(post, server, **query) for _ in range(n)]
        wait_for(
            lambda: server.engine_did().count("began") == began + n, 10, "the requests in work"
        )
        yield futures


# --- the worker ---------------------------------------------------------------------------------


def test_killed_worker_gives_503_and_is_replaced(server):
    before = server.worker_pid()
    with in_flight(server, 2) as futures:
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()
        answers = [future.result() for future in futures]
        assert time.monotonic() - killed < 5
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "worker_died"
        assert answer.json()["error"]["type"] == "server_error"
        assert answer.headers["retry-after"] == "2"
        assert answer.headers["x-should-retry"] == "true"
    # The next request succeeds without waiting for the new worker to be ready.
    again = post(server)
    assert (again.status_code, again.json().get("text")) == (200, WORDS)
    assert server.worker_pid() not in (before, None)
    assert not server.request_folders()


def test_requests_after_the_death_of_an_idle_worker_are_answered(server):
    """The first request too, although the dead worker's call for a command is still open."""
    wait_for(server.is_ready, 60)
    os.kill(server.worker_pid(), signal.SIGKILL)
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(post, server) for _ in range(3)]
        answers = [future.result() for future in futures]
    assert [(it.status_code, it.json().get("text")) for it in answers] == [(200, WORDS)] * 3
    assert max(it.elapsed.total_seconds() for it in answers) < 20


@pytest.mark.slow
def test_no_request_hangs_while_workers_are_killed_again_and_again():
    """Every second kill may hit the new worker while it starts."""
    dice = random.Random(1)
    stop = threading.Event()

    def send(server):
        answers = []
        while not stop.is_set():
            answers.append(post(server))
            time.sleep(0.1)
        return answers

    with serving(*FAKE, ASR_WORKER_TIMEOUT="2", FAKE_ENGINE_DELAY="0.2") as server:
        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(send, server) for _ in range(4)]
            try:
                for _ in range(6):
                    for pause in (dice.uniform(0, 1), dice.uniform(0.6, 3)):
                        time.sleep(pause)
                        if pid := server.worker_pid():
                            os.kill(pid, signal.SIGKILL)
                    wait_for(server.is_ready, 60)
            finally:
                stop.set()
            answers = [answer for future in futures for answer in future.result()]
        for answer in answers:
            assert answer.elapsed.total_seconds() < 25
            if answer.status_code != 200:
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                assert answer.json()["error"]["code"] == "worker_died"
        assert any(answer.status_code == 200 for answer in answers)
        assert post(server).json()["text"] == WORDS


def test_killed_worker_in_a_stream_is_an_error_event(server):
    wait_for(server.is_ready, 60)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    with client, client.audio.transcriptions.create(model="m", file=WAV, stream=True) as stream:
        wait_for(lambda: server.engine_did()[-1] == "began", 60, "the request in work")
        os.kill(server.worker_pid(), signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(openai.APIError) as caught:
            list(stream)
    assert time.monotonic() - started < 5
    assert caught.value.code == "worker_died"


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_a_live_turn_survives_the_death_of_the_worker(server):
    wait_for(server.is_ready, 60)
    with session(server, **MANUAL) as connection:
        began = server.engine_did().count("began")
        append(connection, pcm16(speech(1.5)))
        connection.input_audio_buffer.commit()
        wait_for(lambda: server.engine_did().count("began") > began, 60, "the engine's work")
        os.kill(server.worker_pid(), signal.SIGKILL)
        assert receive(connection)[-1].transcript == "word0 word1 word2"


def test_killed_decoder_fails_at_most_one_request(server):
    """The test kills the template process of the decoders, which runs in its own session."""
    wait_for(server.is_ready, 60)
    templates = [pid for pid in server.pids() if b"asr.workers.template" in cmdline(pid)]
    for pid in templates:
        os.kill(pid, signal.SIGKILL)
    answers = [post(server).status_code for _ in range(2)]
    assert answers[1] == 200
    assert answers[0] in (200, 503)


def cmdline(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


# --- shutdown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["term", "ctrl-c"]
)
def test_requests_at_shutdown_are_answered_or_refused(number, group):
    """Requests in progress may finish within the grace period; waiting ones are refused at once."""
    env = {"ASR_MAX_ACTIVE_REQUESTS": "3", "ASR_SHUTDOWN_GRACE": "2"}
    with launched(*FAKE, **env) as server:
        server.wait_ready()
        with (
            in_flight(server, prompt="1") as (short,),
            in_flight(server, prompt="60") as (long,),
            in_flight(server, prompt="60", stream="true") as (stream,),
            ThreadPoolExecutor(1) as threads,
        ):
            waiting = threads.submit(post, server, prompt="60")
            wait_for(lambda: len(server.request_folders()) == 4, 60, "a request in wait")
            code, seconds = server.stop(number, group=group)
        assert code == 0, server.log
        assert "Traceback" not in server.log
        assert not list(server.work_dir.iterdir())
    assert 2 <= seconds < STOP_SECONDS
    assert short.result().json()["text"] == WORDS
    for refused in (long.result(), waiting.result()):
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert refused.headers["x-should-retry"] == "true"
    # A stream has already sent status 200, so it ends with an error event.
    assert stream.result().status_code == 200
    *_, last = [line for line in stream.result().text.splitlines() if line.startswith("data: ")]
    assert json.loads(last[6:])["error"]["code"] == "shutting_down"


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGTERM, "engine moonshine"),
        (signal.SIGINT, "Uvicorn running"),
        (signal.SIGTERM, "startup complete"),
        pytest.param(signal.SIGINT, "engine moonshine", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "Uvicorn running", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "startup complete", marks=pytest.mark.slow),
    ],
)
def test_shutdown_while_starting(number, when):
    with launched(*FAKE, FAKE_ENGINE_OPEN_DELAY="60") as server:
        wait_for(lambda: when in server.log, 30, when)
        code, seconds = server.stop(number, group=number == signal.SIGINT)
        assert code == 0, server.log
        assert seconds < STOP_SECONDS
        assert not list(server.work_dir.iterdir())


@pytest.mark.slow
def test_second_ctrl_c():
    """A second Ctrl-C may break requests, but leaves no process and no file."""
    with launched(*FAKE, FAKE_ENGINE_DELAY="60") as server:
        server.wait_ready()
        with in_flight(server) as futures:
            os.killpg(server.pid, signal.SIGINT)
            wait_for(lambda: "KeyboardInterrupt received" in server.log, 60)
            server.stop(signal.SIGINT, group=True)
            with contextlib.suppress(httpx.TransportError):
                assert futures[0].result().status_code >= 500
        assert not list(server.work_dir.iterdir())


@pytest.mark.slow
def test_shutdown_while_the_worker_is_dead():
    with launched(*FAKE) as server:
        server.wait_ready()
        os.kill(server.worker_pid(), signal.SIGKILL)
        code, seconds = server.stop()
        assert code == 0, server.log
        assert seconds < STOP_SECONDS


# --- a killed main process and failed starts ----------------------------------------------------


def folders(path):
    """The folders in a folder. Beside each run directory lies the file that locks it."""
    return [it for it in path.iterdir() if it.is_dir()]


def test_the_other_processes_end_with_a_killed_main_process(tmp_path):
    with launched(*FAKE, work_dir=tmp_path, FAKE_ENGINE_DELAY="60") as first:
        first.wait_ready()
        connection = socket.create_connection(("127.0.0.1", httpx.URL(first.url).port), 10)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
        connection.sendall(f"{head}Content-Length: {len(WAV)}\r\n\r\n".encode() + WAV)
        wait_for(lambda: "began" in first.engine_did(), 60, "the request in work")
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait()
        first.wait_gone()
        with connection, contextlib.suppress(ConnectionResetError):
            connection.settimeout(5)
            assert connection.recv(100) == b""  # the client does not hang
    (left,) = folders(tmp_path)
    with launched(*FAKE, work_dir=tmp_path) as second:
        second.wait_ready()
        assert not left.exists()
        (mine,) = folders(tmp_path)
        # Another server with the same work directory keeps the folder of a running one.
        with run_directory(tmp_path) as other:
            assert sorted(folders(tmp_path)) == sorted([mine, other])
        assert post(second).json()["text"] == WORDS
        assert second.stop()[0] == 0
    assert not list(tmp_path.iterdir())


def test_port_in_use_says_so_and_leaves_nothing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with launched(*FAKE, ASR_PORT=str(taken.getsockname()[1])) as server:
            code = server.process.wait(20)
            server.wait_gone()
            assert code != 0
            assert "in use" in server.log
            assert not list(server.work_dir.iterdir())


@pytest.mark.parametrize("env", [{"ASR_PROT": "1"}, {"ASR_PORT": "80"}, {"ASR_WORK_DIR": "/nope"}])
def test_wrong_setting_ends_at_once_with_one_line(env):
    with launched("-m", "asr", "serve", **env) as server:
        assert server.process.wait(20) == 2
        name = next(iter(env)).removeprefix("ASR_").lower()
        assert "Traceback" not in server.log
        assert name in server.log.lower()
