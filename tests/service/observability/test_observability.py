"""Metrics, the dashboard, log lines and request ids, on an in-process service."""

import json
import logging
import re
import runpy

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from asr.service.observability.logs import JsonFormatter, is_well_formed, request_id
from asr.service.observability.metrics import ApiMetrics, WorkerMetrics
from tests.support.inprocess import serving
from tests.support.paths import ROOT
from tests.support.serving import HTTP, PATH, make_wav, wait_for

WAV = make_wav()
RAW = {"content-type": "audio/wav"}
KEY_LINES = "\n".join(
    json.dumps({"name": name, "key": f"key-{name}", "scopes": scopes})
    for name, scopes in (
        ("alice", ["transcribe", "realtime", "jobs", "uploads"]),
        ("watch", ["metrics"]),
    )
)


@pytest.fixture(scope="module")
def server():
    """A server with API keys and a JSON log."""
    with serving(ASR_API_KEYS=KEY_LINES, ASR_LOG_FORMAT="json") as server:
        yield server


def transcribe(server, headers=(), **query):
    headers = RAW | {"x-api-key": "key-alice"} | dict(headers)
    return HTTP.post(server.url + PATH, content=WAV, headers=headers, params=query)


def samples(server):
    """The values of all metrics, by name and labels."""
    answer = HTTP.get(server.url + "/metrics", headers={"x-api-key": "key-watch"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def grown(before, after, name, **labels):
    key = (name, *sorted(labels.items()))
    return after[key] - before.get(key, 0)


# --- metrics ------------------------------------------------------------------------------------


def test_a_request_is_counted_in_both_processes(server):
    before = samples(server)
    assert transcribe(server).status_code == 200
    assert transcribe(server, response_format="no").status_code == 400
    after = samples(server)
    request = {"method": "POST", "route": PATH, "key": "alice"}
    assert grown(before, after, "asr_http_requests_total", status="200", **request) == 1
    assert grown(before, after, "asr_http_requests_total", status="400", **request) == 1
    assert grown(before, after, "asr_received_bytes_total", route=PATH) == 2 * len(WAV)
    assert grown(before, after, "asr_http_request_seconds_count", route=PATH) == 2
    assert grown(before, after, "asr_audio_seconds_total", key="alice") == 2
    assert grown(before, after, "asr_engine_chunk_seconds_count") == 1
    assert grown(before, after, "asr_engine_audio_seconds_total") == 2
    assert grown(before, after, "asr_transcriptions_total", outcome="succeeded") == 1
    assert grown(before, after, "asr_transcription_rtfx_count") == 1
    assert grown(before, after, "asr_recognition_events_total", event="chunks") == 1
    assert after["asr_engine_slots",] == 4
    assert after["asr_worker_up",] == 1
    assert after["asr_http_requests_in_flight",] == 1  # the request for /metrics itself
    assert after["asr_engine_slots_in_use",] == after["asr_live_sessions",] == 0
    assert after["asr_requests", ("state", "active")] == 0


def test_jobs_and_uploads_are_counted_by_state(server):
    before = samples(server)
    alice = {"x-api-key": "key-alice"}
    job = HTTP.post(server.url + "/v1/jobs", content=WAV, headers=RAW | alice).json()["id"]
    url = f"{server.url}/v1/jobs/{job}"
    wait_for(lambda: HTTP.get(url, headers=alice).json()["state"] == "succeeded", 60, "the job")
    tus = alice | {"tus-resumable": "1.0.0", "upload-length": "5"}
    made = HTTP.post(server.url + "/v1/uploads", headers=tus)
    assert made.status_code == 201
    after = samples(server)
    assert grown(before, after, "asr_jobs", state="succeeded") == 1
    assert grown(before, after, "asr_uploads", state="arriving") == 1
    assert after["asr_jobs", ("state", "failed")] == 0


def test_errors_are_counted_by_their_class(server):
    before = samples(server)
    answer = HTTP.post(
        server.url + PATH, content=b"no audio", headers=RAW | {"x-api-key": "key-alice"}
    )
    assert answer.status_code == 415
    assert transcribe(server, prompt="boom").status_code == 500
    after = samples(server)
    assert grown(before, after, "asr_transcriptions_total", outcome="UnsupportedAudio") == 1
    assert grown(before, after, "asr_transcriptions_total", outcome="internal") == 1
    assert grown(before, after, "asr_engine_errors_total", error="ValueError") == 1


def test_a_live_session_is_counted_while_it_is_open_and_when_it_ends(server):
    url = server.url.replace("http", "ws") + "/v1/realtime?intent=transcription"
    before = samples(server)
    headers = {"x-api-key": "key-alice", "x-request-id": "live-1"}
    with connect(url, additional_headers=headers) as raw:
        raw.recv()
        assert raw.response.headers["x-request-id"] == "live-1"
        assert samples(server)["asr_live_sessions",] == 1
        raw.send("not an event")
        raw.recv()
    line = log_of(server, {"request_id": "live-1", "status": 101})
    assert (line["method"], line["path"], line["key"]) == ("WEBSOCKET", "/v1/realtime", "alice")
    after = samples(server)
    labels = {"method": "WEBSOCKET", "route": "/v1/realtime", "status": "101", "key": "alice"}
    assert grown(before, after, "asr_http_requests_total", **labels) == 1
    assert grown(before, after, "asr_received_bytes_total", route="/v1/realtime") == 12
    assert after["asr_live_sessions",] == 0


def test_labels_do_not_grow_with_what_clients_send(server):
    for name in ("one", "two", "three"):
        headers = {"x-api-key": "key-alice"}
        HTTP.get(f"{server.url}/v1/models/{name}", headers=headers)
        HTTP.get(f"{server.url}/no/{name}", headers=headers)
        HTTP.get(f"{server.url}/no/{name}", headers={"x-api-key": name})
        HTTP.request(name.upper(), f"{server.url}/no/{name}", headers=headers)
    routes = {
        dict(key[1:])["route"] for key in samples(server) if key[0] == "asr_http_requests_total"
    }
    assert "/v1/models/{name:path}" in routes
    assert routes <= {
        PATH,
        "/v1/realtime",
        "/v1/models/{name:path}",
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/uploads",
        "/metrics",
        "/ready",
        "/health",
        "other",
    }
    text = HTTP.get(server.url + "/metrics", headers={"x-api-key": "key-watch"}).text
    assert "three" not in text
    assert "THREE" not in text


def test_no_metric_is_in_both_processes():
    def names(registry):
        return {family.name for family in registry.collect()}

    assert not names(ApiMetrics().registry) & names(WorkerMetrics().registry)


def test_every_metric_of_the_dashboard_exists_with_its_labels():
    text = ApiMetrics().text(WorkerMetrics().text()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    suffixes = re.compile("_(total|bucket|count|sum)$")
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    used = set()
    for target in targets:
        names = re.findall(r"\basr_\w+", target["expr"])
        assert names, target["expr"]
        for name in names:
            assert suffixes.sub("", name) in families or name in families, name
            used.add(suffixes.sub("", name))
    assert used == set(families), "a metric that no panel shows, or the other way round"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_the_documents_name_every_metric_and_no_other():
    text = ApiMetrics().text(WorkerMetrics().text()).decode()
    page = (ROOT / "docs" / "operations.md").read_text()
    families = {family.name for family in text_string_to_metric_families(text)}
    named = {name.removesuffix("_total") for name in re.findall(r"`(asr_\w+)`", page)}
    assert named == families


def test_the_dashboard_is_what_its_script_makes():
    made = runpy.run_path(str(ROOT / "scripts" / "dashboard.py"))["dashboard"]()
    assert json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text()) == made


# --- logs and ids -------------------------------------------------------------------------------


def log_of(server, wanted):
    """The JSON log line that has the wanted values of fields."""

    def find():
        for line in server.log.splitlines():
            if line.startswith("{") and wanted.items() <= (body := json.loads(line)).items():
                return body
        return None

    return wait_for(find, 60, f"a line with {wanted}")


def test_every_line_of_the_log_is_json(server):
    assert transcribe(server).status_code == 200
    lines = server.log.splitlines()
    assert len(lines) > 3
    for line in lines:
        assert {"time", "level", "logger", "process", "message"} <= set(json.loads(line)), line


@pytest.mark.parametrize("name", ["call-7.Ab_c:1", "a" * 128])
def test_a_clients_request_id_is_kept_in_both_processes(server, name):
    answer = transcribe(server, {"x-request-id": name})
    assert answer.headers["x-request-id"] == name
    line = log_of(server, {"request_id": name, "logger": "asr.service.http.middleware"})
    assert (line["method"], line["path"], line["status"]) == ("POST", PATH, 200)
    assert line["key"] == "alice"
    log_of(server, {"request_id": name, "logger": "asr.pipeline.run"})


@pytest.mark.parametrize("name", ["", "a b", "a" * 129, "../x", "<script>", "-a"])
def test_an_invalid_request_id_is_replaced(server, name):
    assert not is_well_formed(name)
    answer = transcribe(server, {"x-request-id": name})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_refused_request_has_an_id_too(server):
    answer = HTTP.get(server.url + "/v1/models", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (401, "mine")


def test_the_log_holds_neither_the_prompt_nor_the_text_nor_a_key(server):
    answer = transcribe(server, prompt="0.0001234567")
    assert "word0" in answer.text
    log_of(server, {"request_id": answer.headers["x-request-id"], "status": 200})
    for secret in ("0.0001234567", "word0", "key-alice"):
        assert secret not in server.log


def test_a_line_keeps_its_message_its_fields_and_its_exception():
    with pytest.raises(KeyError) as lost:
        {}["lost"]
    kind = (lost.type, lost.value, lost.tb)
    record = logging.LogRecord("a.b", logging.INFO, "f", 1, '%d "parts"\n', (2,), kind)
    record.fields = {"seconds": 0.5}
    token = request_id.set("r1")
    line = JsonFormatter().format(record)
    request_id.reset(token)
    assert "\n" not in line
    body = json.loads(line)
    assert body["message"] == '2 "parts"\n'
    assert (body["request_id"], body["seconds"], body["level"]) == ("r1", 0.5, "info")
    assert "KeyError: 'lost'" in body["exception"]
