"""OpenAI's own client against a real server process with the real CPU engine and real speech.

Most requests send only the first words of samples/meeting.wav, since this engine is slow.
"""

import io
import itertools
import json
import math
import wave

import openai
import pytest
import srt
from openai.types.audio import TranscriptionVerbose

from tests.support.paths import SAMPLES
from tests.support.serving import PATH, REAL, make_wav, serving

KEY = "sesame-42"
FIRST_SECONDS = 1.9


def first_words():
    with wave.open(str(SAMPLES / "meeting.wav")) as whole:
        rate = whole.getframerate()
        frames = whole.readframes(int(FIRST_SECONDS * rate))
    target = io.BytesIO()
    with wave.open(target, "wb") as cut:
        cut.setparams((1, 2, rate, 0, "NONE", ""))
        cut.writeframes(frames)
    return target.getvalue()


AUDIO = first_words()


@pytest.fixture(scope="module")
def server():
    with serving(*REAL, ASR_VAD="webrtc", ASR_API_KEY=KEY) as server:
        yield server


def client_of(server, key=KEY, **options):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, **options)


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as client:
        yield client


@pytest.fixture(scope="module")
def http(server):
    return server.client(headers={"Authorization": f"Bearer {KEY}"})


def transcribe(client, audio=AUDIO, **fields):
    made = {"model": "whisper-1", "file": ("meeting.wav", audio)} | fields
    return client.audio.transcriptions.create(**made)


@pytest.fixture(scope="module")
def plain(client):
    return transcribe(client)


# --- formats ------------------------------------------------------------------------------------


def test_json(plain):
    assert plain.text.startswith("Good morning, ")
    assert plain.usage.type == "duration"
    assert plain.usage.seconds == math.ceil(FIRST_SECONDS)


def test_text(client, plain):
    assert transcribe(client, response_format="text") == plain.text + "\n"


def test_srt(client, plain):
    cues = list(srt.parse(transcribe(client, response_format="srt")))
    assert " ".join(cue.content for cue in cues).split() == plain.text.split()
    assert 0 < cues[0].start.total_seconds() < cues[-1].end.total_seconds() <= FIRST_SECONDS


def test_vtt(client, plain):
    head, *blocks = transcribe(client, response_format="vtt").strip().split("\n\n")
    assert head == "WEBVTT"
    words = " ".join(line for block in blocks for line in block.splitlines()[1:])
    assert words.split() == plain.text.split()


@pytest.mark.parametrize(
    ("granularities", "has_words", "has_segments"),
    [
        (["word"], True, False),
        (["segment"], False, True),
        (["word", "segment"], True, True),
        (openai.omit, False, True),
    ],
)
def test_verbose_json(client, plain, granularities, has_words, has_segments):
    answer = transcribe(
        client, response_format="verbose_json", timestamp_granularities=granularities
    )
    assert isinstance(answer, TranscriptionVerbose)
    # The client builds its models without validation, so validate them here.
    TranscriptionVerbose.model_validate(answer.model_dump())
    assert (answer.text, answer.language) == (plain.text, "english")
    assert answer.duration == pytest.approx(FIRST_SECONDS, abs=0.001)
    assert (answer.words is not None, answer.segments is not None) == (has_words, has_segments)
    if has_words:
        assert " ".join(word.word for word in answer.words) == plain.text
        assert_in_order(answer.words)
    if has_segments:
        assert " ".join(segment.text for segment in answer.segments) == plain.text
        assert_in_order(answer.segments)


