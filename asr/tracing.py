"""Spans around the stages of a transcription. By default they do nothing.

`asr.service.observability.telemetry` installs OpenTelemetry as the tracer. We do not use
``opentelemetry-api`` directly, because that needs a global tracer provider. FastAPI 0.165 then
records its own spans, and their attribute ``url.query`` holds what a user sent. LitServe creates
the FastAPI app, so we cannot turn them off.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager


class Tracer(Protocol):
    """Records spans."""

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Time the block, as a child of the current span."""
        ...

    def carrier(self) -> dict[str, str]:
        """The current span in a form that another process can continue."""
        ...

    def within(self, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """Make spans of the block children of another process's span."""
        ...


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Send the spans of this process to `tracer` from now on."""
    global _tracer  # one for the process, like the root logger
    _tracer = tracer


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Time the block; yields the tracer's span, or None without a tracer."""
    return contextlib.nullcontext() if _tracer is None else _tracer.span(name, attributes)


def carrier() -> dict[str, str]:
    """The current span in a form that another process can continue; empty without a tracer."""
    return {} if _tracer is None else _tracer.carrier()


def within(carrier: Mapping[str, str]) -> AbstractContextManager[None]:
    """Make spans of the block children of the span in `carrier`."""
    return contextlib.nullcontext() if _tracer is None else _tracer.within(carrier)
