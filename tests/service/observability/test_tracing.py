"""Spans of a request, from the HTTP edge to its chunks, as OpenTelemetry's exporters see them."""

import asyncio
import http.server
import threading

import pytest
import soundfile
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asr import tracing
from asr.config import ChunkOptions, Options, VadOptions
from asr.pipeline.transcriber import Transcriber, collect
from asr.service.observability.telemetry import ENDPOINT, OpenTelemetry, set_up
from tests.support.fakes import FakeEngine
from tests.support.makers import speech
from tests.support.serving import FAKE, HTTP, PATH, make_wav, serving, wait_for

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


def test_a_chunk_that_fails_is_a_span_that_fails(exporter, recording):
    def fail(chunk):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        transcribe(recording, FakeEngine(answer=fail))
    failed = [span for span in exporter.get_finished_spans() if not span.status.is_ok]
    assert "chunk" in {span.name for span in failed}


def test_a_span_travels_to_another_process(exporter):
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


def test_off_unless_the_environment_asks(monkeypatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert set_up() is None


class Collector(http.server.BaseHTTPRequestHandler):
    """What an OTLP collector is to the exporter."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, self.headers, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.bodies = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def spans_at(collector):
    found = {}
    for path, _, body in list(collector.bodies):
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                found |= {span.span_id: span for span in scope.spans}
    return list(found.values())


def test_both_processes_of_the_service_export_one_trace(collector):
    env = {
        ENDPOINT: f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }
    with serving(*FAKE, **env) as server:
        headers = {"content-type": "audio/wav", "traceparent": PARENT, "x-request-id": "r1"}
        assert HTTP.post(server.url + PATH, content=make_wav(), headers=headers).status_code == 200
        wanted = {"request", "decode", "chunk", "stitch"}
        spans = wait_for(
            lambda: (s := spans_at(collector)) and wanted <= {x.name for x in s} and s, 10
        )
    trace = [span for span in spans if span.trace_id.hex() == PARENT.split("-")[1]]
    assert sorted(span.name for span in trace) == sorted(wanted)
    (request,) = [span for span in trace if span.name == "request"]
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    attributes = {item.key: item.value for item in request.attributes}
    assert attributes["http.route"].string_value == PATH
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["request.id"].string_value == "r1"
    for span in trace:
        assert span is request or span.parent_span_id == request.span_id
    assert not any(span.name == "request" and "/ready" in str(span) for span in spans)
