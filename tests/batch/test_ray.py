"""Archives on a Ray cluster of one machine. `make test-batch` runs it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from asr.errors import AsrError, InvalidOption
from tests.batch.inline import Inline, job_for, run, talk
from tests.batch.netns import wait_for
from tests.support import makers
from tests.support.chat_server import ChatServer

pytest.importorskip("ray")
pytestmark = [pytest.mark.batch, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    for number in range(6):
        makers.write(folder / f"{number}.wav", talk(6.0 + number, number))
    makers.write(folder / "long.wav", talk(90.0, 1))
    return folder


def transcripts(out):
    return {path.name: path.read_bytes() for path in out.glob("transcripts/*/*")}


def drive(out, work, archive, *more, delay=0.0):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FAKE_ENGINE_DELAY": str(delay),
    }
    program = [sys.executable, "-m", "tests.batch.drive", out, work, archive, *more]
    return subprocess.Popen(list(map(str, program)), env=env, start_new_session=True)


def rows(out):
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return {row["path"].rpartition("/")[2]: row for row in map(json.loads, lines)}


def test_ray_gives_the_transcripts_of_one_process_and_ctrl_c_ends_cleanly(archive, tmp_path):
    run(job_for(tmp_path / "inline", tmp_path), [archive], Inline())
    out = tmp_path / "out"
    more = ("--engine", "slow_engine", "--longest", "30")
    first = drive(out, tmp_path, archive, *more, delay=2.0)
    wait_for(lambda: list(out.glob("transcripts/*/*.json")) or first.poll() is not None, 600)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    assert first.wait(300) == 130
    assert "pending" in {row["status"] for row in rows(out).values()}
    assert drive(out, tmp_path, archive, *more).wait(600) == 0
    assert transcripts(out) == transcripts(tmp_path / "inline")
    assert (out / "manifest.parquet").is_file()
    assert not list(tmp_path.glob("asr-*")), "temporary folders are left"


def test_a_recording_that_kills_actors_fails_and_the_others_do_not(archive, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in archive.iterdir():
        if path.name != "long.wav":
            (folder / path.name).symlink_to(path)
    makers.write(folder / "poison.wav", makers.speech(5.0, level=1.0))
    out = tmp_path / "out"
    process = drive(out, tmp_path, folder, "--engine", "deadly_engine", "--at-once", "2")
    assert process.wait(900) == 1
    found = rows(out)
    assert {name for name, row in found.items() if row["status"] == "failed"} == {"poison.wav"}
    assert "signal 9" in found["poison.wav"]["error"]
    assert found["poison.wav"]["fault"] == "recording"


@pytest.mark.parametrize("address", ["ray://head:10001", "head", ":6379", "head:x"])
def test_what_is_no_address(address):
    from asr.batch.cluster import check_address

    with pytest.raises(InvalidOption, match="HOST:PORT"):
        check_address(address)


def test_a_cluster_that_does_not_answer():
    from asr.batch.cluster import check_address

    with pytest.raises(AsrError, match="no Ray cluster answers"):
        check_address("127.0.0.1:1")


def test_a_cluster_that_starts_too_slowly_is_tried_again(monkeypatch):
    from asr.batch import cluster

    tries = []

    def slow(**_):
        tries.append(1)
        raise Exception("The current node timed out during startup")  # noqa: TRY002  # as Ray does

    monkeypatch.setattr(cluster.ray, "init", slow)
    executor = cluster.RayExecutor(None, cluster.Size(1, 1, 0, 1))
    with pytest.raises(AsrError, match="on this machine: The current node timed out"):
        executor.start()
    assert len(tries) == cluster.START_TRIES


@contextlib.contextmanager
def chat_server(delay):
    """A stand-in for vLLM in a thread; gives it and a function that runs a coroutine there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    server = ChatServer("vllm", delay)
    do(server.start())
    try:
        yield server, do
    finally:
        do(server.kill())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_omni_over_http_survives_servers_that_are_away_for_a_minute(archive, tmp_path):
    """The whole command. The server comes back later than the engine waits for it."""
    out = tmp_path / "out"
    with chat_server(delay=1.0) as (server, do):
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ASR_ENGINE": "omni",
            "ASR_VLLM_URL": server.url,
            "ASR_WORK_DIR": str(tmp_path),
        }
        command = [sys.executable, "-P", "-m", "asr", "batch", str(archive), "--out", str(out)]
        command += ["--cpus", "1", "--aligner", "none", "-f", "rttm", "-f", "srt"]
        process = subprocess.Popen(command, env=env, start_new_session=True)
        wait_for(lambda: server.served or process.poll() is not None, 300)
        do(server.kill())
        before = server.served
        time.sleep(75)
        assert process.poll() is None
        do(server.start())
        assert process.wait(600) == 0
    found = rows(out)
    assert {row["status"] for row in found.values()} == {"done"}
    assert server.served > before
    texts = [json.loads(path.read_text())["text"] for path in out.glob("transcripts/*/*.json")]
    assert len(texts) == len(found)
    assert all("hello from vllm" in text for text in texts)
    assert all(len(row["outputs"]) == 3 for row in found.values())
