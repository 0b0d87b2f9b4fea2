"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set and ``[otel]`` is installed.

OpenTelemetry's own variables configure the exporter and its batches. Each process exports its own
spans. The spans of the worker are children of the request's span.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any, Final

from asr import tracing

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

logger = logging.getLogger(__name__)

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


class OpenTelemetry:
    """A tracer for `asr.tracing` that makes spans with OpenTelemetry's SDK.

    Args:
        processor: receives the spans when they end.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.propagate import extract, inject
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        name = os.environ.get("OTEL_SERVICE_NAME", "asr-service")
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({"service.name": name})
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("asr")
        self._extract, self._inject = extract, inject

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Time the block. An exception marks the span as failed."""
        return self._tracer.start_as_current_span(name, attributes=dict(attributes))

    def carrier(self) -> dict[str, str]:
        """The current span as W3C headers (``traceparent``)."""
        carrier: dict[str, str] = {}
        self._inject(carrier)
        return carrier

    @contextlib.contextmanager
    def within(self, carrier: Mapping[str, str]) -> Generator[None]:
        """Make the span in `carrier` the parent of spans in the block."""
        from opentelemetry import context

        token = context.attach(self._extract(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def close(self) -> None:
        """Export the remaining spans."""
        self._provider.shutdown()


def set_up() -> OpenTelemetry | None:
    """Start tracing in this process, if the environment asks for it.

    Call this function in each process, after the process was forked or spawned.
    """
    if not os.environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("%s is set, but tracing needs pip install 'asr-service[otel]'", ENDPOINT)
        return None
    telemetry = OpenTelemetry(BatchSpanProcessor(OTLPSpanExporter()))
    tracing.install(telemetry)
    return telemetry
