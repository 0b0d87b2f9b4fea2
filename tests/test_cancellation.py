"""A cancelled task ends even when its result arrives at the same moment; fake event streams.

Before Python 3.12 `asyncio.wait_for` returned the result and dropped the cancellation. A recording
was then transcribed to the end although its client had left during a burst of events.
"""

import asyncio
import types

import pytest

from asr.service.http.body import pieces
from asr.service.litserve.spec import TranscriptionSpec


async def burst(item):
    """Yield `item` at each of the next 200 turns of the event loop."""
    for _ in range(200):
        await asyncio.sleep(0)
        yield item


def heard():
    return TranscriptionSpec(1.0)._checked(burst(("report", "OK")))


def received():
    return pieces(types.SimpleNamespace(stream=lambda: burst(b"piece")))


@pytest.mark.parametrize("stream", [heard, received])
def test_a_burst_does_not_hide_a_cancellation(stream):
    async def read():
        async for _ in stream():
            pass

    async def cancelled_after(n_turns):
        task = asyncio.create_task(read())
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        return task.cancelled()

    async def run():
        return [await cancelled_after(n) for n in range(1, 20)]

    with asyncio.Runner() as runner:
        assert runner.run(run()) == [True] * 19
