"""The process pool with real template and child processes: messages, errors, limits, cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from asr.errors import AsrError, DamagedAudio, EngineFailed, WorkerDied
from asr.workers.pool import MAX_MESSAGE, ProcessLimits, ProcessPool
from asr.workers.template import FRAME
from tests.support.paths import ROOT

JOBS = "tests.support.child_jobs"

NO_LIMITS = ProcessLimits()


@contextlib.asynccontextmanager
async def open_pool(max_jobs=2, preload=(f"{JOBS}:load",)):
    pool = ProcessPool(preload, max_jobs)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool, function, request=None, payload=b"", limits=NO_LIMITS):
    async with pool.job(f"{JOBS}:{function}", request or {}, payload, limits) as job:
        return await job.result()


def alone(function, *request):
    """Run one job in a new pool. capfd needs this: a template keeps the stderr it started with."""

    async def run():
        async with open_pool(1) as pool:
            return await ask(pool, function, *request)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def in_pool():
    """Run a coroutine with a pool that many tests share: a template takes a second to load."""
    pool = ProcessPool([f"{JOBS}:load"], 2)
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(work(pool))
        runner.run(pool.close())


@pytest.fixture
def one(in_pool):
    """Run one job in that pool."""
    return lambda function, *request, **rest: in_pool(
        lambda pool: ask(pool, function, *request, **rest)
    )


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # a zombie has ended


def children():
    """Child processes of this process that have not been reaped."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found.update((task / "children").read_text().split())
    return found


def fds():
    """Count what the open descriptors of this process refer to.

    `fds() - before` is what was opened and not closed. Servers of other tests, which run in threads
    of this process, may close connections meanwhile; that does not count.
    """
    found = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[str(path.readlink())] += 1
    return found


async def gone(pid, within=20.0):
    deadline = time.monotonic() + within
    while is_alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return not is_alive(pid)


# --- messages -----------------------------------------------------------------------------------


def test_a_request_and_its_payload_arrive(one):
    answer = one("echo", {"name": "ü", "n": [1, None]}, bytes(range(256)))
    assert answer["request"] == {"name": "ü", "n": [1, None]}
    assert bytes.fromhex(answer["payload"]) == bytes(range(256))


def test_the_template_loads_once_and_every_job_finds_it_untouched(in_pool):
    async def run(pool):
        return [await ask(pool, "state") for _ in range(3)]

    answers = in_pool(run)
    assert [answer["loaded"] for answer in answers] == [2, 2, 2]
    assert len({answer["pid"] for answer in answers}) == 3


def test_messages_come_in_order_until_the_job_ends(in_pool):
    async def run(pool):
        async with pool.job(f"{JOBS}:count", {"upto": 500}) as job:
            return [message["number"] async for message in job]

    assert in_pool(run) == list(range(500))


def test_messages_larger_than_every_buffer(one):
    size = 3_000_000
    assert len(one("big", {"size": size})["text"]) == size
    assert len(one("echo", payload=bytes(size))["payload"]) == 2 * size


def test_it_imports_from_where_the_parent_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    here = alone("surroundings")
    assert here["path"] == sys.path


