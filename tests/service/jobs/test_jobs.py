"""Jobs over HTTP with a fake engine, in an in-process service.

Tests that stop or kill servers use real server processes.
"""

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.support.inprocess import serving
from tests.support.makers import noise, wav_bytes
from tests.support.serving import FAKE, HTTP, PATH, STOP_SECONDS, launched, wait_for

RAW = {"content-type": "audio/wav"}
FORMATS = {"srt": "srt", "vtt": "vtt", "txt": "text", "tsv": "tsv", "json": "full_json"}
_seeds = itertools.count(1000)


@pytest.fixture(scope="module")
def server():
    with serving(FAKE_ENGINE_ECHO="1", ASR_JOB_LEASE="2") as server:
        yield server


@pytest.fixture
def client(server):
    return server.client()


def recording(seconds=2.0):
    """A recording that no other test has used."""
    return wav_bytes(noise(seconds, seed=next(_seeds)))


def create(client, content, status=202, headers=None, **query):
    answer = client.post("/v1/jobs", params=query, content=content, headers=RAW | (headers or {}))
    assert answer.status_code == status, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.json()


def ended(client, job, seconds=60):
    def look():
        found = client.get(f"/v1/jobs/{job['id']}").json()
        return found if found["state"] not in ("queued", "running") else None

    return wait_for(look, seconds, "the end of the job")


def events(client, job, seen=None, upto=None, begun=None):
    """(event, id, data) of a job's stream until its end, or until `upto` segments were read.

    The event `begun` is set when the answer begins.
    """
    headers = {} if seen is None else {"last-event-id": str(seen)}
    found, fields = [], {}
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        if begun:
            begun.set()
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and not line.startswith(":"):
                fields[name] = value
            elif fields:
                found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
                fields = {}
                if sum(name == "segment" for name, _, _ in found) == upto:
                    break
    return found


# --- creation -----------------------------------------------------------------------------------


def chunked(content):
    yield from (content[i : i + 10_000] for i in range(0, len(content), 10_000))


@pytest.mark.parametrize("how", ["multipart", "raw", "chunked"])
def test_job_has_the_transcript_of_the_sync_route(client, server, how):
    content = recording(70)
    if how == "multipart":
        data = {"model": "any", "language": "en", "nonsense": "1"}
        answer = client.post("/v1/jobs", files={"file": ("../../x.wav", content)}, data=data)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert job["name"] == "x.wav"
    else:
        body = content if how == "raw" else chunked(content)
        job = create(client, body, language="en", nonsense="1")
    assert job["state"] == "queued"
    assert job["n_bytes"] == len(content)
    assert job["sha256"] == hashlib.sha256(content).hexdigest()
    job = ended(client, job)
    assert (job["state"], job["attempts"], job["error"]) == ("succeeded", 1, None)
    assert job["progress"] == {"transcribed": 70.0, "decoded": 70.0, "total": 70.0}
    assert job["rtfx"] > 1
    other_model = "model: fake is used, because 'any' is not served here"
    assert job["warnings"] == [
        "field 'nonsense' is not known and was ignored",
        *([other_model] if how == "multipart" else []),
        "the fake engine ignores language",
    ]
    for extension, name in FORMATS.items():
        query = {"language": "en", "nonsense": "1", "response_format": name}
        query |= {"model": "any"} if how == "multipart" else {}
        direct = client.post(PATH, params=query, content=content, headers=RAW)
        ours = client.get(job["urls"][extension])
        assert ours.text == direct.text
        assert ours.headers["content-type"] == direct.headers["content-type"]
        assert ours.headers["x-transcript-complete"] == "true"
    recordings = server.work_dir.parent / "data" / "recordings"
    wait_for(lambda: not (recordings / job["id"]).exists(), 60, "the end of the recording")


def test_same_content_and_options_are_one_job(client):
    content = recording()
    job = create(client, content)
    assert create(client, content, 200)["id"] == job["id"]
    assert ended(client, job)["state"] == "succeeded"
    assert create(client, content, 200)["id"] == job["id"]
    assert create(client, content, language="en")["id"] != job["id"]
    client.delete(f"/v1/jobs/{job['id']}")
    assert create(client, content)["id"] != job["id"]


def test_same_content_at_once_is_one_job(server):
    content = recording()

    def send(_):
        with httpx.Client(base_url=server.url, timeout=120) as client:  # the machine may be busy
            answer = client.post("/v1/jobs", content=content, headers=RAW)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()["id"]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(send, range(8)))
    assert len(found) == 8
    assert len(set(found)) == 1


