"""The spans of decoding, chunks and stitching, as an OpenTelemetry exporter receives them."""

import asyncio

import pytest
import soundfile
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asr import tracing
from asr.config import ChunkOptions, Options, VadOptions
from asr.pipeline.transcriber import Transcriber, collect
from asr.service.observability.telemetry import ENDPOINT, OpenTelemetry, set_up
from tests.support.fakes import FakeEngine
from tests.support.makers import speech

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter():
    exporter = InMemorySpanExporter()
    telemetry = OpenTelemetry(SimpleSpanProcessor(exporter))
    tracing.install(telemetry)
    yield exporter
    tracing.install(None)
    telemetry.close()


def transcribe(path, engine):
    async def run():
        options = Options(VadOptions(kind="off"), ChunkOptions(max_seconds=10.0))
        async with Transcriber(engine) as transcriber:
            with tracing.within({"traceparent": PARENT}):
                return await collect(transcriber.transcribe_file(path, options))

    return asyncio.run(run())


@pytest.fixture
def recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", speech(25.0), 16_000)
    return tmp_path / "a.wav"


def test_the_stages_are_spans_of_the_request(exporter, recording):
    engine = FakeEngine()
    transcribe(recording, engine)
    spans = exporter.get_finished_spans()
    names = sorted(span.name for span in spans)
    assert names == ["chunk"] * len(engine.chunks) + ["decode", "stitch"]
    for span in spans:
        assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
        assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
        assert span.end_time > span.start_time
    chunks = sorted(span.attributes["start"] for span in spans if span.name == "chunk")
    assert chunks == sorted(chunk.start for chunk in engine.chunks)


def test_a_failed_chunk_is_a_failed_span(exporter, recording):
    def fail(chunk):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        transcribe(recording, FakeEngine(answer=fail))
    failed = [span for span in exporter.get_finished_spans() if not span.status.is_ok]
    assert "chunk" in {span.name for span in failed}


def test_a_span_continues_in_another_process(exporter):
    with tracing.span("outer") as outer:
        carrier = tracing.carrier()
    with tracing.within(carrier), tracing.span("inner"):
        pass
    inner = exporter.get_finished_spans()[-1]
    assert inner.parent.span_id == outer.get_span_context().span_id


def test_without_a_tracer_nothing_happens():
    with tracing.within({}), tracing.span("x", a=1) as span:
        assert span is None
    assert tracing.carrier() == {}


def test_tracing_is_off_by_default(monkeypatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert set_up() is None