def assert_in_order(items):
    times = [time for item in items for time in (item.start, item.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= FIRST_SECONDS


def test_bare_granularities(http):
    fields = {"response_format": "verbose_json", "timestamp_granularities": "word"}
    answer = http.post(PATH, data=fields, files={"file": AUDIO}).json()
    assert answer["words"][0]["word"] == "Good"
    assert "segments" not in answer


def test_word_times_match_the_recording(client):
    """The whole recording, compared with the known times of its words in samples/meeting.json."""
    said = json.loads((SAMPLES / "meeting.json").read_text(encoding="ascii"))
    audio = (SAMPLES / "meeting.wav").read_bytes()
    answer = transcribe(
        client, audio, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert answer.duration == pytest.approx(said["duration"], abs=0.01)
    heard = {word.word: word.start for word in answer.words}
    long_words = {w["text"].strip(".,").lower(): w["start"] for w in said["words"]}
    shared = [word for word in long_words if len(word) > 4 and word in heard]
    assert len(shared) >= 10
    close = [word for word in shared if abs(heard[word] - long_words[word]) < 0.3]
    assert len(close) >= 0.8 * len(shared)


# --- stream -------------------------------------------------------------------------------------


def test_stream(client, plain):
    events = list(transcribe(client, stream=True))
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    segments = [event for event in events if event.type == "transcript.text.segment"]
    *others, done = events
    assert done.type == "transcript.text.done"
    assert len(deltas) + len(segments) == len(others)
    assert len(deltas) == len(segments) > 0
    assert "".join(event.delta for event in deltas) == done.text == plain.text
    assert [event.segment_id for event in deltas] == [event.id for event in segments]
    words = [word for event in segments for word in event.words]
    assert " ".join(word["word"] for word in words) == plain.text
    assert all(a["end"] <= b["start"] + 0.001 for a, b in itertools.pairwise(words))
    assert done.duration == pytest.approx(FIRST_SECONDS)
    assert done.usage is None  # OpenAI's model of this event has room for tokens only


def test_logprobs(client, plain):
    answer = transcribe(client, include=["logprobs"])
    assert "".join(item.token for item in answer.logprobs) == plain.text
    assert all(item.logprob < 0 for item in answer.logprobs)
    *_, done = transcribe(client, stream=True, include=["logprobs"])
    assert [(item.token, item.logprob) for item in done.logprobs] == [
        (item.token, item.logprob) for item in answer.logprobs
    ]


def test_doubts_are_measured(client):
    for segment in transcribe(client, response_format="verbose_json").segments:
        assert -1 < segment.avg_logprob < 0
        assert 0 < segment.no_speech_prob < 0.5


def test_a_translation_says_what_to_do(client):
    with (
        pytest.warns(DeprecationWarning, match="deprecated"),  # OpenAI's client says so itself
        pytest.raises(openai.BadRequestError, match="/v1/audio/transcriptions"),
    ):
        client.audio.translations.create(model="whisper-1", file=("meeting.wav", AUDIO))


def test_error_before_a_stream_is_a_status(client):
    with pytest.raises(openai.APIStatusError) as caught:
        list(transcribe(client, b"no audio", stream=True))
    assert (caught.value.status_code, caught.value.code) == (400, "unsupported_audio")


# --- fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "anything/at-all"])
def test_any_model_name(client, plain, model):
    assert transcribe(client, model=model).text == plain.text


def test_every_field_that_the_engine_can_only_ignore(client, plain):
    answer = transcribe(
        client,
        language="en",
        prompt="A meeting.",
        temperature=0.4,
        response_format="verbose_json",
        extra_body={"keywords": ["office"]},
    )
    assert answer.text == plain.text
    ignored = ["prompt", "keywords", "temperature"]
    assert answer.warnings == [f"Moonshine ignores {name}" for name in ignored]


VAD = {"type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 300, "silence_duration_ms": 900}


@pytest.mark.parametrize("strategy", ["auto", VAD, json.dumps(VAD)], ids=["auto", "object", "json"])
def test_chunking_strategy(client, strategy):
    assert "morning" in transcribe(client, chunking_strategy=strategy).text


def test_an_object_changes_the_vad(client):
    def heard_seconds(**fields):
        return transcribe(client, response_format="verbose_json", **fields).speech_seconds

    assert heard_seconds(chunking_strategy={**VAD, "prefix_padding_ms": 0}) < heard_seconds()


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "param", "code"),
    [
        ({"language": "xx"}, openai.BadRequestError, "language", "invalid_value"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"response_format": "docx"}, openai.BadRequestError, "response_format", "invalid_value"),
        ({"include": ["tokens"]}, openai.BadRequestError, "include", "invalid_value"),
        ({"language": "klingonish"}, openai.BadRequestError, "language", "invalid_value"),
        ({"chunking_strategy": "manual"}, openai.BadRequestError, "chunking_strategy", None),
        ({"file": ("a.wav", b"")}, openai.BadRequestError, "file", "invalid_audio"),
        ({"file": ("a.wav", b"RIFF" * 9)}, openai.APIStatusError, "file", "unsupported_audio"),
        ({"file": ("a.wav", make_wav(0))}, openai.BadRequestError, "file", "invalid_audio"),
    ],
)
def test_errors_are_openais(client, fields, error, param, code):
    with pytest.raises(error) as caught:
        transcribe(client, **fields)
    assert caught.value.param == param
    assert caught.value.code == (code or "invalid_value")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_an_unknown_route_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.get("/nowhere", cast_to=object)
    assert caught.value.type == "not_found_error"


# --- models and keys ----------------------------------------------------------------------------


def test_models(client):
    model, *aliases = client.models.list().data
    assert {alias.alias_of for alias in aliases} == {model.id}
    assert model.capabilities["languages"] == ["en"]
    assert (model.id, model.object, model.ready) == ("moonshine-tiny-en", "model", True)
    assert model.engine.startswith("moonshine-tiny-en on onnxruntime")
    for name in ("whisper-1", "nvidia/Nemotron-3-Nano-Omni"):
        assert client.models.retrieve(name).id == name


def test_bearer_or_x_api_key(server):
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}):
        assert server.client(headers=headers).get("/v1/models").status_code == 200
    # OpenAI's client always sends a bearer token: here a wrong one beside the right X-API-Key.
    with client_of(server, "unused", default_headers={"X-API-Key": KEY}) as client:
        assert client.models.list().data


@pytest.mark.parametrize("key", ["wrong", KEY[:-1], KEY.upper(), "x" * 5000])
def test_wrong_key(server, key):
    with client_of(server, key) as client, pytest.raises(openai.AuthenticationError) as caught:
        transcribe(client)
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"


def test_routes_that_need_no_key(server):
    http = server.client()
    assert [http.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
    closed = ("/docs", "/openapi.json", "/v1/models", "/v1/schemas/transcript.json", "/nowhere")
    assert {http.get(path).status_code for path in closed} == {401}
    assert http.post(PATH, files={"file": AUDIO}).status_code == 401