def test_idempotency_key(client):
    content, key = recording(), {"idempotency-key": uuid.uuid4().hex}
    job = create(client, content, headers=key)
    assert create(client, content, 200, headers=key)["id"] == job["id"]
    for body, query in ((recording(), {}), (content, {"language": "en"})):
        answer = client.post("/v1/jobs", params=query, content=body, headers=RAW | key)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "idempotency_key_reused"
    answer = client.post("/v1/jobs", content=b"x", headers=RAW | {"idempotency-key": "k" * 256})
    assert answer.status_code == 400


def test_key_of_a_failed_job_still_names_it_but_the_content_may_be_sent_again(client):
    key = {"idempotency-key": uuid.uuid4().hex}
    content = b"this is no audio" + uuid.uuid4().bytes
    job = ended(client, create(client, content, headers=key))
    assert job["state"] == "failed"
    assert job["error"]["code"] == "unsupported_audio"
    assert create(client, content, 200, headers=key)["id"] == job["id"]
    assert create(client, content)["id"] != job["id"]


@pytest.mark.parametrize(
    ("body", "headers", "query", "status", "param"),
    [
        (b"", RAW, {}, 400, "file"),
        (b"x", RAW, {"temperature": "9"}, 400, "temperature"),
        (b"x", RAW, {"callback_url": "http://example.org/"}, 400, "callback_url"),
        (b"x", RAW, {"upload_id": "x"}, 400, "upload_id"),
        (b"x", {"content-type": "image/png"}, {}, 400, None),
        (b"{", {"content-type": "application/json"}, {}, 400, None),
        (b"[1]", {"content-type": "application/json"}, {}, 400, None),
        (b"{}", {"content-type": "application/json"}, {}, 400, "file"),
        (b'{"upload_id": "x"}', {"content-type": "application/json"}, {}, 404, "upload_id"),
        (b"x" * 70_000, {"content-type": "application/json"}, {}, 400, None),
    ],
)
def test_malformed_request(client, server, body, headers, query, status, param):
    before = len(client.get("/v1/jobs", params={"limit": 100}).json()["data"])
    answer = client.post("/v1/jobs", params=query, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(client.get("/v1/jobs", params={"limit": 100}).json()["data"]) == before
    (incoming,) = (server.work_dir.parent / "data").glob("asr-serve-*")
    assert not list(incoming.iterdir())


@pytest.mark.parametrize("path", ["nope", "0" * 32, "..%2f..%2fetc", "%00", "x/../../health"])
@pytest.mark.parametrize("rest", ["", "/events", "/transcript.srt"])
def test_unknown_job(client, path, rest):
    answer = client.get(f"/v1/jobs/{path}{rest}")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
    assert client.delete(f"/v1/jobs/{path}").status_code in (404, 405)


def test_job_of_a_resumable_upload(client):
    content = recording(20)
    head = {"tus-resumable": "1.0.0", "upload-length": str(len(content))}
    upload = client.post("/v1/uploads", headers=head).headers["location"]
    upload_id = upload.rsplit("/", 1)[1]
    early = client.post("/v1/jobs", json={"upload_id": upload_id})
    assert early.status_code == 409
    part = {"tus-resumable": "1.0.0", "upload-offset": "0"}
    part["content-type"] = "application/offset+octet-stream"
    assert client.patch(upload, headers=part, content=content).status_code == 204
    answer = client.post("/v1/jobs", json={"upload_id": upload_id, "language": "en"})
    assert answer.status_code == 202, answer.text
    assert client.delete(upload, headers={"tus-resumable": "1.0.0"}).status_code == 204
    job = ended(client, answer.json())
    assert job["state"] == "succeeded"
    assert create(client, content, 200, language="en")["id"] == job["id"]


# --- reading ------------------------------------------------------------------------------------


def test_events_resume_after_the_last_event_id(client):
    job = create(client, recording(130), prompt="0.2", language="en")
    told = events(client, job)
    assert told[-1][0] == "done"
    assert told[-1][2]["state"] == "succeeded"
    segments = [(number, data) for name, number, data in told if name == "segment"]
    assert [number for number, _ in segments] == [str(n + 1) for n in range(len(segments))]
    whole = client.get(job["urls"]["json"]).json()
    assert [data for _, data in segments] == whole["segments"]
    done = [data["transcribed"] for name, _, data in told if name == "progress"]
    assert done == sorted(done)
    assert done[-1] == 130
    warnings = [data["message"] for name, _, data in told if name == "warning"]
    assert warnings == ["the fake engine ignores language"]
    for n_seen in (1, len(segments) - 1, len(segments)):
        again = events(client, job, n_seen)
        rest = [number for name, number, _ in again if name == "segment"]
        assert rest == [number for number, _ in segments[n_seen:]]
        assert again[-1] == told[-1]
    assert client.get(job["urls"]["events"], headers={"last-event-id": "x"}).status_code == 400
    # An EventSource sends the id of the last event when it connects again, and 204 ends it.
    last = {"last-event-id": told[-1][1]}
    answer = client.get(job["urls"]["events"], headers=last)
    assert (answer.status_code, answer.content) == (204, b"")


def test_failure_is_an_error_event(client):
    job = create(client, b"no audio at all" + uuid.uuid4().bytes)
    *_, (name, number, data) = events(client, job)
    assert name == "error"
    assert data["error"]["code"] == "unsupported_audio"
    last = {"last-event-id": number}
    assert client.get(job["urls"]["events"], headers=last).status_code == 204


def test_an_event_source_that_saw_the_cancellation_is_told_to_stop(client):
    job = create(client, recording(200), prompt="5")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    *_, (name, number, data) = events(client, job)
    assert (name, data["error"]["code"]) == ("error", "job_cancelled")
    for seen, status in (("", 200), ("0", 200), (number, 204), (f"{int(number) + 5}", 204)):
        answer = client.get(job["urls"]["events"], headers={"last-event-id": seen})
        assert answer.status_code == status


def test_partial_transcript_is_marked_as_partial(client):
    job = create(client, recording(200), prompt="1")
    assert events(client, job, upto=1)[-1][0] == "segment"
    answer = client.get(job["urls"]["json"])
    assert answer.headers["x-transcript-complete"] == "false"
    assert answer.headers["x-job-state"] == "running"
    part = answer.json()
    assert 0 < part["segments"][-1]["end"] <= part["duration"] < 200
    assert part["segments"]
    assert "the job is running" in part["warnings"][-1]
    ended(client, job)
    whole = client.get(job["urls"]["json"])
    assert whole.json()["segments"][: len(part["segments"])] == part["segments"]
    assert whole.headers["etag"] != answer.headers["etag"]


def test_query_sets_the_subtitle_options(client):
    job = ended(client, create(client, recording(20), max_line_width="30"))
    lines = [
        client.get(job["urls"]["srt"], params=query).text.splitlines()
        for query in ({}, {"max_line_width": "60"})
    ]
    assert max(map(len, lines[0])) <= 30 < max(map(len, lines[1])) <= 60
    answer = client.get(job["urls"]["srt"], params={"max_line_width": "wide"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_line_width"
    assert client.get(f"{job['urls']['self']}/transcript.docx").status_code == 404


def test_list_in_pages(client):
    made = [create(client, recording())["id"] for _ in range(5)]
    found, after = [], {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 2, **after}).json()
        found += [job["id"] for job in page["data"]]
        assert (page["first_id"], page["last_id"]) == (found[-len(page["data"])], found[-1])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert found[:5] == made[::-1]
    assert len(found) == len(set(found))
    for job in made:
        ended(client, {"id": job})
    running = client.get("/v1/jobs", params={"state": "running"}).json()["data"]
    assert not running
    for query in ({"limit": "0"}, {"limit": "x"}, {"state": "lost"}, {"after": "../x"}):
        answer = client.get("/v1/jobs", params=query)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == next(iter(query))


# --- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("forget", [False, True], ids=["cancel", "delete"])
def test_cancel_frees_the_engine_at_once(client, server, forget):
    before = server.engine_did().count("cancelled")
    began = server.engine_did().count("began")
    job = create(client, recording(20), prompt="60")
    wait_for(lambda: server.engine_did().count("began") > began, 60, "the job in work")
    if forget:
        assert client.delete(job["urls"]["self"]).json()["deleted"] is True
        assert client.get(job["urls"]["self"]).status_code == 404
    else:
        assert client.post(f"{job['urls']['self']}/cancel").json()["state"] == "cancelled"
        assert events(client, job)[-1][2]["error"]["code"] == "job_cancelled"
    wait_for(lambda: server.engine_did().count("cancelled") == before + 1, 60, "its end")
    assert not list((server.work_dir.parent / "data" / "recordings").glob(job["id"]))


def test_delete_ends_the_streams_of_a_job(client, server):
    job = create(client, recording(20), prompt="60")
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(events, server.client(), job, begun=begun)
        assert begun.wait(60)
        client.delete(job["urls"]["self"])
        assert told.result(60)[-1][2]["error"]["code"] == "job_deleted"


@pytest.mark.slow
def test_expired_jobs_are_forgotten():
    with serving(ASR_JOB_TTL="1") as server:
        client = server.client()
        job = ended(client, create(client, recording()))
        wait_for(lambda: client.get(job["urls"]["self"]).status_code == 404, 60, "its end")


# --- restarts and several servers ---------------------------------------------------------------


def test_after_sigterm_the_next_server_continues_the_job(tmp_path):
    env = {"ASR_DATA_DIR": str(tmp_path), "FAKE_ENGINE_ECHO": "1"}
    with launched(*FAKE, **env, FAKE_ENGINE_DELAY="1") as first:
        first.wait_ready()
        client = first.client()
        content = recording(300)
        job = create(client, content)
        events(client, job, upto=4)
        code, seconds = first.stop()
        assert code == 0, first.log
        assert seconds < STOP_SECONDS
        n_first = first.engine_did().count("finished")
    assert n_first >= 4
    with launched(*FAKE, **env) as second:
        second.wait_ready()
        client = second.client()
        job = ended(client, job)
        assert job["state"] == "succeeded"
        assert job["attempts"] == 2
        resumed = client.get(job["urls"]["json"])
        n_second = second.engine_did().count("finished")
        sent = client.delete(job["urls"]["self"])
        assert sent.status_code == 200
        query = {"response_format": "full_json"}
        direct = client.post(PATH, params=query, content=content, headers=RAW)
        n_chunks = second.engine_did().count("finished") - n_second
    assert resumed.text == direct.text
    # Only chunks whose results were not stored before the shutdown were recognised twice.
    assert n_chunks <= n_first + n_second <= n_chunks + 4


def test_a_key_still_names_its_job_after_the_settings_changed(tmp_path):
    content, key = recording(), {"idempotency-key": uuid.uuid4().hex}
    with serving(ASR_DATA_DIR=str(tmp_path), ASR_VAD="webrtc") as first:
        job = create(first.client(), content, language="en", headers=key)
    with serving(ASR_DATA_DIR=str(tmp_path), ASR_VAD="off") as second:
        client = second.client()
        assert create(client, content, 200, language="en", headers=key)["id"] == job["id"]
        other = client.post(
            "/v1/jobs", params={"language": "de"}, content=content, headers=RAW | key
        )
        assert other.json()["error"]["code"] == "idempotency_key_reused"
        assert create(client, content, language="en")["id"] != job["id"]


@pytest.mark.slow
def test_another_server_takes_over_the_job_and_its_events(tmp_path):
    """Two servers use one database; the one that runs the job is killed."""
    env = {"ASR_DATA_DIR": str(tmp_path), "FAKE_ENGINE_ECHO": "1", "ASR_JOB_LEASE": "1"}
    content = recording(300)
    with launched(*FAKE, **env, FAKE_ENGINE_DELAY="4") as first:
        first.wait_ready()
        job = create(first.client(), content)
        with launched(*FAKE, **env, ASR_MAX_ACTIVE_JOBS="1") as second:
            second.wait_ready()
            assert events(second.client(), job, upto=1)[-1][0] == "segment"
            assert not second.engine_did().count("began")
            os.kill(first.pid, signal.SIGKILL)
            told = events(second.client(), job)
            assert told[-1][0] == "done"
            assert told[-1][2]["attempts"] == 2
            direct = HTTP.post(
                f"{second.url}{PATH}?response_format=full_json",
                content=content,
                headers=RAW,
                timeout=30,
            )
            assert second.client().get(job["urls"]["json"]).text == direct.text


# --- daily hours of a key -------------------------------------------------------------------------


def state_of(client, job):
    return client.get(job["urls"]["self"]).json()["state"]


def test_jobs_of_a_key_that_used_up_its_hours_wait_also_after_a_restart(tmp_path):
    keys = [
        {"name": "short", "key": "s", "audio_hours_per_day": 0.001},
        {"name": "free", "key": "f"},
    ]
    env = {
        "ASR_DATA_DIR": str(tmp_path),
        "ASR_API_KEYS": "\n".join(map(json.dumps, keys)),
        "ASR_MAX_ACTIVE_JOBS": "1",
    }
    short, free = ({"headers": {"x-api-key": key}} for key in "sf")
    with serving(**env, FAKE_ENGINE_DELAY="3600") as server:
        # No job ends before all of them are accepted.
        made = [create(server.client(**short), recording(20)) for _ in range(4)]
    with serving(**env) as server:
        client, other = server.client(**short), server.client(**free)
        assert ended(client, made[0])["state"] == "succeeded"
        wait_for(lambda: "hours of audio are used up" in server.log, 60, "a job that waits")
        assert ended(other, create(other, recording()))["state"] == "succeeded"
        found = [client.get(job["urls"]["self"]).json() for job in made[1:]]
        assert [(job["state"], job["attempts"]) for job in found] == [("queued", 0)] * 3
        assert server.log.count("hours of audio are used up") == 1
    with serving(**env) as server:
        other = server.client(**free)
        assert ended(other, create(other, recording()))["state"] == "succeeded"
        assert state_of(server.client(**short), made[1]) == "queued"


# --- repeated requests --------------------------------------------------------------------------


def test_openai_client_that_retries_joins_its_first_request(server):
    """The client times out and retries before the engine has finished; the engine runs once."""
    began = server.engine_did().count("began")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", timeout=2.5, max_retries=3)
    with client:
        answer = client.audio.transcriptions.create(model="m", file=recording(), prompt="5")
    assert len(answer.text.split()) == 4
    assert server.engine_did().count("began") == began + 1


def test_idempotency_key_joins_on_the_sync_route(server):
    began, cancelled = (server.engine_did().count(word) for word in ("began", "cancelled"))
    content, headers = recording(), RAW | {"idempotency-key": uuid.uuid4().hex}
    with pytest.raises(httpx.ReadTimeout):
        HTTP.post(f"{server.url}{PATH}?prompt=2", content=content, headers=headers, timeout=1)
    for _ in range(2):
        answer = HTTP.post(
            f"{server.url}{PATH}?prompt=2", content=content, headers=headers, timeout=30
        )
        assert len(answer.json()["text"].split()) == 4
    assert server.engine_did().count("began") == began + 1
    assert server.engine_did().count("cancelled") == cancelled
    other = HTTP.post(f"{server.url}{PATH}?prompt=0", content=content, headers=headers)
    assert other.status_code == 200
    assert server.engine_did().count("began") == began + 2


@pytest.fixture(scope="module")
def narrow_server():
    with serving(FAKE_ENGINE_ECHO="1", ASR_MAX_ACTIVE_REQUESTS="1") as server:
        yield server


@contextlib.contextmanager
def working(server, content):
    """Keep the engine busy with a recording during the block."""
    began = server.engine_did().count("began")
    with sending(server, content, "prompt=3600"):
        wait_for(lambda: server.engine_did().count("began") == began + 1, 60, "it in work")
        yield


@contextlib.contextmanager
def sending(server, content, query, headers=""):
    """Send a request; the client disconnects at the end of the block."""
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), 10) as connection:
        head = f"POST {PATH}?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n{headers}"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        yield


