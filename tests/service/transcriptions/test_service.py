"""The routes of transcription, models and probes, over HTTP with an in-process service.

The parser of request bodies also has property tests.
"""

import asyncio
import io
import itertools
import json
import re
import socket

import httpx
import jsonschema
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings, strategies as st
from starlette.requests import Request

from asr.service.access.keys import Keyring
from asr.service.access.limits import Meters
from asr.service.http.body import receive_body
from asr.service.http.fields import MAX_FIELD_BYTES, MAX_FIELDS
from asr.service.http.middleware import KeyCheck
from asr.settings import Settings
from tests.support.inprocess import serving
from tests.support.serving import PATH, make_wav, wait_for

WAV = make_wav()
TEXT = "word0 word1 word2 word3"
RAW = {"content-type": "audio/wav"}
BOUNDARY = "gc0p4Jq0M2Yt08jU534c0p"


@pytest.fixture(scope="module")
def young_server():
    """A server that accepts at most 100 kB and 60 s, and whose engine takes 2 s to load."""
    limits = {"ASR_MAX_UPLOAD_BYTES": "100000", "ASR_MAX_AUDIO_SECONDS": "60"}
    with serving(**limits, FAKE_ENGINE_OPEN_DELAY="2", until="/health") as server:
        yield server


@pytest.fixture(scope="module")
def early_answers(young_server):
    """The answers of /ready and of a transcription, both requested while the engine loads."""
    http = young_server.client()
    return http.get("/ready"), http.post(PATH, content=WAV, headers=RAW)


@pytest.fixture(scope="module")
def small_server(young_server, early_answers):
    young_server.wait_ready()
    return young_server


@pytest.fixture(scope="module")
def http(server):
    return server.client()


def assert_problem(answer, status, *, param=None, code=None):
    """Check for an error in OpenAI's format with a request id that is also in the log."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param
    if code is not None:
        assert error["code"] == code
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    assert error["type"] == kinds.get(status, "invalid_request_error")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    return error["message"]


def post_form(client, fields=(), files=(("file", ("a.wav", WAV)),)):
    """Post a multipart form with repeated field names, which httpx's `data` cannot express."""
    parts = [*files, *((name, (None, value)) for name, value in fields)]
    return client.post(PATH, files=parts)


def body_of(parts, boundary=BOUNDARY):
    """A multipart body of parts (name, rest of Content-Disposition, bytes)."""
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, extra, data in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


# --- bodies -------------------------------------------------------------------------------------


def test_raw_body_with_fields_in_the_query(http):
    query = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = http.post(PATH, params=query, content=WAV, headers=RAW)
    assert answer.status_code == 200
    assert [word["word"] for word in answer.json()["words"]] == TEXT.split()


@pytest.mark.parametrize("kind", ["audio/x-wav", "video/mp4", "application/octet-stream"])
def test_raw_body_of_any_audio_type(http, kind):
    answer = http.post(PATH, content=WAV, headers={"content-type": kind})
    assert answer.json()["text"] == TEXT


def test_fields_may_follow_the_file(http):
    body = body_of([("file", '; filename="a"', WAV), ("response_format", "", b"text")])
    assert http.post(PATH, content=body, headers=FORM).text == TEXT + "\n"


def test_file_without_a_name(http):
    assert http.post(PATH, content=body_of([("file", "", WAV)]), headers=FORM).status_code == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\..\\b", "x" * 3000, ""])
