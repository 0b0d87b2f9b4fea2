"""The limits on fields and on JSON texts, which hold wherever they come from."""

import json
import threading
import time

import pytest
from fastapi.exceptions import RequestValidationError

from asr.config import AudioLimits
from asr.errors import AsrError, without_places
from asr.service.errors import Malformed, TooLarge
from asr.service.http.fields import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_LIST_ITEMS,
    MAX_NAME_BYTES,
    check_fields,
    check_query,
)
from asr.service.http.json_body import read_json
from asr.service.http.problems import Problem, problem_of
from asr.service.json_text import MAX_DEPTH, MAX_MARKS, check_structure
from asr.service.live.client_events import MAX_EVENT_CHARACTERS, parse_event
from asr.service.transcriptions.form import parse_fields


@pytest.mark.parametrize(
    "pairs",
    [
        [(f"f{n}", "") for n in range(MAX_FIELDS + 1)],
        [("keywords", "x")] * (MAX_FIELDS + MAX_LIST_ITEMS + 1),
        [("n" * (MAX_NAME_BYTES + 1), "")],
        [("ü" * (MAX_NAME_BYTES // 2 + 1), "")],
        [("prompt", "x" * (MAX_FIELD_BYTES + 1))],
        [("prompt", "\u20ac" * (MAX_FIELD_BYTES // 3 + 1))],
    ],
)
def test_fields_beyond_a_limit_are_refused(pairs):
    with pytest.raises(Problem) as refused:
        check_fields(pairs)
    assert refused.value.status == 400
    assert len(refused.value.message) < 200


def test_fields_within_the_limits_are_accepted():
    fields = [(f"f{n}", "x") for n in range(MAX_FIELDS - 3)]
    fields += [("keywords", "x")] * MAX_LIST_ITEMS + [("n" * MAX_NAME_BYTES, "")]
    fields += [("prompt", "x" * MAX_FIELD_BYTES)]
    check_fields(fields)
    check_fields([("text", "x" * (MAX_FIELD_BYTES + 1))], long_field="text")
    check_query(b"&".join(b"a=b" for _ in range(MAX_FIELDS + MAX_LIST_ITEMS)))


def test_a_query_is_counted_before_it_is_parsed():
    with pytest.raises(Problem) as refused:
        check_query(b"&" * (MAX_FIELDS + MAX_LIST_ITEMS))
    assert refused.value.code == "too_many_fields"


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * MAX_MARKS,
        "{" + '"a":1,' * MAX_MARKS,
        "[" + "[]," * MAX_MARKS,
        "[" + '"\\"",' * MAX_MARKS,
        "[" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1),
        '["\\\\", ' + "[" * MAX_DEPTH,
    ],
)
def test_json_with_too_much_structure_is_refused(text):
    with pytest.raises(Malformed):
        check_structure(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"',
        '"\\',
        "]]]]" * 10,
        json.dumps({"text": 'a [[[[[[[[[[[[[[[[[[[[ \\ " { , : ' * 5000, "b": [1, 2]}),
        json.dumps({"text": "\u00e4\n" * 100_000, "keywords": ["x"] * 100}),
        json.dumps({f"f{n}": "x" for n in range(64)} | {"keywords": ["x"] * 100}),
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
    ],
)
def test_what_is_inside_of_strings_does_not_count(text):
    check_structure(text)


@pytest.mark.parametrize(
    "text",
    [
        b"{" + b",".join(b'"f%06d":""' % n for n in range(300_000)) + b"}",
        b'{"keywords":[' + b"1," * 1_000_000 + b"1]}",
        b'{"a":' + b"[" * 2_000_000,
        b'{"a":{' + b",".join(b'"f%06d":[]' % n for n in range(200_000)) + b"}}",
    ],
)
def test_a_json_body_with_many_values_is_refused_before_it_is_parsed(text, monkeypatch):
    monkeypatch.setattr("json.loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(Malformed):
        read_json(text, MAX_FIELD_BYTES)


def test_long_strings_let_other_threads_run():
    """The regular expressions hold the interpreter only for a step, even with many escapes."""
    text = '["' + "\\n" * 1_000_000 + '"]'
    gaps, latest, is_over = [], time.perf_counter(), False

    def watch():
        nonlocal latest
        while not is_over:
            now = time.perf_counter()
            gaps.append(now - latest)
            latest = now
            time.sleep(0)

    thread = threading.Thread(target=watch)
    thread.start()
    check_structure(text)
    is_over = True
    thread.join()
    assert len(gaps) > 3  # without steps there would be one gap, over the whole text


@pytest.mark.parametrize(
    "session",
    [
        {"x": [1] * MAX_MARKS},
        {"audio": {"input": {"transcription": {"keywords": ["x"] * 101}}}},
        {"audio": {"input": {"transcription": {"keywords": ["x" * MAX_EVENT_CHARACTERS]}}}},
        {"audio": {"input": {"transcription": {"prompt": "x" * 8193}}}},
        {"x": "x" * MAX_EVENT_CHARACTERS},
    ],
)
def test_events_of_a_session_have_limits(session):
    text = json.dumps({"type": "session.update", "session": session})
    with pytest.raises(AsrError) as refused:
        parse_event(text)
    assert problem_of(refused.value).status in (400, 413)


def test_only_audio_may_be_long():
    text = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * MAX_EVENT_CHARACTERS})
    assert len(parse_event(text).audio) == MAX_EVENT_CHARACTERS
    with pytest.raises(TooLarge):
        parse_event(json.dumps({"type": "input_audio_buffer.clear", "x": "x" * 300_000}))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no server answers at http://10.0.0.5:8000, https://u:p@h/v1", "no server answers at"),
        ("no server answered; the last error was gpu-1.internal:8000: status 500", "status 500"),
        ("no server answers at 10.1.2.3", "no server answers at"),
        ("no server answers at [fe80::1]:8000", "no server answers at"),
        ("Moonshine has no a.onnx in /srv/models/moonshine: install it", "install it"),
        ("Load model from /srv/campplus.onnx failed: Protobuf parsing failed.", "failed"),
        ("Load model from ~/models/campplus.onnx failed", "failed"),
        ('connection to server at "db.internal" (10.0.0.7), port 5432 failed', "failed"),
        ('could not translate host name "db.internal" to address', "to address"),
    ],
)
def test_answers_name_no_address_and_no_path(message, shown):
    text = without_places(message)
    assert shown in text
    for secret in ("10.", "gpu-1", "u:p", "fe80", "/srv", "db.internal", "8000"):
        assert secret not in text


@pytest.mark.parametrize(
    "message",
    ["the engine is loading", "no answer for the chunk at 3.5 s", "status 400: bad request"],
)
def test_other_messages_stay(message):
    assert without_places(message) == message


def test_a_malformed_id_gets_an_error_without_a_pattern():
    message = "must be an id that the service answered with: 32 digits and letters a to f"
    with pytest.raises(Problem) as refused:
        parse_fields([("upload_id", "xyz")], "webrtc", AudioLimits())
    assert refused.value.message == f"upload_id: {message}"
    found = {"loc": ("query", "after"), "msg": "no match", "type": "string_pattern_mismatch"}
    assert problem_of(RequestValidationError([found])).message == f"after: {message}"
