"""`unless` and `client_left`: work stops when its client disconnects, and no task outlives it."""

import asyncio
from functools import partial

import pytest
from starlette.requests import ClientDisconnect, Request

from asr.service.http.disconnect import client_left, unless


async def forever(ended):
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def fail(error):
    raise error


def test_the_result_of_the_work_cancels_the_interruptions():
    ended = []

    async def work():
        await asyncio.sleep(0.01)
        return "result"

    assert asyncio.run(unless(work(), partial(forever, ended), partial(forever, ended))) == "result"
    assert ended == ["ended", "ended"]


def test_an_interruption_cancels_the_work():
    ended = []
    with pytest.raises(ClientDisconnect):
        asyncio.run(unless(forever(ended), partial(fail, ClientDisconnect())))
    assert ended == ["ended"]


def test_an_error_of_the_work_comes_before_an_interruption():
    with pytest.raises(ValueError, match="work"):
        asyncio.run(unless(fail(ValueError("work")), partial(fail, ClientDisconnect())))


def test_a_cancelled_caller_cancels_both():
    ended = []

    async def run():
        task = asyncio.create_task(unless(forever(ended), partial(forever, ended)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert ended == ["ended", "ended"]


def test_client_left_skips_the_rest_of_the_body():
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    with pytest.raises(ClientDisconnect):
        asyncio.run(client_left(Request({"type": "http"}, receive)))
    assert next(messages, None) is None