def test_a_clients_file_name_never_touches_the_disk(tmp_path, name):
    body = body_of([("file", f'; filename="{name}"', WAV)])
    receive([body], tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["upload"]
    assert (tmp_path / "upload").read_bytes() == WAV


def receive(pieces, folder, content_type=FORM["content-type"], max_bytes=1 << 20):
    """Run `receive_body` on a body that arrives in these pieces."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    queue = iter(messages)

    async def pop():
        return next(queue)

    scope = http_scope((b"content-type", content_type.encode("latin-1")))
    return asyncio.run(receive_body(Request(scope, pop), folder / "upload", max_bytes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("split")


# The file contains nearly a boundary and ends in the start of one; parsers often fail on this.
TRICKY = b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n--\r"
SPLIT_BODY = body_of(
    [("language", "", b"en"), ("file", '; filename="ä"', TRICKY), ("prompt", "", b"")]
)


def test_every_split_in_two_gives_the_same(folder):
    for at in range(len(SPLIT_BODY) + 1):
        body = receive([SPLIT_BODY[:at], SPLIT_BODY[at:]], folder)
        assert body.fields == [("language", "en"), ("prompt", "")], at
        assert (folder / "upload").read_bytes() == TRICKY, at


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(SPLIT_BODY)), max_size=40))
def test_any_split_gives_the_same(folder, cuts):
    edges = [0, *sorted(cuts), len(SPLIT_BODY)]
    pieces = [SPLIT_BODY[a:b] for a, b in itertools.pairwise(edges)]
    body = receive(pieces, folder)
    assert body.fields == [("language", "en"), ("prompt", "")]
    assert body.n_file_bytes == len(TRICKY)
    assert (folder / "upload").read_bytes() == TRICKY


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.text("abcdef[]-_ä", min_size=1).filter(str.strip), st.binary(max_size=99)),
        max_size=9,
    ),
    data=st.binary(max_size=999),
)
def test_parts_come_out_as_they_went_in(folder, parts, data):
    parts = [(name, value) for name, value in parts if BOUNDARY.encode() not in value]
    body = receive([body_of([*((n, "", v) for n, v in parts), ("file", "", data)])], folder)
    assert body.fields == [(name, value.decode("utf-8", "replace")) for name, value in parts]
    assert (folder / "upload").read_bytes() == data


# --- bad bodies ---------------------------------------------------------------------------------


def test_two_files(http):
    answer = post_form(http, files=[("file", ("a", WAV)), ("file", ("b", WAV))])
    assert_problem(answer, 400, param="file")


@pytest.mark.parametrize("fields", [[("model", "whisper-1")], []])
def test_no_file(http, fields):
    body = body_of([(name, "", value.encode()) for name, value in fields])
    message = assert_problem(http.post(PATH, content=body, headers=FORM), 400, param="file")
    assert "missing" in message


def test_empty_bodies(http):
    assert_problem(http.post(PATH, content=b"", headers=RAW), 400, param="file")
    assert_problem(http.post(PATH, content=b"", headers=FORM), 400)
    assert_problem(post_form(http, files=[("file", ("a", b""))]), 400, param="file")
    assert_problem(http.post(PATH), 400)


def test_truncated_form(http):
    whole = body_of([("file", "", WAV)])
    for end in (30, 100, len(whole) // 2, len(whole) - 5):
        answer = http.post(PATH, content=whole[:end], headers=FORM)
        assert_problem(answer, 400, code="malformed_body")


def test_audio_that_curl_sends_as_a_form(http):
    """curl --data-binary names this type unless it is told another one."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = http.post(PATH, content=b"\xff\xfb" + WAV[:1000], headers=kind)
    assert "multipart/form-data" in assert_problem(answer, 400, code="malformed_body")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "audio", ""])
def test_another_content_type(http, kind):
    answer = http.post(PATH, content=b"{}", headers={"content-type": kind})
    message = assert_problem(answer, 400, code="unsupported_body")
    assert "multipart/form-data" in message


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'x' * 3000}"])
def test_bad_boundaries(http, boundary):
    headers = {"content-type": "multipart/form-data" + boundary}
    answer = http.post(PATH, content=body_of([("file", "", WAV)]), headers=headers)
    assert_problem(answer, 400, code="malformed_body")


def test_not_audio(http):
    message = assert_problem(http.post(PATH, content=b"hello" * 99, headers=RAW), 400, param="file")
    assert "wav, flac, mp3" in message


def test_a_playlist_named_wav_opens_nothing(http):
    playlist = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    answer = post_form(http, files=[("file", ("a.wav", playlist))])
    assert_problem(answer, 400, param="file")


