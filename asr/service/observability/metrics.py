"""What Prometheus reads: the numbers of the API process and, asked for each time, the worker's.

Each process counts in a registry of its own. The worker answers the command `Measure` with its
numbers as text, and `/metrics` is both texts one after the other, which is sound because no name
is in both. A worker that was restarted begins at zero, which Prometheus knows how to read.

Every label has few values: templates of routes, statuses, names of keys, kinds of error.
"""

from __future__ import annotations

import time
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

disable_created_metrics()  # type: ignore[no-untyped-call]  # the moment of each counter's making, as one more series


class Watched(Collector):
    """A gauge whose values are asked for when Prometheus asks, such as counts by state.

    Args:
        name: of the gauge.
        doc: its help text.
        label: what its values are counted by; without one it has a single value, under "".

    Attributes:
        values: by label, as asked for last.
    """

    def __init__(self, name: str, doc: str, label: str | None = None) -> None:
        self._name = name
        self._doc = doc
        self._label = label
        self.values: Mapping[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        """The values now."""
        labels = [] if self._label is None else [self._label]
        family = GaugeMetricFamily(self._name, self._doc, labels=labels)
        for label, value in self.values.items():
            family.add_metric([label] if labels else [], value)
        yield family


class ApiMetrics:
    """The numbers of the API process.

    Attributes:
        live: sessions that are open.
        requests: of places in the service, by state: active, waiting.
        jobs: by state.
        uploads: by state.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("method", "route", "status", "key")
        self._n_requests = Counter(
            "asr_http_requests", "Requests answered", labels, registry=registry
        )
        self._seconds = Histogram(
            "asr_http_request_seconds",
            "From the first byte of a request to the last of its answer",
            ("route",),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "asr_http_requests_in_flight", "Requests and sockets that are open", registry=registry
        )
        self._audio = Counter(
            "asr_audio_seconds", "Audio that was transcribed", ("key",), registry=registry
        )
        self._received = Counter(
            "asr_received_bytes", "Bytes of request bodies", ("route",), registry=registry
        )
        self._worker_up = Gauge("asr_worker_up", "Whether the worker answers", registry=registry)
        self.live = Watched("asr_live_sessions", "Live sessions that are open")
        self.requests = Watched("asr_requests", "Recordings in work and in wait", "state")
        self.jobs = Watched("asr_jobs", "Jobs", "state")
        self.uploads = Watched("asr_uploads", "Resumable uploads", "state")
        for watched in (self.live, self.requests, self.jobs, self.uploads):
            registry.register(watched)

    def began(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def ended(self, labels: tuple[str, str, str, str], seconds: float, n_bytes: int) -> None:
        """It was answered, or its client left: (method, route, status, key)."""
        self._in_flight.dec()
        self._n_requests.labels(*labels).inc()
        self._seconds.labels(labels[1]).observe(seconds)
        if n_bytes:
            self._received.labels(labels[1]).inc(n_bytes)

    def add_audio(self, key: str, seconds: float) -> None:
        """Audio was transcribed for a key."""
        self._audio.labels(key).inc(seconds)

    def text(self, of_worker: str | None) -> bytes:
        """Everything, with what the worker sent, or None when it did not answer."""
        self._worker_up.set(of_worker is not None)
        return generate_latest(self.registry) + (of_worker or "").encode()


class WorkerMetrics:
    """The numbers of the worker process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.chunk_seconds = Histogram(
            "asr_engine_chunk_seconds",
            "What a chunk takes at the engine",
            buckets=CHUNK_SECONDS,
            registry=registry,
        )
        self.chunk_audio = Counter(
            "asr_engine_audio_seconds", "Audio that the engine heard", registry=registry
        )
        self.errors = Counter(
            "asr_engine_errors", "Chunks on which it failed", ("error",), registry=registry
        )
        self.slots = Gauge("asr_engine_slots", "Chunks that it wants at once", registry=registry)
        self.in_use = Gauge("asr_engine_slots_in_use", "Chunks it works on", registry=registry)
        self.waiting = Gauge(
            "asr_engine_chunks_waiting", "Chunks that wait for it", registry=registry
        )
        self._outcomes = Counter(
            "asr_transcriptions", "Recordings and turns", ("outcome",), registry=registry
        )
        self._rtfx = Histogram(
            "asr_transcription_rtfx",
            "Seconds of audio in a second of work",
            buckets=RTFX,
            registry=registry,
        )
        registry.register(_Counts())

    def succeeded(self, transcript: Transcript, seconds: float) -> None:
        """A recording was transcribed in so many seconds."""
        self._outcomes.labels("succeeded").inc()
        if transcript.duration > 0 and seconds > 0:
            self._rtfx.observe(transcript.duration / seconds)

    def failed(self, error: BaseException) -> None:
        """It was not; the label is the class of the error, which are few."""
        name = type(error).__name__ if isinstance(error, AsrError) else "internal"
        self._outcomes.labels(name).inc()

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry).decode()


class _Counts(Collector):
    """The recogniser's own counts: findings of guards, further attempts, servers lost."""

    def collect(self) -> Iterator[Metric]:
        """The values now."""
        guards = CounterMetricFamily(
            "asr_guard_findings", "Answers that a guard doubted", labels=["guard"]
        )
        events = CounterMetricFamily(
            "asr_recognition_events", "What asr.counters counts", labels=["event"]
        )
        for name, value in sorted(COUNTS.items()):
            if name.startswith(GUARD_PREFIX):
                guards.add_metric([name.removeprefix(GUARD_PREFIX)], value)
            else:
                events.add_metric([name], value)
        yield from (guards, events)


class MeteredEngine:
    """An engine whose work is counted; otherwise it is the engine."""

    def __init__(self, engine: Engine, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        metrics.slots.set(engine.slots)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def transcribe(self, chunk: Chunk, audio: Audio, options: DecodeOptions) -> Hypothesis:
        """Recognise one chunk."""
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


def metered(engine: Engine, metrics: WorkerMetrics) -> Engine:
    """The engine, with its work counted."""
    return cast("Engine", MeteredEngine(engine, metrics))
