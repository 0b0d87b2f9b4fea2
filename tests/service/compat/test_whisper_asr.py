"""The routes of whisper-asr-webservice, with the requests of Bazarr and speakr.

Sources of the requests: custom_libs/subliminal_patch/providers/whisperai.py of
morpheus65535/bazarr, src/services/transcription/connectors/asr_endpoint.py of murtaza-nasir/speakr,
app/webservice.py of ahmetoner/whisper-asr-webservice.
"""

import contextlib
import http.client
import json
import wave
from dataclasses import replace

import pytest
import srt

from asr.config import AudioLimits
from asr.service.compat import receive, whisper_asr, whisper_cpp
from asr.service.compat.fields import Fields
from asr.service.compat.receive import Asked
from asr.service.compat.whisper_asr import translate
from asr.service.http.problems import Problem
from asr.service.transcriptions.form import parse_fields
from asr.types import Segment, Transcript
from tests.support.inprocess import serving
from tests.support.serving import HTTP, make_wav, wait_for

WAV = make_wav(2.0)
PCM = WAV[44:]
WORDS = "word0 word1 word2 word3"


def post(server, query, audio=WAV, path="/asr", part="audio_file"):
    return HTTP.post(server.url + path, params=query, files={part: audio})


def given(query):
    return dict(translate(Fields(query.items(), "off")).pairs)


def parsed(query):
    return parse_fields(given(query).items(), "off", AudioLimits())


def warned(query):
    return translate(Fields(query.items(), "webrtc")).warnings


def refused(server, query, name):
    answer = post(server, query)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name}: ")
    return error


# --- the clients ----------------------------------------------------------------------------------


def test_bazarr_gets_subtitles_of_raw_pcm(server):
    query = {"task": "transcribe", "language": "en", "output": "srt", "encode": "false"}
    answer = post(server, query, PCM)
    assert answer.status_code == 200
    cues = list(srt.parse(answer.text))
    assert " ".join(cue.content for cue in cues).split() == WORDS.split()
    assert cues[-1].end.total_seconds() == 2.0
    assert answer.headers["content-type"].startswith("application/x-subrip")
    assert answer.headers["asr-engine"] == "fake engine 1.0"


def test_bazarr_asks_for_the_language(server):
    answer = post(server, {"encode": "false"}, PCM, "/detect-language")
    body = answer.json()
    assert (body["detected_language"], body["language_code"]) == ("english", "en")
    assert body["confidence"] is None
    assert "was not detected" in body["warnings"][0]


def test_speakr_gets_segments(server):
    query = {
        "encode": True,
        "task": "transcribe",
        "output": "json",
        "language": "en",
        "diarize": True,
        "enable_diarization": True,
        "min_speakers": 2,
        "max_speakers": 4,
        "initial_prompt": "0",
        "hotwords": "Kwame, Zürich",
        "model": "large-v3",
    }
    audio = ("meeting.wav", WAV, "audio/wav")
    body = post(server, query, audio).json()
    assert (body["text"], body["language"], body["duration"]) == (WORDS, "en", 2.0)
    (segment,) = body["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.0, 2.0, WORDS)
    assert "words" not in segment
    for name in ("diarize", "enable_diarization", "min_speakers", "max_speakers"):
        assert any(f"field '{name}' was ignored" in text for text in body["warnings"])


@pytest.mark.parametrize("able", [True, False])
def test_embeddings_are_not_promised_by_another_field(able):
    asked = Fields([("return_speaker_embeddings", "true")], "webrtc", tells_speakers=able)
    told = "field 'return_speaker_embeddings' was ignored: embeddings are never sent"
    assert list(translate(asked).warnings) == [told]


def test_speakers_are_channels(server):
    body = post(server, {"output": "json", "channels": "split"}).json()
    assert [segment["speaker"] for segment in body["segments"]] == ["channel 0"]


# --- fields ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["txt", "vtt", "srt", "tsv"])
def test_text_formats(server, output):
    answer = post(server, {"output": output})
    assert answer.status_code == 200
    assert all(word in answer.text for word in WORDS.split())
    assert "x-transcript-warnings" not in answer.headers


def test_the_default_is_text(server):
    assert post(server, {}).text == WORDS + "\n"


def test_warnings_of_a_text_are_in_a_header(server):
    answer = post(server, {"output": "srt", "word_timestamps": "true", "unheard_of": "1"})
    warnings = json.loads(answer.headers["x-transcript-warnings"])
    assert any("'word_timestamps'" in text for text in warnings)
    assert any("'unheard_of'" in text for text in warnings)


def test_words_on_request(server):
    (segment,) = post(server, {"output": "json", "word_timestamps": True}).json()["segments"]
    assert segment["words"][1] == {"word": "word1", "start": 0.5, "end": 1.0, "probability": 0.9}


def test_fields_in_the_form_and_the_file_called_file(server):
    answer = HTTP.post(f"{server.url}/asr", data={"output": "json"}, files={"file": WAV})
    assert answer.json()["text"] == WORDS


def test_a_bare_body(server):
    headers = {"content-type": "audio/wav"}
    answer = HTTP.post(f"{server.url}/asr", params={"output": "txt"}, content=WAV, headers=headers)
    assert answer.text == WORDS + "\n"


def test_a_translation_is_refused_with_advice(server):
    error = refused(server, {"task": "translate"}, "task")
    assert "translate its text with another service" in error["message"]
    assert error["code"] == "translation_not_supported"  # as on the main route


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"output": "docx"}, "output"),
        ({"task": "summarise"}, "task"),
        ({"encode": "perhaps"}, "encode"),
        ({"vad_filter": "perhaps"}, "vad_filter"),
        ({"stream": "true"}, "stream"),
        ({"response_format": "json"}, "response_format"),
        ({"output": "json", "include[]": "logprobs"}, "include[]"),
        ({"timestamp_granularities[0]": "word"}, "timestamp_granularities[0]"),
        ({"initial_prompt": "x" * 9000}, "initial_prompt"),
        ({"temperature": "7"}, "temperature"),
        ([("output", "srt"), ("output", "vtt")], "output"),
    ],
)
def test_wrong_fields_are_named(server, query, name):
    refused(server, query, name)