def test_declared_length_over_the_limit_is_refused_before_the_body(small_server):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    port = httpx.URL(small_server.url).port
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.sendall(f"{head}Content-Length: 1000000000000\r\n\r\nRIFF".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("n_bytes", [100_001, 20_000_000])
def test_declared_and_sent_over_the_limit(small_server, n_bytes):
    answer = small_server.client().post(PATH, content=bytes(n_bytes), headers=RAW)
    message = assert_problem(answer, 413, param="file", code="too_large")
    assert "limit (100000)" in message
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("headers", [RAW, FORM])
def test_chunked_over_the_limit(small_server, headers):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n'.encode()

    def pieces():
        yield head
        for _ in range(200):
            yield bytes(1000)

    answer = small_server.client().post(PATH, content=pieces(), headers=headers)
    assert_problem(answer, 413, param="file")
    wait_for(lambda: not small_server.request_folders(), 60, "an empty work directory")


def test_longer_than_the_limit_of_seconds(small_server):
    answer = small_server.client().post(PATH, content=make_wav(61, 8000)[:99_000], headers=RAW)
    assert answer.status_code == 200  # truncated: only its header exceeds the limit
    answer = small_server.client().post(
        PATH, content=_long_flac(), headers={"content-type": "audio/flac"}
    )
    assert_problem(answer, 413, param="file", code="audio_too_long")


def _long_flac():
    target = io.BytesIO()
    soundfile.write(target, np.zeros(61 * 16_000, np.int16), 16_000, format="FLAC")
    assert len(target.getvalue()) < 90_000
    return target.getvalue()


# --- fields -------------------------------------------------------------------------------------


def test_unknown_field_is_a_warning(http):
    answer = post_form(http, [("response_format", "full_json"), ("colour", "blue")])
    assert answer.json()["warnings"] == ["field 'colour' is not known and was ignored"]


def test_ignored_option_is_a_warning(http):
    answer = post_form(http, [("response_format", "verbose_json"), ("language", "en")])
    assert answer.json()["warnings"] == ["the fake engine ignores language"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("model", "a"), ("model", "b")], "model"),
        ([("response_format", "docx")], "response_format"),
        ([("temperature", "2")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("stream", "perhaps")], "stream"),
        ([("language", "en"), ("languages[]", "en")], "languages"),
        ([("timestamp_granularities[]", "syllable")], "timestamp_granularities"),
        ([("include[]", "tokens")], "include"),
        ([("language", "klingonish")], "language"),
        ([("languages[]", "en"), ("languages[]", "klingonish")], "languages"),
        ([("task", "translate")], "task"),
        ([("chunking_strategy", "{broken")], "chunking_strategy"),
        ([("chunking_strategy", '{"a":' * 9000)], "chunking_strategy"),
        ([("chunking_strategy[type]", "client_vad")], "chunking_strategy"),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "nan")],
            "chunking_strategy",
        ),
        ([("vad", "psychic")], "vad"),
        ([("vad_min_silence", "99")], "vad_min_silence"),
        ([("max_line_width", "3")], "max_line_width"),
        ([("max_cue_duration", "inf")], "max_cue_duration"),
        ([("prompt", "x" * 8193)], "prompt"),
        ([("colour", "x" * (MAX_FIELD_BYTES + 1))], "colour"),
    ],
)
def test_bad_fields_are_named(http, fields, param):
    message = assert_problem(post_form(http, fields), 400, param=param)
    assert message.startswith(f"{param}: ")


def test_silero_vad_works_or_is_refused(http):
    answer = post_form(http, [("vad", "silero")])
    if answer.status_code != 200:
        assert_problem(answer, 400, param="vad")


def test_too_many_fields(http):
    fields = [(f"f{i}", "1") for i in range(MAX_FIELDS + 1)]
    assert_problem(post_form(http, fields), 400, code="malformed_body")
    assert post_form(http, fields[:MAX_FIELDS]).status_code == 200


# --- answers ------------------------------------------------------------------------------------


def test_full_json_keeps_its_published_schema(http):
    schema = http.get("/v1/schemas/transcript.json").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    answer = post_form(http, [("response_format", "full_json")]).json()
    jsonschema.validate(answer, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**answer, "duration": "2.0"}, schema)
    words = answer["segments"][0]["words"]
    assert [word["start"] for word in words] == [0, 0.5, 1, 1.5]
    assert {word["timing"] for word in words} == {"engine"}
    assert (answer["engine"], answer["duration"]) == ("fake engine 1.0", 2.0)


def test_tsv(http):
    answer = post_form(http, [("response_format", "tsv")])
    assert answer.text == f"start\tend\ttext\n0\t2000\t{TEXT}\n"
    assert answer.headers["content-type"] == "text/tab-separated-values; charset=utf-8"


def test_line_width_shapes_cues(http):
    fields = [("response_format", "vtt"), ("max_line_width", "12"), ("max_line_count", "1")]
    answer = post_form(http, fields)
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert [line for line in answer.text.splitlines() if line.startswith("word")] == [
        "word0 word1",
        "word2 word3",
    ]


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "tsv", "full_json"])
def test_silence_is_an_empty_transcript(http, response_format):
    query = {"vad": "webrtc", "response_format": response_format}
    answer = http.post(PATH, params=query, content=make_wav(3, amplitude=0), headers=RAW)
    assert answer.status_code == 200
    assert "word" not in answer.text.replace('"words"', "")
    if "json" in response_format:
        assert answer.json()["text"] == ""


