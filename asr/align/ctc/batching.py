"""Concurrent calls made into batches for work that is cheaper together, in a thread of its own.

The first item of an idle batcher waits a short window for company. While a batch is in work the
next one gathers by itself, so that under load the window costs nothing.
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
    """Gathers items and does them together. Use as ``async with``, from one event loop.

    Args:
        work: does a batch; called in a thread that does nothing else.
        size: of an item. A batch counts as its largest item times their number, for the others are
            padded to it.
        limit: the largest batch; a larger item goes alone.
        window: seconds that the first item waits.
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
        """Finish the batch in work; who waits is told that nothing comes."""
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
        """Do one item, with whatever else waits.

        Raises:
            EngineUnavailable: the batcher is closed, or closes meanwhile.
            Exception: what the work raised for this item.
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
                batch = await self._gather()
                await self._do([entry for entry in batch if not entry[1].done()])
        finally:
            for _, future in [*batch, *([self._left_over] if self._left_over else [])]:
                _refuse(future)

    async def _gather(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch = [self._left_over or await self._waiting.get()]
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
        return batch

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        """Do a batch. One that fails is tried again in halves: a bad item spoils no other."""
        if not batch:
            return
        loop, items = asyncio.get_running_loop(), [item for item, _ in batch]
        try:
            results = await loop.run_in_executor(self._thread, self._work, items)
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits must hear of it
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._do(batch[:middle])
                await self._do(batch[middle:])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)


def _refuse(future: asyncio.Future[Result]) -> None:
    if not future.done():
        future.set_exception(EngineUnavailable(CLOSED))
