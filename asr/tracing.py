"""Spans around the stages of a transcription, for whoever traces them; by default nobody does.

The stages know these three functions alone. `asr.service.observability.telemetry` puts
OpenTelemetry behind them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager


class Tracer(Protocol):
    """Where spans go."""

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Time the block, as a part of the span that is open around it."""
        ...

    def carrier(self) -> dict[str, str]:
        """The open span, for another process."""
        ...

    def within(self, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """Make the block a part of another process's span."""
        ...


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Send the spans of this process to `tracer` from now on."""
    global _tracer  # one for the process, as logging has one root
    _tracer = tracer


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Time the block; gives the tracer's span, or None when nobody traces."""
    return contextlib.nullcontext() if _tracer is None else _tracer.span(name, attributes)


def carrier() -> dict[str, str]:
    """The open span, for another process; empty when nobody traces."""
    return {} if _tracer is None else _tracer.carrier()


def within(carrier: Mapping[str, str]) -> AbstractContextManager[None]:
    """Make the block a part of the span in `carrier`."""
    return contextlib.nullcontext() if _tracer is None else _tracer.within(carrier)
