"""Prometheus metrics of the API process and of the worker process.

Each process has its own registry. The worker answers the command `GetMetrics` with its metrics as
text, and `/metrics` returns the texts of both processes. No metric has the same name in both.
A restarted worker begins at zero, which Prometheus handles as a counter reset.

Every label has few values: route templates, statuses, names of API keys, classes of errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from asr.counters import COUNTS
from asr.errors import AsrError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from asr.config import DecodeOptions
    from asr.engines.base import Engine
    from asr.types import Audio, Chunk, Hypothesis, Transcript

REQUEST_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)
CHUNK_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80)
RTFX: Final = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
GUARD_PREFIX: Final = "guard_"

# Else every counter would get one more series, for the time when it was created.
disable_created_metrics()  # type: ignore[no-untyped-call]


class PolledGauge(Collector):
    """A gauge whose values are set by `make_metrics_router` before each answer.

    Args:
        name: the name of the gauge.
        doc: its help text.
        label: the name of its label. Without a label the gauge has one value, under "".

    Attributes:
        values: the values by label.
    """

    def __init__(self, name: str, doc: str, label: str | None = None) -> None:
        self._name = name
        self._doc = doc
        self._label = label
        self.values: Mapping[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the current values."""
        labels = [] if self._label is None else [self._label]
        family = GaugeMetricFamily(self._name, self._doc, labels=labels)
        for label, value in self.values.items():
            family.add_metric([label] if labels else [], value)
        yield family


class ApiMetrics:
    """The metrics of the API process.

    Attributes:
        live: open live sessions.
        requests: recordings by state: active, waiting.
        jobs: jobs by state.
        uploads: uploads by state.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("method", "route", "status", "key")
        self._n_requests = Counter(
            "asr_http_requests", "Requests answered", labels, registry=registry
        )
        self._seconds = Histogram(
            "asr_http_request_seconds",
            "Time from the first byte of a request to the last byte of its answer",
            ("route",),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "asr_http_requests_in_flight", "Open requests and WebSockets", registry=registry
        )
        self._audio = Counter(
            "asr_audio_seconds", "Seconds of audio transcribed", ("key",), registry=registry
        )
        self._received = Counter(
            "asr_received_bytes", "Bytes of request bodies", ("route",), registry=registry
        )
        self._worker_up = Gauge(
            "asr_worker_up", "1 if the worker answers, else 0", registry=registry
        )
        self.live = PolledGauge("asr_live_sessions", "Open live sessions")
        self.requests = PolledGauge("asr_requests", "Recordings by state", "state")
        self.jobs = PolledGauge("asr_jobs", "Jobs by state", "state")
        self.uploads = PolledGauge("asr_uploads", "Resumable uploads by state", "state")
        for gauge in (self.live, self.requests, self.jobs, self.uploads):
            registry.register(gauge)

    def began(self) -> None:
        """Count the start of a request."""
        self._in_flight.inc()

    def ended(self, labels: tuple[str, str, str, str], seconds: float, n_bytes: int) -> None:
        """Count the end of a request, after its answer or when its client left.

        Args:
            labels: method, route template, status and name of the API key.
            seconds: since the start of the request.
            n_bytes: the length of its body.
        """
        self._in_flight.dec()
        self._n_requests.labels(*labels).inc()
        self._seconds.labels(labels[1]).observe(seconds)
        if n_bytes:
            self._received.labels(labels[1]).inc(n_bytes)

    def add_audio(self, key: str, seconds: float) -> None:
        """Count transcribed audio for an API key."""
        self._audio.labels(key).inc(seconds)

    def text(self, worker_text: str | None) -> bytes:
        """All metrics, with the worker's text, which is None if the worker did not answer."""
        self._worker_up.set(worker_text is not None)
        return generate_latest(self.registry) + (worker_text or "").encode()


@dataclass(slots=True)
class InterimOutcome:
    """How an interim request ended: answered, doubtful, cancelled or failed."""

    name: str = "failed"