def test_a_request_without_a_recording(server):
    answer = HTTP.post(f"{server.url}/asr", files={"sound": WAV[:400]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "audio_file"


def test_what_is_not_audio_is_refused_as_on_the_main_route(server):
    main = HTTP.post(f"{server.url}/v1/audio/transcriptions", files={"file": b"no audio" * 99})
    answer = post(server, {}, b"no audio" * 99)
    assert answer.status_code == main.status_code
    assert answer.json() == main.json()


def test_translation_of_fields():
    query = {"language": "German", "initial_prompt": "Names", "vad_filter": "True", "max_cps": "12"}
    fields = given(query)
    assert parsed(query).options.decode.language == "de"
    assert fields["prompt"] == "Names"
    assert fields["vad"] == "webrtc"  # the service has none by default
    assert fields["max_cps"] == "12"
    assert given({"vad_filter": "0"})["vad"] == "off"
    assert "vad" not in given({})
    assert parsed({"language": "auto"}).options.decode.language is None
    assert parsed({"language": "en"}).options.decode.language == "en"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (None, None, "auto"),
        ("2", "5", "2-5"),
        ("3", None, "3-20"),
        (None, "4", "1-4"),
        ("0", "0", "1-20"),
        ("2", "99", "2-20"),
    ],
)
def test_bounds_of_the_number_of_speakers(low, high, expected):
    query = {"diarize": "true", "min_speakers": low or "", "max_speakers": high or ""}
    found = translate(Fields(query.items(), "off", tells_speakers=True))
    assert dict(found.pairs)["speakers"] == expected


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        ("5", "2", "max_speakers"),
        ("21", "", "min_speakers"),
        ("-1", "", "min_speakers"),
        ("", "-1", "max_speakers"),
        ("nan", "", "min_speakers"),
        ("", "inf", "max_speakers"),
        ("two", "", "min_speakers"),
    ],
)
def test_wrong_bounds_of_the_number_of_speakers(low, high, name):
    query = {"diarize": "true", "min_speakers": low, "max_speakers": high}
    with pytest.raises(Problem, match=name) as caught:
        translate(Fields(query.items(), "off", tells_speakers=True))
    assert caught.value.param == name


def test_flags_that_are_off_give_no_warning():
    query = {"diarize": "False", "enable_diarization": "0", "word_timestamps": "false"}
    assert warned(query) == ()


