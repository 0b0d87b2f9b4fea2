"""Each parameter is honoured, refused, or named in `warnings`; answers fit OpenAI's models."""

import base64
import json

import pytest
from openai.types import Model
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
)
from pydantic import TypeAdapter

from asr.config import AudioLimits, DecodeOptions
from asr.engines.base import MODEL_ALIASES
from asr.errors import InvalidOption
from asr.service.http.fields import MAX_FIELDS, MAX_LIST_ITEMS
from asr.service.http.problems import Problem
from asr.service.transcriptions.form import (
    AlignmentForm,
    JobForm,
    TranscriptionForm,
    parse_fields,
)
from tests.support.serving import PATH, make_wav

WAV = make_wav()
TEXT = "word0 word1 word2 word3"
EVENTS = {
    "transcript.text.delta": TranscriptionTextDeltaEvent,
    "transcript.text.segment": TranscriptionTextSegmentEvent,
    "transcript.text.done": TranscriptionTextDoneEvent,
}
SERVER_VAD = ("chunking_strategy[type]", "server_vad")


@pytest.fixture(scope="module")
def http(server):
    return server.client()


def fits(kind, body):
    """Whether a body fits a model of OpenAI's client, without conversions of types."""
    return TypeAdapter(kind).validate_python(body, strict=True)


def post(http, *fields, query=(), data=WAV):
    parts = [("file", ("a.wav", data)), *((name, (None, value)) for name, value in fields)]
    answer = http.post(PATH, files=parts, params=list(query))
    assert answer.status_code == 200, answer.text
    return answer


def events_of(answer):
    """The events of a stream. Each has a line with its type."""
    events = []
    for block in answer.text.strip().split("\n\n"):
        *head, data = block.splitlines()
        if data != "data: [DONE]":
            events.append(json.loads(data.removeprefix("data: ")))
            assert head == [f"event: {events[-1]['type']}"]
    return events


def parsed(*fields, kind=TranscriptionForm):
    return parse_fields(fields, "webrtc", AudioLimits(), kind)


# --- honoured -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "codes", "n_warnings"),
    [
        ([("language", "eng")], "en", (), 0),
        ([("language", "English")], "en", (), 0),
        ([("language", "en_US")], "en", (), 1),
        ([("language", "zh-Hans")], "zh", (), 1),
        ([("language", "auto")], None, (), 0),
        ([("language", "")], None, (), 0),
        ([("languages[]", "en")], None, ("en",), 0),
        ([("languages", "en"), ("languages", "de")], None, ("en", "de"), 0),
        ([("languages[0]", "en"), ("languages[1]", "en-GB")], None, ("en",), 1),
        ([("languages", '["en", "fr"]')], None, ("en", "fr"), 0),
        ([("languages", "en,fr")], None, ("en", "fr"), 0),
        ([("languages[]", "en"), ("languages[]", "auto")], None, (), 0),
        ([("language", "auto"), ("languages[]", "de")], None, ("de",), 0),
    ],
)
def test_languages(fields, code, codes, n_warnings):
    asked = parsed(*fields)
    assert (asked.options.decode.language, asked.options.decode.languages) == (code, codes)
    assert len(asked.warnings) == n_warnings
    assert all("is used" in warning for warning in asked.warnings)


@pytest.mark.parametrize("name", ["language", "languages[]"])
def test_no_language_is_refused(name):
    with pytest.raises(InvalidOption, match="klingonish") as refused:
        parsed((name, "klingonish"))
    assert refused.value.name == name.removesuffix("[]")


def test_a_bad_keyword_is_left_out(http):
    fields = [("keywords[]", word) for word in ("<b>", "office", "two\nlines", "a, b")]
    asked = parsed(*fields)
    assert asked.options.decode.keywords == ("office", "a, b")
    assert [warning.partition(" was")[0] for warning in asked.warnings] == [
        "keywords: '<b>'",
        "keywords: 'two\\nlines'",
    ]
    assert post(http, *fields).json()["warnings"] == list(asked.warnings)


@pytest.mark.parametrize(
    ("granularities", "present"),
    [
        (["segment"], {"segments"}),
        (["word"], {"words"}),
        (["word", "segment"], {"words", "segments"}),
    ],
)
def test_json_with_granularities(http, granularities, present):
    """The Vercel AI SDK and Subtitle Edit send both fields and read segments or words."""
    fields = [("timestamp_granularities[]", name) for name in granularities]
    body = post(http, ("response_format", "json"), *fields).json()
    fits(Transcription, body)
    fits(TranscriptionVerbose, body)
    assert body.keys() & {"words", "segments"} == present
    assert (body["text"], body["duration"], body["language"]) == (TEXT, 2.0, "english")
    assert body["warnings"] == []


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_logprobs(http, response_format):
    body = post(http, ("response_format", response_format), ("include[]", "logprobs")).json()
    fits(Transcription, body)
    assert "".join(item["token"] for item in body["logprobs"]) == TEXT
    assert {item["logprob"] for item in body["logprobs"]} == {-0.1054}  # of 0.9
    assert bytes(body["logprobs"][1]["bytes"]) == b" word1"


