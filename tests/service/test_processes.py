"""Tests that need real server processes: curl, memory use, SIGTERM, and traces across processes.

Most tests share one server, since a start costs 3 s of CPU time.
"""

import contextlib
import http.server
import os
import re
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import websockets.exceptions
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asr.service.observability.telemetry import ENDPOINT
from tests.service.jobs.test_jobs import FORMATS, create as create_job, ended, recording
from tests.service.live.test_live import append, of_type, pcm16, receive, session
from tests.service.observability.test_tracing import PARENT
from tests.service.transcriptions.test_service import BOUNDARY, FORM, TEXT, WAV
from tests.service.uploads.test_routes import (
    LIMIT,
    TUS,
    checksum,
    create,
    offset_of,
    patch,
    stored,
)
from tests.support.makers import bursts, speech
from tests.support.serving import FAKE, HTTP, PATH, make_wav, serving, wait_for


class Collector(http.server.BaseHTTPRequestHandler):
    """An OTLP collector that keeps the traces that it receives."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, self.headers, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def collector():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.bodies = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server(collector):
    """A server that exports its traces and accepts uploads of 100 GB."""
    env = {
        ENDPOINT: f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "ASR_MAX_UPLOAD_BYTES": str(LIMIT),
        "ASR_UPLOAD_QUOTA_BYTES": str(2 * LIMIT),
    }
    with serving(*FAKE, **env) as server:
        yield server


@pytest.fixture
def client(server):
    return server.client()


# --- curl ---------------------------------------------------------------------------------------


def test_raw_chunked_body_of_curl(server):
    command = ["curl", "-sS", "-T", "-", "-X", "POST", "-H", "Content-Type: audio/wav"]
    command += [f"{server.url}{PATH}?response_format=text"]
    done = subprocess.run(command, input=WAV, capture_output=True, timeout=30, check=True)
    assert done.stdout.decode() == TEXT + "\n"


def test_form_of_curl(server, tmp_path):
    (tmp_path / "a.wav").write_bytes(WAV)
    command = ["curl", "-sS", "-F", f"file=@{tmp_path}/a.wav", "-F", "response_format=srt"]
    done = subprocess.run(
        [*command, server.url + PATH], capture_output=True, timeout=30, check=True
    )
    assert done.stdout.decode() == f"1\n00:00:00,000 --> 00:00:02,000\n{TEXT}\n\n"


def curl(*arguments, cwd):
    done = subprocess.run(["curl", "-sS", *arguments], cwd=cwd, capture_output=True, check=True)
    return done.stdout.decode()


def test_curl_downloads_under_a_name_and_only_once(client, server, tmp_path):
    job = ended(client, create_job(client, recording(20)))
    for extension in FORMATS:
        url = f"{server.url}{job['urls'][extension]}"
        curl("-OJ", "--etag-save", "tag", url, cwd=tmp_path)
        file = tmp_path / f"{job['id']}.{extension}"
        assert file.read_bytes() == client.get(url).content
        again = ["-o", "again", "-w", "%{http_code}", "--etag-compare", "tag", url]
        assert curl(*again, cwd=tmp_path) == "304"
        assert not (tmp_path / "again").exists() or not (tmp_path / "again").read_bytes()


# --- traces -------------------------------------------------------------------------------------


def spans_at(collector):
    found = {}
    for path, _, body in list(collector.bodies):
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        for process in request.resource_spans:
            for scope in process.scope_spans:
                found |= {span.span_id: span for span in scope.spans}
    return list(found.values())


def test_both_processes_of_the_service_export_one_trace(server, collector):
    headers = {"content-type": "audio/wav", "traceparent": PARENT, "x-request-id": "r1"}
    assert HTTP.post(server.url + PATH, content=make_wav(), headers=headers).status_code == 200
    wanted = {"request", "decode", "chunk", "stitch"}

    def exported():
        trace = [x for x in spans_at(collector) if x.trace_id.hex() == PARENT.split("-")[1]]
        return wanted <= {span.name for span in trace} and spans_at(collector)

    spans = wait_for(exported, 60, "the trace")
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


# --- memory -------------------------------------------------------------------------------------


def peak_kib(pid):
    """The peak resident memory of a process (VmHWM), in KiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise ProcessLookupError(f"{pid} is ending and has no memory any more")
    return int(found[1])