def test_the_current_directory_is_not_searched(tmp_path):
    """A folder of recordings may hold a wave.py that has nothing to do with us."""
    for name in ("json", "numpy", "wave", "selectors", "struct"):
        text = f"raise SystemExit('the wrong {name} was imported')"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    script = (
        "import asyncio\n"
        "from asr.workers.pool import ProcessPool\n"
        "async def run():\n"
        "    pool = ProcessPool(['asr.audio.recording'], 1)\n"
        "    await pool.open()\n"
        "    await pool.close()\n"
        "asyncio.run(run())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# --- errors -------------------------------------------------------------------------------------


def test_errors_come_back_with_their_class_and_facts(one):
    with pytest.raises(DamagedAudio, match="broken off") as damaged:
        one("damaged")
    assert damaged.value.seconds == 12.5
    with pytest.raises(EngineFailed) as failed:
        one("failed")
    assert failed.value.chunk_index == 7


def test_a_bug_in_the_child_is_a_dead_worker(capfd):
    with pytest.raises(WorkerDied, match="status 1"):
        alone("bug")
    assert "KeyError: 'a bug in the child'" in capfd.readouterr().err


def test_a_function_that_does_not_exist(capfd):
    with pytest.raises(WorkerDied, match="status 1"):
        alone("no_such_function")
    assert "AttributeError" in capfd.readouterr().err


def test_out_of_memory_says_so(one):
    with pytest.raises(WorkerDied, match="out of memory") as caught:
        one("raise_memory_error")
    assert caught.value.out_of_memory


def test_an_os_error_keeps_its_errno_and_hides_its_path(capfd):
    with pytest.raises(WorkerDied, match=os.strerror(errno.ENOSPC)) as caught:
        alone("raise_os_error", {"errno": errno.ENOSPC})
    assert caught.value.errno == errno.ENOSPC
    assert "/secret" not in str(caught.value)
    assert "/secret" in capfd.readouterr().err


def test_an_exit_status_is_told(one):
    with pytest.raises(WorkerDied, match="status 3") as caught:
        one("exit_with", {"status": 3})
    assert caught.value.signal is None


def test_a_child_that_says_nothing(one):
    with pytest.raises(WorkerDied, match="without an answer"):
        one("end_without_answer")


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 5, "signal 39")],
)
def test_a_signal_is_told(one, number, name):
    with pytest.raises(WorkerDied, match=name) as caught:
        one("die", {"signal": int(number)})
    assert caught.value.signal == number


def frame(body):
    return FRAME.pack(len(body), 0) + body


HOSTILE = {
    "another class": b'{"error": "SystemExit", "message": "0", "facts": {}}',
    "a function": b'{"error": "rebuild", "message": "", "facts": {}}',
    "the module's own names": b'{"error": "__builtins__", "message": "", "facts": {}}',
    "no name": b'{"error": [], "message": {}, "facts": {}}',
    "no facts": b'{"error": "AudioError", "message": ""}',
    "facts that are none": b'{"error": "AudioError", "message": "", "facts": 5}',
    "a list": b"[1, 2]",
    "a number": b"17",
    "a list with an error": b'["error"]',
    "a text": b'"an error"',
    "no JSON": b"\xff\xfe",
    "deep JSON": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_child_cannot_make_the_parent_build_what_it_likes(one, kind):
    with pytest.raises(WorkerDied):
        one("send_bytes", payload=frame(HOSTILE[kind]))


def test_a_known_error_from_a_hostile_child_is_only_an_error(one):
    body = json.dumps(
        {"error": "DamagedAudio", "message": "x", "facts": {"seconds": 1.0, "__class__": "int"}}
    )
    with pytest.raises(AsrError) as caught:
        one("send_bytes", payload=frame(body.encode()))
    assert type(caught.value) is DamagedAudio


def test_half_a_message(one):
    with pytest.raises(WorkerDied, match="without an answer"):
        one("send_bytes", payload=frame(b'{"n": 1}')[:-3])


def test_a_claim_of_gigabytes_is_not_waited_for(one):
    with pytest.raises(WorkerDied, match="too long"):
        one("claim", {"length": MAX_MESSAGE + 1})


# --- limits -------------------------------------------------------------------------------------


def test_cpu_time_is_limited(one):
    with pytest.raises(WorkerDied, match="SIGXCPU") as caught:
        one("burn", limits=ProcessLimits(cpu_seconds=1))
    assert caught.value.signal == signal.SIGXCPU


def test_memory_is_limited(one):
    limits = ProcessLimits(memory_bytes=1 << 30)
    assert one("allocate", {"size": 1 << 20}, limits=limits)["size"] == 1 << 20
    with pytest.raises(WorkerDied, match="out of memory") as caught:
        one("allocate", {"size": 2 << 30}, limits=limits)
    assert caught.value.out_of_memory


def test_limits_are_those_asked_for(one):
    given = one("limits", limits=ProcessLimits(cpu_seconds=7, memory_bytes=2 << 30))
    assert given == {
        "RLIMIT_CPU": [7, 9],
        "RLIMIT_AS": [2 << 30, 2 << 30],
        "RLIMIT_CORE": [0, 0],
    }
    assert one("limits")["RLIMIT_CPU"][0] == -1


# --- life and death -----------------------------------------------------------------------------


def test_leaving_the_block_kills_the_child(in_pool):
    async def run(pool):
        async with pool.job(f"{JOBS}:sleep", {}) as job:
            pid = (await job.result())["pid"]
            assert is_alive(pid)
        return is_alive(pid)

    assert not in_pool(run)


def test_cancelling_the_task_kills_the_child(in_pool):
    pids = []

    async def work(pool):
        async with pool.job(f"{JOBS}:sleep", {}) as job:
            pids.append((await job.result())["pid"])
            await job.result()

    async def run(pool):
        task = asyncio.create_task(work(pool))
        while not pids:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return is_alive(pids[0])

    assert in_pool(run) is False


def test_cancelling_while_the_child_does_not_read(in_pool):
    async def work(pool):
        async with pool.job(f"{JOBS}:deaf", {}, bytes(20_000_000)) as job:
            await job.result()

    async def run(pool):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(pool), 0.3)
        return await ask(pool, "echo", {"n": 1})

    assert in_pool(run)["request"] == {"n": 1}