def test_logprobs_only_if_asked_for(http):
    assert post(http).json().keys() == {"text", "usage", "warnings"}


def test_fields_in_the_query_of_a_form(http):
    answer = post(http, ("max_line_width", "12"), query=[("response_format", "vtt")])
    assert answer.text.startswith("WEBVTT")
    same = [("response_format", "text")]
    assert post(http, *same, query=same).text == TEXT + "\n"


def test_a_field_that_differs_in_query_and_form(http):
    parts = [("file", ("a.wav", WAV)), ("response_format", (None, "text"))]
    answer = http.post(PATH, files=parts, params={"response_format": "srt"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "response_format"


def test_a_json_body_with_a_recording(http):
    """OpenRouter's request."""
    audio = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    answer = http.post(PATH, json={"model": "whisper-1", "input_audio": audio, "language": "EN"})
    assert answer.json()["text"] == TEXT
    job = http.post("/v1/jobs", json={"file": audio["data"]})
    assert (job.status_code, job.json()["n_bytes"]) == (202, len(WAV))


def test_openapi_documents_json_bodies(http):
    paths = http.get("/openapi.json").json()["paths"]
    bodies = {
        path: paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path in (PATH, "/v1/align", "/v1/jobs")
    }
    assert all({"file", "input_audio"} <= set(body["properties"]) for body in bodies.values())
    assert [body["required"] for body in bodies.values()] == [[], ["text"], []]


def test_a_json_body_without_a_recording_names_the_field(http):
    answer = http.post(PATH, json={"url": "https://example.com/a.wav"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_a_form_may_have_long_lists(http):
    keywords = [("keywords[]", f"k{n}") for n in range(MAX_LIST_ITEMS)]
    fields = [(f"f{n}", "1") for n in range(MAX_FIELDS - 2)]
    assert len(post(http, *keywords, *fields).json()["warnings"]) == MAX_FIELDS - 2
    assert len(parsed(*keywords).options.decode.keywords) == MAX_LIST_ITEMS


# --- warned about -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([("colour", "blue")], ["colour"]),
        ([("hotwords[]", "a"), ("hotwords[]", "b")], ["hotwords"]),
        ([("known_speaker_names[]", "a"), ("known_speaker_names[]", "b")], ["known_speaker_names"]),
        ([("response_format", "srt"), ("timestamp_granularities[]", "word")], ["granularities"]),
        ([("response_format", "srt"), ("include[]", "logprobs")], ["include"]),
        ([("response_format", "full_json"), ("timestamp_granularities[]", "word")], []),
        ([("response_format", "diarized_json")], ["channels=split"]),
        ([("response_format", "diarized_json"), ("channels", "split")], []),
        ([("max_line_width", "30"), ("min_gap", "0.1")], ["max_line_width", "min_gap"]),
        ([("response_format", "srt"), ("highlight_words", "true")], ["highlight_words"]),
        ([("response_format", "vtt"), ("highlight_words", "true"), ("max_cps", "9")], []),
        ([("stream", "true"), ("response_format", "srt")], ["response_format=srt"]),
        ([("stream", "true"), ("max_cps", "9")], ["max_cps"]),
        ([("stream", "true"), ("include", "logprobs")], []),
        ([("vad_threshold", "0.4")], ["vad_threshold"]),
        ([("vad_aggressiveness", "1"), ("vad_padding", "0.3")], []),
        (
            [("vad", "off"), ("vad_padding", "0.3"), SERVER_VAD],
            ["vad_padding", "chunking_strategy"],
        ),
        (
            [SERVER_VAD, ("chunking_strategy[prefix_padding_ms]", "9"), ("vad_padding", "1")],
            ["prefix_padding_ms"],
        ),
        ([("task", "transcribe"), ("model", "x"), ("temperature", "0")], []),
    ],
)
def test_what_has_no_effect_is_named(fields, named):
    warnings = parsed(*fields).warnings
    assert len(warnings) == len(named), warnings
    assert all(name in warning for name, warning in zip(named, warnings, strict=True))


def test_fields_without_effect_on_an_alignment():
    warnings = parsed(("text", "hello"), ("prompt", "x"), ("keywords", "y"), kind=AlignmentForm)
    assert [warning.split()[0] for warning in warnings.warnings] == ["prompt", "keywords"]
    assert warnings.options.decode == DecodeOptions()  # so the engine does not warn again


def test_the_default_format_of_an_alignment_gives_no_warning():
    fields = [("text", "hello"), ("stream", "true")]
    assert parsed(*fields, kind=AlignmentForm).warnings == ()
    asked = parsed(*fields, ("response_format", "full_json"), kind=AlignmentForm)
    assert asked.warnings == ("response_format=full_json has no effect with stream=true",)


def test_a_job_keeps_its_subtitle_options_and_names_the_rest(http):
    fields = {"max_cps": "9", "response_format": "srt", "stream": "true", "include": "logprobs"}
    asked = parsed(*fields.items(), kind=JobForm)
    assert asked.subtitles.max_cps == 9
    assert [warning.split()[0] for warning in asked.warnings] == [
        "include",
        "response_format",
        "stream",
    ]
    job = http.post("/v1/jobs", data=fields, files={"file": make_wav(1)}).json()
    assert job["warnings"] == list(asked.warnings)


def test_references_of_speakers_of_normal_size(http):
    """Ten seconds of CD quality for each of OpenAI's four speakers."""
    reference = "data:audio/wav;base64," + "A" * (10 * 44_100 * 4 * 4 // 3)
    fields = [("known_speaker_references[]", reference)] * 4
    assert post(http, *fields).json()["warnings"] == [
        "known_speaker_references was ignored: speakers are not told apart"
    ]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt", "tsv"])
def test_warnings_of_formats_without_a_place_for_them(http, response_format):
    form = ("response_format", response_format)
    header = post(http, form, ("colour", "blue")).headers["x-transcript-warnings"]
    assert json.loads(header) == ["field 'colour' is not known and was ignored"]
    assert "x-transcript-warnings" not in post(http, form).headers


def test_many_warnings_do_not_make_a_header_that_is_too_long(http):
    form = ("response_format", "text")
    many = [(f"f{n}-{'x' * 200}", "1") for n in range(MAX_FIELDS - 1)]
    header = post(http, form, *many).headers["x-transcript-warnings"]
    *shown, more = json.loads(header)
    assert more.startswith(f"{MAX_FIELDS - 1 - len(shown)} more")
    assert len(header) <= 4096


def test_a_model_that_is_not_listed_is_a_warning(http):
    warnings = post(http, ("model", "large-v3")).json()["warnings"]
    assert warnings == ["model: fake is used, because 'large-v3' is not served here"]
    assert post(http, ("model", "gpt-4o-transcribe")).json()["warnings"] == []


# --- refused ------------------------------------------------------------------------------------


def test_translation_says_what_to_do(http):
    by_route = http.post("/v1/audio/translations", files={"file": WAV})
    by_task = http.post(PATH, data={"task": "translate"}, files={"file": WAV})
    for answer in (by_route, by_task):
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert "send the recording to /v1/audio/transcriptions" in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "translation_not_supported"
    assert by_task.json()["error"]["param"] == "task"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"type": "server_vad", "threshold": 9}', "chunking_strategy: threshold: Input should be"),
        ('{"type": "server_vad", "colour": 1}', "chunking_strategy: colour: Extra inputs are not"),
        ("manual", "chunking_strategy: Input should be 'auto'"),
    ],
)
def test_an_error_inside_an_object_is_named(value, message):
    with pytest.raises(Problem, match=message) as refused:
        parsed(("chunking_strategy", value))
    assert refused.value.param == "chunking_strategy"


