"""Speakers through the real service, with a tiny model: routes, jobs, streams, stored voices."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from openai.types.audio import TranscriptionDiarized

from tests.support.inprocess import serving
from tests.support.serving import HTTP, wait_for
from tests.support.voices import voice, write_model

PATH = "/v1/audio/transcriptions"
NEEDS_NO_VAD = {"vad": "off"}


def wav(*parts):
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), 16_000, format="WAV")
    return file.getvalue()


TALK = wav(voice(300, 6), voice(3000, 6))
ANN = wav(voice(3000, 4, seed=5))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    model = write_model(tmp_path_factory.mktemp("speakers") / "tiny.onnx")
    with serving(ASR_SPEAKER_MODEL=str(model)) as server:
        yield server.url


def post(url, **fields):
    answer = HTTP.post(url + PATH, data={**NEEDS_NO_VAD, **fields}, files={"file": TALK})
    assert answer.status_code == 200, answer.text
    return answer


def speakers_in(segments):
    return list(dict.fromkeys(it["speaker"] for it in segments))


def test_openais_format_and_ours(url):
    body = post(url, response_format="diarized_json").json()
    TranscriptionDiarized.model_validate(body, strict=True)
    assert speakers_in(body["segments"]) == ["A", "B"]
    assert body["segments"][0]["words"][0]["speaker"] == "A"
    full = post(url, response_format="full_json", speakers="2").json()
    words = [word for it in full["segments"] for word in it["words"]]
    assert all({"speaker", "speaker_confidence", "overlapped"} <= set(word) for word in words)
    assert "<v A>" in post(url, response_format="vtt", speakers="auto").text
    assert "A:" not in post(url, response_format="srt", speakers="auto").text
    assert "A: " in post(url, response_format="srt", speakers="auto", speaker_labels="true").text
    assert "speaker" not in json.dumps(post(url, response_format="verbose_json").json())


def test_a_stream_ends_with_the_final_speakers(url):
    text = post(url, stream="true", speakers="auto").text
    events = [json.loads(it[6:]) for it in text.splitlines() if it.startswith("data: {")]
    told = [it for it in events if it["type"] == "transcript.text.segment"]
    assert told
    assert all(it["speaker_is_provisional"] for it in told)
    assert speakers_in(events[-1]["diarized_segments"]) == ["A", "B"]


def test_known_speakers_sent_and_stored(url):
    reference = "data:audio/wav;base64," + base64.b64encode(ANN).decode()
    fields = {"known_speaker_names[]": "Ann", "response_format": "diarized_json"}
    sent = post(url, **fields, **{"known_speaker_references[]": reference}).json()
    assert speakers_in(sent["segments"]) == ["A", "Ann"]
    own = f"{url}/v1/speakers/Ann"
    assert HTTP.put(own, files={"file": ANN}).status_code == 201
    assert HTTP.put(own, content=ANN, headers={"content-type": "audio/wav"}).status_code == 200
    stored = HTTP.get(own).json()
    assert (stored["name"], stored["seconds"] > 1) == ("Ann", True)
    assert [it["name"] for it in HTTP.get(f"{url}/v1/speakers").json()["data"]] == ["Ann"]
    assert speakers_in(post(url, **fields).json()["segments"]) == ["A", "Ann"]
    assert HTTP.delete(own).json() == {"object": "speaker", "name": "Ann", "deleted": True}
    assert HTTP.get(own).status_code == 404
    answer = HTTP.post(url + PATH, data=fields, files={"file": TALK})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "known_speaker_names")


@pytest.mark.parametrize(
    ("recording", "said"),
    [(wav(voice(300, 1)), "2 to 10 s"), (wav(voice(300, 12)), "2 to 10 s"), (b"RIFF", "Ann")],
)
def test_a_reference_that_cannot_be_used(url, recording, said):
    reference = "data:audio/wav;base64," + base64.b64encode(recording).decode()
    fields = {"known_speaker_names[]": "Ann", "known_speaker_references[]": reference}
    answer = HTTP.post(url + PATH, data=fields, files={"file": TALK})
    assert (answer.status_code, answer.json()["error"]["param"]) == (
        400,
        "known_speaker_references",
    )
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("data", [b"", b"no recording", wav(np.zeros(32_000))])
def test_a_voice_that_cannot_be_stored(url, data):
    answer = HTTP.put(f"{url}/v1/speakers/Ben", files={"file": data})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert HTTP.get(f"{url}/v1/speakers/Ben").status_code == 404


def test_a_job_has_speakers(url):
    fields = {**NEEDS_NO_VAD, "speakers": "auto"}
    job = HTTP.post(f"{url}/v1/jobs", data=fields, files={"file": TALK}).json()["id"]
    own = f"{url}/v1/jobs/{job}"
    wait_for(lambda: HTTP.get(own).json()["state"] == "succeeded", 30, "the end of the job")
    full = HTTP.get(f"{own}/transcript.json").json()
    assert speakers_in(full["segments"]) == ["A", "B"]
    assert [it["id"] for it in full["segments"]] == list(range(len(full["segments"])))
    rttm = HTTP.get(f"{own}/transcript.rttm").text
    assert {line.split()[7] for line in rttm.splitlines()} == {"A", "B"}


def test_the_models_route_tells_of_speakers(url):
    assert HTTP.get(f"{url}/v1/models").json()["data"][0]["capabilities"]["speakers"] is True