# --- raw PCM --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_left", "n_copied"), [(0, 64_000), (1, 64_000), (64_000, 0)])
def test_pcm_becomes_a_wav_file(tmp_path, monkeypatch, n_left, n_copied):
    monkeypatch.setattr(receive, "COPY_BYTES", 1000)
    pcm = tmp_path / "upload"
    pcm.write_bytes((PCM + b"\0")[: n_copied + n_left % 2])
    notes = []
    with wave.open(str(receive.as_wav(pcm, notes))) as made:
        assert made.getparams()[:4] == (1, 2, 16_000, n_copied // 2)
        assert made.readframes(n_copied) == PCM[:n_copied]
    assert len(notes) == n_left % 2
    assert not pcm.exists()


def test_a_wav_file_that_is_sent_as_pcm_is_read_as_wav(server):
    body = post(server, {"output": "json", "encode": "false"}).json()
    assert body["duration"] == 2.0
    assert "this is a WAV file" in body["warnings"][0]


def test_no_pcm_at_all(server):
    answer = post(server, {"encode": "false"}, b"")
    assert answer.status_code == 400


# --- what the routes share with the main route ----------------------------------------------------


def test_keys_and_their_scopes(tmp_path):
    keys = tmp_path / "keys"
    record = {"name": "a", "key": "sesame-42-open", "scopes": ["jobs"]}
    keys.write_text(json.dumps(record) + "\n")
    with serving(ASR_API_KEY="sesame-43-open", ASR_API_KEYS_FILE=str(keys)) as server:
        for path in ("/asr", "/detect-language", "/inference"):
            part = "file" if path == "/inference" else "audio_file"
            send = {"url": server.url + path, "files": {part: WAV}}
            assert HTTP.post(**send).status_code == 401
            without_scope = {"authorization": "Bearer sesame-42-open"}
            assert HTTP.post(**send, headers=without_scope).status_code == 403
            assert HTTP.post(**send, headers={"x-api-key": "sesame-43-open"}).status_code == 200


def test_the_queue_is_the_same():
    limits = {"ASR_MAX_ACTIVE_REQUESTS": "1", "ASR_MAX_WAITING_REQUESTS": "0"}
    with serving(**limits) as server, contextlib.closing(connection_to(server)) as slow:
        path, headers = "/asr?initial_prompt=600", {"content-type": "audio/wav"}
        slow.request("POST", path, WAV, headers)
        wait_for(lambda: "began" in server.engine_did(), 60)
        assert post(server, {}).status_code == 429
        assert post(server, {}, path="/inference", part="file").status_code == 429


def connection_to(server):
    return http.client.HTTPConnection(server.url.removeprefix("http://"))


def test_the_openapi_document_has_the_routes(server):
    paths = HTTP.get(f"{server.url}/openapi.json").json()["paths"]
    names = {item["name"] for item in paths["/asr"]["post"]["parameters"]}
    assert {"task", "language", "output", "encode", "word_timestamps", "initial_prompt"} <= names
    form = paths["/inference"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"file", "temperature", "response_format", "translate"} <= set(form["properties"])
    assert "/detect-language" in paths


def test_a_bad_hotword_is_named_in_a_warning(server):
    answer = post(server, {"output": "json", "hotwords": "Kwame,<|endoftext|>"})
    body = answer.json()
    assert body["text"] == WORDS
    assert any("endoftext" in text for text in body["warnings"])
    assert body["warnings"][0].startswith("hotwords: ")  # the name that the client sent
    assert json.loads(answer.headers["x-transcript-warnings"]) == body["warnings"]


def test_probabilities_that_were_not_measured_are_named():
    segments = (Segment(0, 0.0, 1.0, "hi", ()),)
    transcript = Transcript(segments, "en", 1.0, 1.0, 0.0, "engine")
    asked = Asked((), (), {}, with_words=True)
    request = replace(parsed({}), response_format="verbose_json")
    for dialect in (whisper_asr, whisper_cpp):
        answer = dialect.render(transcript, request, asked)
        (warning,) = json.loads(answer.body)["warnings"]
        assert "were not measured" in warning
        assert json.loads(answer.headers["x-transcript-warnings"]) == [warning]


def test_what_has_no_effect_on_a_detection_is_named(server):
    query = {"detect_lang_length": "30", "language": "en_US"}
    first, *others = post(server, query, path="/detect-language").json()["warnings"]
    assert "was not detected" in first
    assert others == [
        "field 'detect_lang_length' was ignored: the language is not detected",
        "language: only 'en' of 'en_US' is used",
    ]