def send_with_key(server, content, key):
    headers = RAW | {"idempotency-key": key}
    return HTTP.post(server.url + PATH, content=content, headers=headers, timeout=60)


def test_a_waiting_request_is_joined(narrow_server):
    server, content, key = narrow_server, recording(), uuid.uuid4().hex
    with ThreadPoolExecutor(3) as threads:
        with working(server, recording()):
            began = server.engine_did().count("began")
            same = [threads.submit(send_with_key, server, content, key) for _ in range(3)]
            wait_for(lambda: len(server.request_folders()) == 4, 60, "the others in wait")
        texts = {answer.result().json()["text"] for answer in same}
    assert len(texts) == 1
    assert send_with_key(server, content, key).json()["text"] in texts
    assert server.engine_did().count("began") == began + 1


def test_a_waiting_request_with_a_key_that_leaves_frees_its_files(narrow_server):
    server, content, key = narrow_server, recording(), uuid.uuid4().hex
    with working(server, recording()):
        began = server.engine_did().count("began")
        with sending(server, content, "", f"Idempotency-Key: {key}\r\n"):
            wait_for(lambda: len(server.request_folders()) == 2, 60, "another in wait")
        wait_for(lambda: len(server.request_folders()) == 1, 60, "the end of its files")
    assert send_with_key(server, content, key).status_code == 200
    assert server.engine_did().count("began") == began + 1
