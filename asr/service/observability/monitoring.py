"""``/metrics``: the numbers of this process and of the worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from asr.errors import StoreUnavailable

if TYPE_CHECKING:
    from asr.service.observability.metrics import ApiMetrics, Watched

MEASURE_SECONDS: Final = 2.0
"""A worker that does not answer within these counts as down; Prometheus asks again."""


Count = Callable[[], Awaitable[Mapping[str, float]]]


def make_metrics_router(
    measure: Callable[[], Awaitable[str | None]],
    metrics: ApiMetrics,
    counts: Mapping[Watched, Count],
) -> APIRouter:
    """The route that Prometheus reads.

    Args:
        measure: asks the worker for its numbers.
        metrics: of this process.
        counts: what must be awaited for the values of a gauge; one that fails shows none.
    """
    router = APIRouter()

    async def refresh(watched: Watched, count: Count) -> None:
        values: Mapping[str, float] = {}
        with contextlib.suppress(TimeoutError, StoreUnavailable, OSError):
            async with asyncio.timeout(MEASURE_SECONDS):
                values = await count()
        watched.values = values

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def read() -> Response:
        measured = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEASURE_SECONDS):
                measured = await measure()
        await asyncio.gather(*(refresh(watched, count) for watched, count in counts.items()))
        text = metrics.text(measured)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
