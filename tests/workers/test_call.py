"""Jobs with one answer: what is repeated, and what is not."""

import asyncio
import errno
import os
import signal

import pytest

from asr.errors import DamagedAudio, WorkerDied
from asr.workers import call as calls
from asr.workers.call import KILLS, TRIES, call
from tests.workers.test_pool import JOBS, open_pool


@pytest.fixture(scope="module")
def in_pool():
    with asyncio.Runner() as runner:
        stack = open_pool(2)
        pool = runner.run(stack.__aenter__())
        yield lambda work: runner.run(work(pool))
        runner.run(stack.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def repeated(monkeypatch, caplog):
    """The tries that were repeated. The pauses before them take no time here."""
    monkeypatch.setattr(calls, "PAUSE_SECONDS", 0.0)
    return lambda: [record for record in caplog.records if record.name == calls.__name__]


@pytest.mark.parametrize("number", KILLS)
def test_a_child_that_is_killed_each_time(in_pool, repeated, number):
    with pytest.raises(WorkerDied) as caught:
        in_pool(lambda pool: call(pool, f"{JOBS}:die", {"signal": number}, b""))
    assert caught.value.signal == number
    assert len(repeated()) == TRIES - 1


@pytest.mark.parametrize(
    ("function", "request_", "kind"),
    [
        ("die", {"signal": signal.SIGSEGV}, WorkerDied),
        ("raise_os_error", {"errno": errno.ENOSPC}, WorkerDied),
        ("raise_memory_error", {}, WorkerDied),
        ("exit_with", {"status": 3}, WorkerDied),
        ("damaged", {}, DamagedAudio),
    ],
)
def test_what_a_second_try_cannot_change(in_pool, repeated, function, request_, kind):
    with pytest.raises(kind):
        in_pool(lambda pool: call(pool, f"{JOBS}:{function}", request_, b""))
    assert not repeated()


def test_a_killed_template(repeated):
    async def run():
        async with open_pool(2) as pool, pool.job(f"{JOBS}:sleep", {}) as job:
            first = await job.result()
            work = asyncio.create_task(call(pool, f"{JOBS}:sleep_briefly", {"seconds": 0.5}, b""))
            while len(pool._template._exits) < 2:
                await asyncio.to_thread(lambda: None)
            os.kill(first["zygote"], signal.SIGKILL)
            return await work

    assert asyncio.run(run())["ended"] > 0
    assert len(repeated()) == 1


def test_a_deadline(in_pool):
    with pytest.raises(TimeoutError):
        in_pool(lambda pool: call(pool, f"{JOBS}:sleep_briefly", {"seconds": 9}, b"", seconds=0.1))


def test_a_template_without_descriptors_says_so(in_pool):
    """The kernel cannot pass it a socket then."""

    async def run(pool):
        await pool.open()
        template = pool._template
        loop = asyncio.get_running_loop()
        ended = template._exits[9999] = loop.create_future()
        template._send({"job": 9999, "call": f"{JOBS}:echo"})  # without a socket
        return await asyncio.wait_for(asyncio.wait([ended]), 10), ended

    _, ended = in_pool(run)
    assert ended.exception().errno == errno.EMFILE
