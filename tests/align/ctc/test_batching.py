"""Concurrent calls collected into batches; a fake model."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, strategies as st

from asr.align.ctc.batching import Batcher
from asr.errors import EngineUnavailable


def batches(items, limit, work=None, **options):
    """Submit all items at once; return the batches and the results."""
    made = []

    def record(batch):
        made.append((list(batch), threading.current_thread()))
        return [work(item) if work else item * 10 for item in batch]

    async def main():
        async with Batcher(record, float, limit, **options) as batcher:
            tasks = [batcher.submit(item) for item in items]
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    threads = {thread for _, thread in made}
    assert len(threads) <= 1
    assert threading.main_thread() not in threads
    return [batch for batch, _ in made], results


def test_the_size_of_a_batch_includes_its_padding():
    made, results = batches([1, 1, 4, 1, 9, 1], limit=8)
    assert made == [[1, 1], [4, 1], [9], [1]]
    assert results == [10, 10, 40, 10, 90, 10]


@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 30))
def test_every_item_is_processed_once_in_order(items, limit):
    made, results = batches(items, limit)
    assert [item for batch in made for item in batch] == items
    assert results == [item * 10 for item in items]
    assert all(len(batch) == 1 or max(batch) * len(batch) <= limit for batch in made)


def test_a_bad_item_affects_no_other_item():
    def work(item):
        if item == 3:
            raise RuntimeError("out of memory")
        return item

    _, results = batches([1, 2, 3, 4, 5], 100, work)
    assert [r if isinstance(r, int) else str(r) for r in results] == [1, 2, "out of memory", 4, 5]


def test_items_within_the_window_join_the_batch():
    made = []

    async def main():
        async with Batcher(lambda b: made.append(len(b)) or b, float, 100, window=0.2) as batcher:
            first = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0.02)
            await asyncio.gather(first, batcher.submit(2))

    asyncio.run(main())
    assert made == [2]


def test_the_next_batch_collects_while_one_is_processed():
    made, go = [], threading.Event()

    def work(batch):
        made.append(list(batch))
        go.wait(5)
        return batch

    async def main():
        async with Batcher(work, float, 100) as batcher:
            tasks = [asyncio.create_task(batcher.submit(1))]
            while not made:
                await asyncio.sleep(0.001)
            tasks += [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
            await asyncio.sleep(0.01)
            tasks[2].cancel()
            go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert made == [[1], [2, 4]]
    assert isinstance(results[2], asyncio.CancelledError)


def test_the_batcher_survives_any_error():
    def work(batch):
        return [10 // item for item in batch]

    async def main():
        async with Batcher(work, float, 1) as batcher:
            with pytest.raises(ZeroDivisionError):
                await batcher.submit(0)
            return await batcher.submit(5)

    assert asyncio.run(main()) == 2


def test_closing_fails_waiting_calls():
    go = threading.Event()

    async def main():
        batcher = Batcher(lambda batch: go.wait(5) and batch, float, 1)
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(1)) for _ in range(3)]
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.05, go.set)
        with pytest.raises(EngineUnavailable):
            await batcher.submit(1)
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert [type(result) for result in results] == [EngineUnavailable] * 3