def test_stream_of_silence_is_done_at_once(http):
    query = {"vad": "webrtc", "stream": "true"}
    answer = http.post(PATH, params=query, content=make_wav(3, amplitude=0), headers=RAW)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:7] == "data: {"]
    assert [(event["type"], event["text"]) for event in events] == [("transcript.text.done", "")]


# --- other routes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", PATH, 405), ("POST", "/health", 405)],
)
def test_no_such_route(http, method, path, status):
    answer = http.request(method, path)
    assert_problem(answer, status)
    message = answer.json()["error"]["message"]
    if status == 405:
        assert answer.headers["allow"] == {"GET": "POST", "POST": "GET, HEAD"}[method]
        assert message == "this route accepts " + {"GET": "POST", "POST": "GET"}[method]
    else:
        assert "begin with /v1" in message


def test_an_error_is_in_the_log_under_its_id(server, http):
    request_id = http.get("/nowhere").headers["x-request-id"]
    assert wait_for(lambda: f" {request_id}\n" in server.log, 60)


def test_health_and_readiness(http):
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready", "engine": "fake engine 1.0"}


def test_models(http):
    assert http.get("/v1/models").json()["data"][0]["id"] == "fake"
    assert http.get("/v1/models/whisper-1").json()["id"] == "whisper-1"


def test_not_ready_while_the_engine_loads(early_answers):
    ready, transcript = early_answers
    assert ready.status_code == 503
    assert ready.headers["retry-after"] == "1"
    assert ready.json()["status"] == "loading"
    assert "loading" in ready.json()["reason"]
    # A recording that arrives while the engine loads is transcribed after that.
    assert transcript.json()["text"] == TEXT


def test_a_key_may_have_accents():
    """Clients send header values as UTF-8, but frameworks decode them as Latin-1."""
    statuses = []

    async def app(scope, receive, send):
        statuses.append(200)

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    check = KeyCheck(app, Keyring(Settings(api_key="sésame")), Meters())
    for key in ("sésame".encode(), b"sesame"):
        for header in ((b"x-api-key", key), (b"authorization", b"bearer  " + key)):
            asyncio.run(check(http_scope(header), receive, send))
    assert [status for status in statuses if status] == [200, 200, 401, 401]


def http_scope(*headers):
    path = "/v1/models"
    return {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}


def test_openapi_documents_the_form(http):
    schema = http.get("/openapi.json").json()
    body = schema["paths"][PATH]["post"]["requestBody"]["content"]
    form = body["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert {"model", "language", "stream", "timestamp_granularities"} < set(form["properties"])
    assert "full_json" in form["properties"]["response_format"]["enum"]
    assert "audio/*" in body
    assert "/docs" not in schema["paths"]
    assert http.get("/docs").status_code == 200


def test_schema_has_no_dangling_reference(http):
    text = http.get("/openapi.json").text
    names = set(json.loads(text)["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/([^"]+)"', text)) <= names
    assert '"#/$defs/' not in text


ONE_SPEAKER = (
    "speakers are not told apart, so all segments have the speaker A; "
    "channels=split names the channels"
)
SILENT = "nothing was recognised: the recording is silent, all samples are zero"


@pytest.mark.parametrize(
    "name", ["json", "verbose_json", "diarized_json", "full_json", "text", "srt", "vtt", "tsv"]
)
def test_a_transcript_without_words_says_why_in_every_format(http, name):
    query = {"vad": "webrtc", "response_format": name}
    answer = http.post(PATH, params=query, content=make_wav(1, amplitude=0), headers=RAW)
    expected = [*([ONE_SPEAKER] if name == "diarized_json" else []), SILENT]
    assert json.loads(answer.headers["x-transcript-warnings"]) == expected
    if name.endswith("json"):
        assert answer.json()["warnings"] == expected
    elif name == "vtt":
        assert answer.text == f"WEBVTT\n\nNOTE {SILENT}\n"
    else:
        assert answer.text.strip() in ("", "start\tend\ttext")


def test_a_stream_without_words_says_why(http):
    query = {"vad": "webrtc", "stream": "true"}
    answer = http.post(PATH, params=query, content=make_wav(1, amplitude=0), headers=RAW)
    (event,) = [json.loads(it[6:]) for it in answer.text.splitlines() if it[:7] == "data: {"]
    assert event["warnings"] == [SILENT]


def test_a_transcript_with_words_has_no_such_header(http):
    answer = post_form(http)
    assert answer.json()["text"]
    assert "x-transcript-warnings" not in answer.headers
