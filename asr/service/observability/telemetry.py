"""OpenTelemetry traces, with the extra ``[otel]``, once OTEL_EXPORTER_OTLP_ENDPOINT is set.

The exporter and its batches are configured by OpenTelemetry's own variables. Both processes
export for themselves; the worker's spans are parts of the request's.
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
    """Spans by OpenTelemetry's SDK.

    Args:
        processor: takes the spans that ended.
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
        """Time the block; an exception that leaves it marks the span as failed."""
        return self._tracer.start_as_current_span(name, attributes=dict(attributes))

    def carrier(self) -> dict[str, str]:
        """The open span, in W3C's ``traceparent``."""
        carrier: dict[str, str] = {}
        self._inject(carrier)
        return carrier

    @contextlib.contextmanager
    def within(self, carrier: Mapping[str, str]) -> Generator[None]:
        """Make the block a part of the span in `carrier`."""
        from opentelemetry import context

        token = context.attach(self._extract(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def close(self) -> None:
        """Send what was not sent yet."""
        self._provider.shutdown()


def set_up() -> OpenTelemetry | None:
    """Trace this process, if the environment asks for it; call it in each, after it was forked."""
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