def wav_of_silence(n_bytes):
    """A multipart body with a WAV file of `n_bytes`, generated while it is sent."""
    yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()
    header = bytearray(make_wav(0))
    header[4:8] = (n_bytes - 8).to_bytes(4, "little")
    header[40:44] = (n_bytes - 44).to_bytes(4, "little")
    yield bytes(header)
    block = bytes(1 << 20)
    for _ in range(n_bytes // len(block)):
        yield block
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def watched_memory(server):
    """Yields a dict: for each pid, by how many KiB its peak memory has grown in this block."""
    before = {pid: peak_kib(pid) for pid in server.pids()}
    growth, ended = {}, threading.Event()

    def watch():
        while not ended.wait(0.1):
            for pid in server.pids():
                with contextlib.suppress(OSError):
                    growth[pid] = peak_kib(pid) - before.get(pid, 0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield growth
    finally:
        ended.set()
        thread.join()


def check_memory(server, n_bytes):
    with watched_memory(server) as growth, server.client() as client:
        answer = client.post(PATH, content=wav_of_silence(n_bytes), headers=FORM, timeout=600)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["seconds"] == pytest.approx(n_bytes / 32_000, rel=0.01)
    assert len(growth) > len(server.pids()), "the decoding process was not seen"
    assert max(growth.values()) < 150 << 10, growth


def test_memory_stays_flat_for_300_mb(server):
    check_memory(server, 300 << 20)


@pytest.mark.slow
def test_memory_stays_flat_for_1_gb():
    with serving(*FAKE, ASR_VAD="webrtc") as server:
        check_memory(server, 1 << 30)


def test_memory_stays_flat_at_the_end_of_an_upload_of_100_gb(client, server):
    location = create(client, LIMIT)
    os.truncate(stored(server, location), LIMIT - 5)  # as if received; a sparse file needs no disk
    before = resident(server)
    assert patch(client, location, b"hello", LIMIT - 5, **checksum(b"hello")).status_code == 204
    assert offset_of(client, location) == LIMIT
    assert resident(server) - before < 20 << 20
    assert client.delete(location, headers=TUS).status_code == 204


def test_memory_does_not_grow_with_a_part(client, server):
    n_bytes = 200 << 20
    location = create(client, n_bytes)
    patch(client, create(client, 10 << 20), bytes(10 << 20))
    before = resident(server)
    pieces = (bytes(1 << 20) for _ in range(n_bytes >> 20))
    assert patch(client, location, pieces).status_code == 204
    assert resident(server) - before < 40 << 20
    client.delete(location, headers=TUS)


def resident(server):
    """Resident memory of the largest process of the server, in bytes."""
    return max(rss_bytes([pid]) for pid in server.pids())


def rss_bytes(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return total * resource.getpagesize()


def stream(server, n_minutes, on_minute):
    """Send minutes of speech as fast as the server takes them; returns the number of turns."""
    minute = pcm16(bursts(60.0, [(s, s + 8) for s in range(1, 55, 10)], 24_000))
    n_done, seconds = 0, 0.0
    with session(server) as connection:

        def send():
            for _ in range(n_minutes):
                append(connection, minute, 48_000)
                on_minute()
            connection.input_audio_buffer.clear()

        sender = threading.Thread(target=send)
        sender.start()
        while (event := connection.recv()).type != "input_audio_buffer.cleared":
            if event.type.endswith("completed"):
                n_done, seconds = n_done + 1, seconds + event.usage.seconds
            assert not event.type.endswith(("failed", "error")), event
        sender.join()
        while n_done < 6 * n_minutes:
            n_done += connection.recv().type.endswith("completed")
    return n_done


def soak(server, n_minutes, warm_up):
    sizes = []
    started = time.perf_counter()
    n_done = stream(server, n_minutes, lambda: sizes.append(rss_bytes(server.pids())))
    assert n_done == 6 * n_minutes
    print(f"{n_minutes} minutes of audio in {time.perf_counter() - started:.1f} s;", end=" ")
    print(f"RSS of all processes {sizes[warm_up] >> 20} MiB, then {sizes[-1] >> 20} MiB")
    assert sizes[-1] - sizes[warm_up] < 16 << 20
    assert sum(path.stat().st_size for path in server.work_files()) < 20 << 20


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_memory_stays_flat_for_five_minutes_of_live_audio(server):
    soak(server, 5, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_memory_stays_flat_for_an_hour_of_live_audio():
    with serving(*FAKE) as server:
        soak(server, 60, 5)


# --- signals ------------------------------------------------------------------------------------


# OpenAI's client uses a deprecated way of `websockets` to open its socket.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")
def test_at_sigterm_the_last_turn_is_still_transcribed():
    with serving(*FAKE) as server, session(server) as connection:
        append(connection, pcm16(speech(2.0, 24_000)))
        receive(connection, "speech_started")
        os.kill(server.pid, signal.SIGTERM)
        events = receive(connection, "error")
        assert events[-1].error.code == "shutting_down"
        assert len(of_type(events, "completed")) == 1
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            connection.recv()
        assert closed.value.rcvd.code == 1012  # OpenAI's client reconnects after this code