def test_another_task_is_refused():
    with pytest.raises(Problem, match="task: must be transcribe"):
        parsed(("task", "sing"))


# --- OpenAI's models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response_format", "kind"),
    [
        ("json", Transcription),
        ("verbose_json", TranscriptionVerbose),
        ("diarized_json", TranscriptionDiarized),
    ],
)
@pytest.mark.parametrize("data", [WAV, make_wav(3, amplitude=0)], ids=["speech", "silence"])
def test_bodies_fit_openais_models(http, response_format, kind, data):
    fields = [("response_format", response_format), ("include[]", "logprobs"), ("vad", "webrtc")]
    fits(kind, post(http, *fields, data=data).json())


@pytest.mark.parametrize("fields", [[], [("channels", "split")], [("include[]", "logprobs")]])
def test_events_fit_openais_models(http, fields):
    events = events_of(post(http, ("stream", "true"), *fields))
    for event in events:
        fits(EVENTS[event["type"]], event)
    assert [event["type"].rpartition(".")[2] for event in events] == ["delta", "segment", "done"]
    done = events[-1]
    assert (done["text"], done["duration"]) == (TEXT, 2.0)
    has_logprobs = fields == [("include[]", "logprobs")]
    assert [("logprobs" in event) for event in events] == [has_logprobs, False, has_logprobs]
    assert events[1]["speaker"] == ("channel 0" if ("channels", "split") in fields else "A")
    if has_logprobs:
        assert events[0]["logprobs"] == done["logprobs"] != []


def test_the_last_event_names_what_has_no_effect(http):
    *_, done = events_of(post(http, ("stream", "true"), ("response_format", "srt")))
    assert done["warnings"] == ["response_format=srt has no effect with stream=true"]


def test_models_are_listed_with_their_capabilities(http):
    first, *aliases = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in aliases] == list(MODEL_ALIASES)
    assert {model["alias_of"] for model in aliases} == {first["id"]} == {"fake"}
    for model in (first, *aliases, http.get("/v1/models/whisper-1").json()):
        fits(Model, model)
        able = model["capabilities"]
        assert able["languages"] == ["en"]
        assert (able["prompt"], able["keywords"], able["temperature"]) == (False, False, False)
        assert (able["streaming"], able["word_times"]) == (True, True)
        assert (able["speakers"], able["translation"]) == (False, False)
