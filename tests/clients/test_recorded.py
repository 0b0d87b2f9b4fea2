"""Requests of applications that cannot be installed here, as their sources send them.

The requests of Bazarr and speakr are in tests/service/compat.
"""

import base64
import json

from tests.support.serving import HTTP, PATH, make_wav

WAV = make_wav(2.0)
WORDS = "word0 word1 word2 word3"


def test_open_webui_sends_a_form(server):
    """`transcribe` in backend/open_webui/routers/audio.py of open-webui/open-webui."""
    answer = HTTP.post(
        server.url + PATH,
        data={"model": "whisper-1", "language": "en"},
        files={"file": ("3f1c.webm", WAV)},
    )
    assert answer.json()["text"] == WORDS


def test_open_webui_sends_json(server):
    """The same function with `audio.stt.openai.api_request_format`, which OpenRouter needs."""
    audio = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    body = {"model": "whisper-1", "input_audio": audio, "language": "en"}
    assert HTTP.post(server.url + PATH, json=body).json()["text"] == WORDS


def subtitle_edit(server, *more):
    """`TranscribeAsync` of SubtitleEdit/subtitleedit.

    It is in src/ui/Features/Video/SpeechToText/OpenAiCompatible/OpenAiSttService.cs.
    """
    fields = [
        ("file", ("329c7fae.wav", WAV, "audio/wav")),
        ("model", (None, "whisper-1")),
        ("language", (None, "en")),
        ("response_format", (None, "json")),
        ("timestamp_granularities[]", (None, "segment")),
        ("timestamp_granularities[]", (None, "word")),
        *((name, (None, value)) for name, value in more),
    ]
    answer = HTTP.post(server.url + PATH, files=fields)
    assert answer.status_code == 200, answer.text
    return answer


def test_subtitle_edit_gets_the_times_of_segments(server):
    body = subtitle_edit(server).json()
    assert body["text"] == WORDS
    assert [(item["start"], item["end"]) for item in body["segments"]] == [(0.0, 2.0)]


def test_subtitle_edit_gets_the_times_of_a_stream(server):
    """It ignores events without an `event:` line.

    It takes segments from `segments` of the last event, or from `segment` of others. An `id` that
    is no integer makes it ignore the event.
    """
    segments, text = [], ""
    for block in subtitle_edit(server, ("stream", "true")).text.split("\n\n"):
        lines = [line.partition(": ")[::2] for line in block.split("\n") if line]
        event = dict(lines)
        match event.get("event"):
            case "transcript.text.delta":
                text += json.loads(event["data"])["delta"]
            case "transcript.text.segment":
                segments += [json.loads(event["data"]).get("segment")]
            case "transcript.text.done":
                segments = list(filter(None, segments)) or json.loads(event["data"])["segments"]
    assert text == WORDS
    assert [(item["start"], item["end"]) for item in segments] == [(0.0, 2.0)]
    assert [item["id"] for item in segments] == [0]


def test_the_last_event_of_a_stream_has_only_the_times_that_were_asked_for(server):
    fields = {"stream": "true", "timestamp_granularities[]": "word"}
    answer = HTTP.post(server.url + PATH, data=fields, files={"file": ("a.wav", WAV)})
    (done,) = [line for line in answer.text.split("\n") if "transcript.text.done" in line][1:]
    body = json.loads(done.removeprefix("data: "))
    assert " ".join(word["word"] for word in body["words"]) == WORDS
    assert "segments" not in body
