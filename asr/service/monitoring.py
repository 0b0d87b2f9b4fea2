"""``/metrics``: the numbers of this process and of the worker."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from asr.service.litapi import Measure, Measured

if TYPE_CHECKING:
    from asr.service.metrics import ApiMetrics
    from asr.service.spec import TranscriptionSpec

MEASURE_SECONDS: Final = 2.0
"""A worker that does not answer within these counts as down; Prometheus asks again."""


def make_metrics_router(spec: TranscriptionSpec, metrics: ApiMetrics) -> APIRouter:
    """The route that Prometheus reads."""
    router = APIRouter()

    @router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def read() -> Response:
        measured = None
        with contextlib.suppress(TimeoutError):
            measured = await asyncio.wait_for(spec.ask(Measure()), MEASURE_SECONDS)
        text = metrics.text(measured.text if isinstance(measured, Measured) else None)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
