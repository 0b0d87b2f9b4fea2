"""Stops work when its client leaves or the service shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

Interruption = Callable[[], Coroutine[Any, Any, NoReturn]]
"""Waits for a reason to stop the work, and raises it."""


async def unless(work: Coroutine[Any, Any, T], *interruptions: Interruption) -> T:
    """Wait for `work`, and cancel it when an interruption raises first.

    If `work` and an interruption end at the same time, the result of `work` is returned. All tasks
    have ended when this function returns.

    Raises:
        Exception: from `work`, or from the interruption.
    """
    task = asyncio.create_task(work)
    watchers = [asyncio.create_task(interruption()) for interruption in interruptions]
    try:
        await asyncio.wait({task, *watchers}, return_when=asyncio.FIRST_COMPLETED)
        for ended in (task, *watchers):
            if ended.done():
                return ended.result()
        raise AssertionError("asyncio.wait returned, but nothing has ended")
    finally:
        for running in (task, *watchers):
            running.cancel()
        await asyncio.gather(task, *watchers, return_exceptions=True)


async def client_left(request: Request) -> NoReturn:
    """Wait until the client leaves. Nothing else may receive from the client meanwhile.

    Raises:
        ClientDisconnect: the client left.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect
