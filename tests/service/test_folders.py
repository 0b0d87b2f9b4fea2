"""`temporary_folder`: the folder of a request is removed after errors and cancellation too."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asr.service.files import temporary_folder


def test_cancelling_while_threads_are_busy_leaves_no_folder(tmp_path):
    free, entered, leave = threading.Event(), asyncio.Event(), asyncio.Event()

    async def work():
        async with temporary_folder(tmp_path) as folder:
            (folder / "recording").write_bytes(b"private")
            entered.set()
            await leave.wait()

    async def run():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        task = asyncio.create_task(work())
        await entered.wait()
        loop.run_in_executor(None, free.wait)  # the removal has to wait for this thread
        leave.set()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert list(tmp_path.iterdir())
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_block_leaves_no_folder(tmp_path):
    async def run():
        async with temporary_folder(tmp_path) as folder:
            (folder / "recording").write_bytes(b"private")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # the one raised above
        asyncio.run(run())
    assert not list(tmp_path.iterdir())