@pytest.mark.parametrize("steps", range(8))
def test_cancelling_at_any_step_leaks_nothing(in_pool, steps):
    async def run(pool):
        await pool.open()
        before = fds()
        task = asyncio.create_task(ask(pool, "sleep_briefly", {"seconds": 0.2}))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await ask(pool, "echo", {"n": 2}))["request"] == {"n": 2}
        await asyncio.sleep(0)
        return fds() - before

    assert in_pool(run) == Counter()


def test_no_more_jobs_run_at_once_than_allowed(in_pool):
    async def run(pool):
        jobs = (ask(pool, "sleep_briefly", {"seconds": 0.15}) for _ in range(6))
        return await asyncio.gather(*jobs)

    spans = in_pool(run)  # all processes share CLOCK_MONOTONIC
    running = [sum(s["started"] <= t["started"] < s["ended"] for s in spans) for t in spans]
    assert max(running) == 2


def test_many_jobs_at_once_all_answer():
    async def run():
        async with open_pool(300) as pool:
            await pool.open()
            jobs = (ask(pool, "echo", {"n": n}) for n in range(300))
            return await asyncio.gather(*jobs)

    answers = asyncio.run(run())
    assert [answer["request"]["n"] for answer in answers] == list(range(300))


def test_jobs_fail_when_the_template_is_killed_and_the_next_one_works():
    async def run():
        async with open_pool() as pool, pool.job(f"{JOBS}:sleep", {}) as job:
            first = await job.result()
            os.kill(first["zygote"], signal.SIGKILL)
            with pytest.raises(WorkerDied) as caught:
                await job.result()
            assert caught.value.signal == signal.SIGKILL
            assert await gone(first["pid"])
            second = await asyncio.wait_for(ask(pool, "sleep"), 60)
            return first["zygote"], second["zygote"]

    first, second = asyncio.run(run())
    assert first != second
    assert not is_alive(second)


def test_a_template_gets_the_arguments_of_what_it_loads():
    given = ('/a folder/with "quotes"', "caf\u00e9")

    async def run():
        async with open_pool(preload=("json", (f"{JOBS}:load_with", *given))) as pool:
            return await ask(pool, "tell_arguments")

    assert tuple(asyncio.run(run())["arguments"]) == given