class WorkerMetrics:
    """The metrics of the worker process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.chunk_seconds = Histogram(
            "asr_engine_chunk_seconds",
            "Seconds that the engine takes for a chunk",
            buckets=CHUNK_SECONDS,
            registry=registry,
        )
        self.chunk_audio = Counter(
            "asr_engine_audio_seconds", "Seconds of audio sent to the engine", registry=registry
        )
        self.errors = Counter(
            "asr_engine_errors", "Chunks on which the engine failed", ("error",), registry=registry
        )
        self.slots = Gauge(
            "asr_engine_slots", "Chunks that the engine can process at once", registry=registry
        )
        self.in_use = Gauge(
            "asr_engine_slots_in_use", "Chunks that the engine processes now", registry=registry
        )
        self.waiting = Gauge(
            "asr_engine_chunks_waiting", "Chunks that wait for the engine", registry=registry
        )
        self._outcomes = Counter(
            "asr_transcriptions",
            "Finished recordings and live turns",
            ("outcome",),
            registry=registry,
        )
        self._rtfx = Histogram(
            "asr_transcription_rtfx",
            "Seconds of audio per second of work",
            buckets=RTFX,
            registry=registry,
        )
        self.interim_seconds = Histogram(
            "asr_interim_seconds",
            "Seconds that the engine takes for an interim request of a live session",
            buckets=CHUNK_SECONDS,
            registry=registry,
        )
        self.interim_audio = Counter(
            "asr_interim_audio_seconds",
            "Seconds of audio sent to the engine in interim requests",
            registry=registry,
        )
        self._interim_outcomes = Counter(
            "asr_interim_requests",
            "Interim requests of live sessions",
            ("outcome",),
            registry=registry,
        )
        registry.register(_RecognitionCounts())

    @contextlib.contextmanager
    def interim_outcome(self) -> Iterator[InterimOutcome]:
        """Count an interim request with the outcome that the block stores in `InterimOutcome`."""
        outcome = InterimOutcome()
        try:
            yield outcome
        except asyncio.CancelledError:
            outcome.name = "cancelled"
            raise
        finally:
            self._interim_outcomes.labels(outcome.name).inc()

    def succeeded(self, transcript: Transcript, seconds: float) -> None:
        """Count a recording that was transcribed in `seconds`."""
        self._outcomes.labels("succeeded").inc()
        if transcript.duration > 0 and seconds > 0:
            self._rtfx.observe(transcript.duration / seconds)

    def failed(self, error: BaseException) -> None:
        """Count a recording that failed, by the class of its error."""
        name = type(error).__name__ if isinstance(error, AsrError) else "internal"
        self._outcomes.labels(name).inc()

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()


class _RecognitionCounts(Collector):
    """The counts in `asr.counters`: findings of guards, retries, lost servers."""

    def collect(self) -> Iterator[Metric]:
        """Yield the current values."""
        guards = CounterMetricFamily(
            "asr_guard_findings", "Answers in which a guard found a fault", labels=["guard"]
        )
        events = CounterMetricFamily(
            "asr_recognition_events", "Events during recognition, by kind", labels=["event"]
        )
        for name, value in sorted(COUNTS.items()):
            if name.startswith(GUARD_PREFIX):
                guards.add_metric([name.removeprefix(GUARD_PREFIX)], value)
            else:
                events.add_metric([name], value)
        yield from (guards, events)


class MeteredEngine:
    """Measures the work of an engine, and passes everything else through to it."""

    def __init__(self, engine: Engine, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        metrics.slots.set(engine.slots)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk and measure it."""
        metrics = self._metrics
        started = time.perf_counter()
        try:
            with metrics.in_use.track_inprogress():
                heard = await self._engine.transcribe(chunk, audio, options)
        except Exception as error:
            metrics.errors.labels(type(error).__name__).inc()
            raise
        metrics.chunk_seconds.observe(time.perf_counter() - started)
        metrics.chunk_audio.inc(chunk.duration)
        return heard


class InterimEngine:
    """Measures an engine's interim requests, apart from the chunks of recordings and turns."""

    def __init__(self, engine: Engine, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise audio and measure it."""
        started = time.perf_counter()
        heard = await self._engine.transcribe(chunk, audio, options)
        self._metrics.interim_seconds.observe(time.perf_counter() - started)
        self._metrics.interim_audio.inc(chunk.duration)
        return heard


def metered(engine: Engine, metrics: WorkerMetrics) -> Engine:
    """Wrap an engine so that its work is measured."""
    return cast("Engine", MeteredEngine(engine, metrics))


def metered_interim(engine: Engine, metrics: WorkerMetrics) -> Engine:
    """Wrap an engine so that its interim requests are measured."""
    return cast("Engine", InterimEngine(engine, metrics))
