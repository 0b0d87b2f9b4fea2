"""The route of whisper.cpp's server.

Source of its fields: examples/server/server.cpp of ggml-org/whisper.cpp.
"""

import pytest
import srt

from asr.config import AudioLimits
from asr.service.compat.fields import Fields
from asr.service.compat.whisper_cpp import translate
from asr.service.transcriptions.form import parse_fields
from tests.support.serving import HTTP, make_wav

WAV = make_wav(2.0)
WORDS = "word0 word1 word2 word3"


def post(server, **fields):
    return HTTP.post(f"{server.url}/inference", data=fields, files={"file": WAV})


def given(**fields):
    return dict(translate(Fields(fields.items(), "off")).pairs)


def parsed(**fields):
    return parse_fields(given(**fields).items(), "off", AudioLimits())


def warned(**fields):
    return translate(Fields(fields.items(), "webrtc")).warnings


def test_the_request_of_its_readme(server):
    answer = post(server, temperature="0.0", temperature_inc="0.2", response_format="json")
    body = answer.json()
    assert body["text"] == WORDS
    assert any("'temperature_inc'" in text for text in body["warnings"])


def test_fields_in_the_query(server):  # as ovos-stt-plugin-whispercppserver sends them
    query = {"temperature": "0.0", "response_format": "text", "language": "auto"}
    answer = HTTP.post(f"{server.url}/inference", params=query, files={"file": WAV})
    assert answer.text == WORDS + "\n"


def test_verbose_json(server):
    body = post(server, response_format="verbose_json").json()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 2.0)
    (segment,) = body["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.0, 2.0, WORDS)
    assert [word["word"] for word in segment["words"]] == WORDS.split()


def test_verbose_json_without_times(server):
    body = post(server, response_format="verbose_json", no_timestamps="true").json()
    (segment,) = body["segments"]
    assert segment["text"] == WORDS
    assert not {"start", "end", "words"} & set(segment)


def test_token_timestamps_can_be_left_out(server):
    body = post(server, response_format="verbose_json", token_timestamps="false").json()
    assert "words" not in body["segments"][0]
    assert body["segments"][0]["end"] == 2.0


def test_short_cues(server):
    cues = list(srt.parse(post(server, response_format="srt", max_len="12").text))
    assert [cue.content for cue in cues] == ["word0 word1", "word2 word3"]


def test_vtt(server):
    assert post(server, response_format="vtt").text.startswith("WEBVTT")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"translate": "true"}, "translate"),
        ({"translate": "maybe"}, "translate"),
        ({"offset_t": "5000"}, "offset_t"),
        ({"duration": "60000"}, "duration"),
        ({"offset_n": "3"}, "offset_n"),
        ({"response_format": "yaml"}, "response_format"),
        ({"vad_min_silence_duration_ms": "soon"}, "vad_min_silence_duration_ms"),
        ({"vad_speech_pad_ms": "90000"}, "vad_speech_pad_ms"),
        ({"stream": "true"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_wrong_fields_are_named(server, fields, name):
    answer = post(server, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name}: ")


def test_translation_of_fields():
    assert given(diarize="true")["channels"] == "split"
    assert given(vad="true")["vad"] == "webrtc"
    assert given(vad="false")["vad"] == "off"
    assert given(vad="silero")["vad"] == "silero"
    assert "vad" not in given()
    assert given(vad_speech_pad_ms="30", vad_min_silence_duration_ms="100") == {
        "response_format": "json",
        "vad_padding": "0.03",
        "vad_min_silence": "0.1",
    }
    assert parsed(language="french").options.decode.language == "fr"
    assert given(offset_t="0", duration="0", prompt="Names")["prompt"] == "Names"


def test_every_field_without_effect_is_named():
    fields = {"beam_size": "5", "tinydiarize": "1", "detect_language": "true", "max_len": "40"}
    warnings = warned(**fields, vad_samples_overlap="0.1", no_speech_thold="0.6")
    for name in (*fields, "vad_samples_overlap", "no_speech_thold"):
        assert any(f"field '{name}' was ignored" in text for text in warnings), name


def test_defaults_give_no_warning():
    flags = ("tinydiarize", "detect_language", "debug_mode", "suppress_nst", "carry_initial_prompt")
    assert warned(**dict.fromkeys(flags, "false"), max_len="0", split_on_word="false") == ()