def test_a_template_that_does_not_load(capfd):
    async def run():
        async with open_pool(preload=(f"{JOBS}:fail_to_load",)) as pool:
            for _ in range(2):
                with pytest.raises(WorkerDied, match="while loading"):
                    await pool.open()

    asyncio.run(run())
    assert "this template does not load" in capfd.readouterr().err


def test_a_pool_that_is_closed_while_it_loads_says_nothing(capfd):
    async def run():
        async with open_pool(preload=(("time:sleep", 0.3),)) as pool:
            opening = asyncio.create_task(pool.open())
            await asyncio.sleep(0)
            process = pool._template._process
        with pytest.raises(WorkerDied):
            await opening
        return process.returncode

    assert asyncio.run(run()) == 0
    assert capfd.readouterr().err == ""


def test_further_requests_to_a_child():
    async def run():
        async with open_pool() as pool, pool.job(f"{JOBS}:echo_all", {"n": 0}) as job:
            answers = [await job.result()]
            for n in (1, 2):
                await job.send({"n": n}, b"x" * n)
                answers.append(await job.result())
            return answers

    assert asyncio.run(run()) == [{"n": 0, "size": 0}, {"n": 1, "size": 1}, {"n": 2, "size": 2}]


def test_a_child_whose_parent_ended_before_it_could_ask_ends_too():
    code = "from asr.workers.template import die_with_parent; die_with_parent(parent=0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


def test_closing_kills_everything():
    async def run():
        pool = ProcessPool([f"{JOBS}:load"], 1)
        async with pool.job(f"{JOBS}:sleep", {}) as job:
            running = await job.result()
            waiting = asyncio.create_task(ask(pool, "echo"))
            await asyncio.sleep(0.05)
            await pool.close()
            with pytest.raises(WorkerDied):
                await job.result()
        with pytest.raises(WorkerDied, match="closed"):
            await waiting  # otherwise it would start the template again
        return running

    before = children()
    running = asyncio.run(run())
    assert not is_alive(running["pid"])
    assert not is_alive(running["zygote"])
    assert not children() - before


def test_closing_twice_and_opening_again():
    async def run():
        pool = ProcessPool([f"{JOBS}:load"], 1)
        await pool.close()
        await pool.open()
        await pool.close()
        await pool.close()
        with pytest.raises(WorkerDied, match="closed"):
            await ask(pool, "echo")
        await pool.open()
        answer = await ask(pool, "echo", {"again": True})
        await pool.close()
        return answer["request"]

    assert asyncio.run(run()) == {"again": True}


def test_nothing_leaks(in_pool):
    async def run(pool):
        for function in ("echo", "damaged", "sleep", "end_without_answer"):  # warm up
            with contextlib.suppress(AsrError):
                await ask(pool, function)
        inside = (await ask(pool, "surroundings"))["fds"]
        await asyncio.sleep(0.01)
        before = fds()
        for function in ("echo", "damaged", "sleep", "end_without_answer") * 10:
            with contextlib.suppress(AsrError):
                await ask(pool, function)
        await asyncio.sleep(0.01)
        after = fds()
        return after - before, (await ask(pool, "surroundings"))["fds"] - inside

    async def settle(pool):
        await ask(pool, "echo")  # the template runs
        await asyncio.sleep(0.01)  # a transport closes one turn of the event loop later

    in_pool(settle)
    opened, running = fds(), children()
    assert in_pool(run) == (Counter(), 0)
    in_pool(settle)
    assert not fds() - opened
    assert not children() - running


def test_the_template_ends_with_the_parent():
    """However the parent ends: here it is killed."""
    script = (
        "import asyncio, os\n"
        "from asr.workers.pool import ProcessPool\n"
        "async def run():\n"
        "    pool = ProcessPool([], 1)\n"
        "    async with pool.job('tests.support.child_jobs:sleep', {}) as job:\n"
        "        answer = await job.result()\n"
        "        print(answer['pid'], answer['zygote'], flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(run())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    assert all(asyncio.run(gone(pid)) for pid in pids)
