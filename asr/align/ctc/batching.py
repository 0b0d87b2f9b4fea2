"""Collect concurrent calls into batches, for work that is cheaper in batches; one worker thread.

If the batcher is idle, the first item waits a short time for more. Under load there is no wait: the
next batch is collected while the previous one is processed.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLOSED = "the aligner is closed"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items and processes them together. Use as ``async with``, from one event loop.

    Args:
        work: processes a batch, in the batcher's own thread.
        size: gives the size of an item. The size of a batch is that of its largest item times the
            number of items, because the other items are padded.
        limit: the largest size of a batch; a larger item is processed alone.
        window: seconds that the first item waits for more.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        size: Callable[[Item], float],
        limit: float,
        window: float = 0.0,
    ) -> None:
        self._work = work
        self._size = size
        self._limit = limit
        self._window = window
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._left_over: tuple[Item, asyncio.Future[Result]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher[Item, Result]:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Fail all calls without a result, then wait until the thread has finished its batch."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        while not self._waiting.empty():
            _refuse(self._waiting.get_nowait()[1])
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, item: Item) -> Result:
        """Process one item, in a batch with others that are waiting.

        Raises:
            EngineUnavailable: the batcher is closed, or closes before the item is processed.
            Exception: whatever the work raised for this item.
        """
        if self._task is None:
            raise EngineUnavailable(CLOSED)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    async def _run(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while True:
                batch = []
                await self._collect(batch)
                await self._process([entry for entry in batch if not entry[1].done()])
        finally:
            for _, future in [*batch, *([self._left_over] if self._left_over else [])]:
                _refuse(future)

    async def _collect(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Fill `batch`. If this is cancelled, the caller refuses the items in it."""
        batch.append(self._left_over or await self._waiting.get())
        self._left_over = None
        if self._waiting.empty() and self._window:
            await asyncio.sleep(self._window)
        largest = self._size(batch[0][0])
        while not self._waiting.empty():
            entry = self._waiting.get_nowait()
            largest = max(largest, self._size(entry[0]))
            if largest * (len(batch) + 1) > self._limit:
                self._left_over = entry
                break
            batch.append(entry)

    async def _process(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Process a batch; if it fails, try each half, so that only the bad item fails."""
        if not batch:
            return
        loop, items = asyncio.get_running_loop(), [item for item, _ in batch]
        try:
            results = await loop.run_in_executor(self._thread, self._work, items)
        except Exception as error:  # noqa: BLE001  # the caller gets every kind of error
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._process(batch[:middle])
                await self._process(batch[middle:])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _refuse(future: asyncio.Future[Result]) -> None:
    if not future.done():
        future.set_exception(EngineUnavailable(CLOSED))
