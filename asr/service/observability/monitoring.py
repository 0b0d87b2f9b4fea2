"""The route ``/metrics``: the metrics of the API process and of the worker."""

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
    from asr.service.observability.metrics import ApiMetrics, PolledGauge

MEASURE_SECONDS: Final = 2.0
"""How long ``/metrics`` waits for each source. After this time the worker is reported as
down, and a gauge has no values."""

Count = Callable[[], Awaitable[Mapping[str, float]]]


def make_metrics_router(
    measure: Callable[[], Awaitable[str | None]],
    metrics: ApiMetrics,
    counts: Mapping[PolledGauge, Count],
) -> APIRouter:
    """Make the route that Prometheus reads.

    Args:
        measure: asks the worker for its metrics.
        metrics: the metrics of this process.
        counts: returns the values of each gauge. If it fails, the gauge has no values.
    """
    router = APIRouter()

    async def refresh(gauge: PolledGauge, count: Count) -> None:
        values: Mapping[str, float] = {}
        with contextlib.suppress(TimeoutError, StoreUnavailable, OSError):
            async with asyncio.timeout(MEASURE_SECONDS):
                values = await count()
        gauge.values = values

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def read() -> Response:
        measured = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEASURE_SECONDS):
                measured = await measure()
        await asyncio.gather(*(refresh(gauge, count) for gauge, count in counts.items()))
        text = metrics.text(measured)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
