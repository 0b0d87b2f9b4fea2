"""JSON bodies with a recording in base64."""

import base64
import json

import pytest

from asr.service.http.json_body import MAX_JSON_BYTES, read_json
from asr.service.http.problems import Problem

SOUND = bytes(range(256)) * 300 + b"\xfb\xff"
PLAIN = base64.b64encode(SOUND).decode()
LIMIT = 1 << 16


def read(fields, limit=LIMIT):
    return read_json(json.dumps(fields).encode(), limit)


@pytest.mark.parametrize("name", ["file", "audio", "input_audio"])
@pytest.mark.parametrize(
    "value",
    [
        PLAIN,
        PLAIN.rstrip("="),
        base64.urlsafe_b64encode(SOUND).decode(),
        base64.encodebytes(SOUND).decode(),
        f"data:audio/wav;base64,{PLAIN}",
        f"data:audio/webm;codecs=opus;base64,{PLAIN}",
        {"data": PLAIN, "format": "wav"},
    ],
)
def test_a_recording_in_base64(name, value):
    assert read({name: value, "model": "whisper-1"}) == ([("model", "whisper-1")], SOUND)


@pytest.mark.parametrize("escaped", [("/", "\\/"), ("+", "\\u002B"), ("=", "\\u003d")])
def test_the_escapes_of_php_and_dotnet(escaped):
    body = json.dumps({"file": PLAIN}).replace(*escaped).encode()
    assert read_json(body, LIMIT) == ([], SOUND)


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"file": "no base64!"}, 400, "file"),
        ({"file": "A"}, 400, "file"),
        ({"file": "data:audio/wav,abc"}, 400, "file"),
        ({"audio": "https://example.com/a.wav"}, 400, "addresses are not fetched"),
        ({"input_audio": {"format": "wav"}}, 400, "input_audio"),
        ({"input_audio": [PLAIN]}, 400, "input_audio"),
        ({"file": 7}, 400, "file"),
        ({"file": PLAIN, "audio": PLAIN}, 400, "one recording"),
        ({"prompt": "x" * LIMIT}, 413, "a form without a file"),
        ({"input_audio": {"data": PLAIN, "format": "x" * LIMIT}}, 413, "a form without a file"),
    ],
)
def test_a_bad_recording_is_named(fields, status, named):
    with pytest.raises(Problem) as refused:
        read(fields)
    assert refused.value.status == status
    assert named in refused.value.message
    assert len(refused.value.message) < 200


def test_an_empty_recording_is_none():
    assert read({"file": "", "audio": None}) == ([], None)


def test_references_of_speakers_may_be_long():
    pairs, recording = read({"file": PLAIN, "known_speaker_references": [f"data:,{PLAIN}"] * 4})
    assert recording == SOUND
    assert [name for name, _ in pairs] == ["known_speaker_references"] * 4


def test_openais_longest_file_fits():
    assert MAX_JSON_BYTES > 25_000_000 * 4 / 3 + 1_000_000
