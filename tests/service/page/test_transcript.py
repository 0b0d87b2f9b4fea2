"""The transcript of a job over HTTP: read, correct, save, forget, export, realign."""

import gzip
import json
import threading

import jsonschema
import pytest

from asr.errors import EngineUnavailable
from asr.pipeline.checkpoint import pack_segment
from asr.service.jobs import edit_check
from asr.service.page.view import original_lines
from asr.types import Segment, Word
from tests.service.page.test_media import code_of, make
from tests.support.paths import ROOT
from tests.support.serving import make_wav


@pytest.fixture(scope="module")
def client(server):
    return server.client()


amplitudes = iter(range(1000, 9000))


@pytest.fixture(scope="module")
def shared(client):
    """The address of a job with the words word0 ... word5. Making one costs time."""
    return f"/v1/jobs/{make(client, make_wav(3.0, amplitude=next(amplitudes)))}"


@pytest.fixture
def own(client, shared):
    """The same job without corrections."""
    assert client.delete(f"{shared}/transcript", headers={"if-match": "*"}).status_code == 200
    return shared


def get(client, own, **options):
    answer = client.get(f"{own}/transcript", **options)
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers["etag"]


def with_word(body, text, place=1):
    """The body with another text in one of its words."""
    segment = body["segments"][0]
    words = [dict(word) for word in segment["words"]]
    words[place]["word"] = text
    text = " ".join(word["word"] for word in words)
    return body | {"segments": [segment | {"words": words, "text": text}]}


def put(client, own, body, tag, **headers):
    return client.put(f"{own}/transcript", json=body, headers={"if-match": tag} | headers)


def test_a_transcript_has_every_word_with_its_time(client, own):
    body, tag = get(client, own)
    assert body["job"] == own.rpartition("/")[2]
    assert (body["complete"], body["edited"], body["duration"]) == (True, False, 3.0)
    assert (body["speakers"], body["gaps"], body["language"]) == ({}, [], "en")
    (segment,) = body["segments"]
    assert segment["words"][1] == {
        "word": "word1", "start": 0.5, "end": 1.0, "confidence": 0.9, "timing": "engine",
        "doubtful": False,
    }  # fmt: skip
    assert (segment["speaker"], segment["channel"], segment["doubts"]) == (None, None, [])
    same = client.get(f"{own}/transcript", headers={"if-none-match": tag})
    assert (same.status_code, same.content) == (304, b"")


def test_a_compressed_answer_has_its_own_tag(client, own):
    plain, tag = get(client, own, headers={"accept-encoding": "identity"})
    packed, packed_tag = get(client, own, headers={"accept-encoding": "gzip"})
    assert plain == packed
    assert packed_tag == f'{tag[:-1]}-gzip"'
    for known in (tag, packed_tag):
        assert put(client, own, plain, known).status_code == 200  # the same content each time


def test_a_correction_is_saved_and_in_all_exports(client, own):
    body, tag = get(client, own)
    body = with_word(body, "whale") | {"speakers": {"A": "Ann <b>\n-->"}}
    body["segments"][0]["speaker"] = "A"
    saved = put(client, own, body, tag)
    assert saved.status_code == 200, saved.text
    assert (saved.json()["edited"], saved.json()["revision"]) == (True, body["revision"] + 1)
    found, new = get(client, own, headers={"accept-encoding": "identity"})
    assert new == saved.headers["etag"]
    assert (found["edited"], found["revision"]) == (True, body["revision"] + 1)
    assert found["speakers"] == {"A": "Ann <b> -->"}
    assert found["segments"] == body["segments"]
    text = "word0 whale word2 word3 word4 word5"
    for extension in ("srt", "vtt", "txt", "tsv", "json"):
        exported = client.get(f"{own}/transcript.{extension}")
        assert text in " ".join(exported.text.split()), extension
        original = client.get(f"{own}/transcript.{extension}?original=true")
        assert "whale" not in original.text
        assert "word1" in original.text
        assert "x-transcript-warnings" not in original.headers
        assert original.headers["etag"] != exported.headers["etag"]
    assert client.get(f"{own}/transcript.srt").text.count("-->") == 2
    assert "<v Ann &lt;b&gt; --&gt;>" in client.get(f"{own}/transcript.vtt").text
    engine, _ = get(client, own, params={"original": "true"})
    assert (engine["edited"], engine["segments"][0]["words"][1]["word"]) == (False, "word1")


def test_an_export_keeps_its_schema(client, own):
    body, tag = get(client, own)
    body["segments"][0]["words"][0]["timing"] = "edited"
    body["segments"][0]["words"][1] |= {"timing": "interpolated", "confidence": None}
    assert put(client, own, body, tag).status_code == 200
    schema = json.loads((ROOT / "docs" / "transcript.schema.json").read_text("utf-8"))
    exported = client.get(f"{own}/transcript.json").json()
    jsonschema.validate(exported, schema)
    timings = [word["timing"] for word in exported["segments"][0]["words"]]
    assert timings[:3] == ["interpolated", "interpolated", "engine"]


def test_who_saves_second_gets_412_with_the_current_tag(client, own):
    body, tag = get(client, own)
    first = put(client, own, with_word(body, "one"), tag)
    refused = put(client, own, with_word(body, "two"), tag)
    assert code_of(refused, 412) == "transcript_changed"
    assert refused.headers["etag"] == first.headers["etag"]
    assert put(client, own, with_word(body, "two"), refused.headers["etag"]).status_code == 200
    assert get(client, own)[0]["segments"][0]["words"][1]["word"] == "two"


def test_of_two_tabs_that_save_at_once_one_succeeds(server, own):
    body, tag = get(server.client(), own)
    answers = []

    def save(text):
        answers.append(put(server.client(), own, with_word(body, text), tag))

    threads = [threading.Thread(target=save, args=(text,)) for text in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412]
    assert len({answer.headers["etag"] for answer in answers}) == 1


def test_a_repeated_request_is_no_conflict(client, own):
    """The first answer was lost."""
    body, tag = get(client, own)
    first, second = (put(client, own, with_word(body, "one"), tag) for _ in range(2))
    assert (second.status_code, second.json()) == (200, first.json())
    assert second.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 428, "if_match_required"),
        ({"if-match": ""}, 428, "if_match_required"),
        ({"if-match": '"other"'}, 412, "transcript_changed"),
        ({"if-match": "W/TAG"}, 412, "transcript_changed"),
        ({"if-match": '"x", TAG'}, 200, None),
        ({"if-match": "*"}, 200, None),
        ({"if-match": '*, "x"'}, 412, "transcript_changed"),
        ({"if-match": '"a,*,b"'}, 412, "transcript_changed"),
        ({"if-match": "*", "content-encoding": "br"}, 415, "unsupported_body"),
        ({"if-match": "*", "content-encoding": "gzip"}, 400, "invalid_value"),
    ],
)
def test_the_client_names_the_version_that_it_changed(client, own, headers, status, code):
    body, tag = get(client, own)
    sent = {name: value.replace("TAG", tag) for name, value in headers.items()}
    answer = client.put(f"{own}/transcript", json=with_word(body, "one"), headers=sent)
    assert answer.status_code == status, answer.text
    assert code is None or answer.json()["error"]["code"] == code


def test_corrections_can_be_forgotten(client, own):
    body, tag = get(client, own)
    saved = put(client, own, with_word(body, "one"), tag)
    assert code_of(client.delete(f"{own}/transcript"), 428) == "if_match_required"
    wrong = client.delete(f"{own}/transcript", headers={"if-match": tag})
    assert code_of(wrong, 412) == "transcript_changed"
    known = {"if-match": saved.headers["etag"]}
    for _ in range(2):  # also when the first answer was lost
        forgotten = client.delete(f"{own}/transcript", headers=known)
        assert forgotten.json()["edited"] is False
        assert forgotten.json()["revision"] == body["revision"] + 2
    found, new = get(client, own)
    assert found["segments"] == body["segments"]
    assert put(client, own, with_word(body, "two"), new).json()["revision"] == found["revision"] + 1


def test_a_body_may_be_gzip(client, own):
    body, tag = get(client, own)
    packed = gzip.compress(json.dumps(with_word(body, "one")).encode())
    headers = {"if-match": tag, "content-encoding": "gzip"}
    answer = client.put(f"{own}/transcript", content=packed, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
def test_a_bomb_is_refused(client, own):
    headers = {"if-match": "*", "content-encoding": "gzip"}
    bomb = gzip.compress(bytes(edit_check.MAX_TEXT_BYTES + 1))
    assert len(bomb) < 100_000
    answer = client.put(f"{own}/transcript", content=bomb, headers=headers)
    assert code_of(answer, 413) == "too_large"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{}", "segments"),
        (b'{"segments": [{"start": 0, "end": 99}]}', "segments[0].end"),
        (b'{"segments": [{"start": 0, "end": 1, "text": "\\ud800"}]}', "segments[0].text"),
    ],
)
def test_a_wrong_transcript_is_refused_and_named(client, own, body, param):
    before = get(client, own)[1]
    answer = client.put(f"{own}/transcript", content=body, headers={"if-match": "*"})
    assert code_of(answer, 400) == "invalid_value"
    assert answer.json()["error"]["param"] == param
    assert get(client, own)[1] == before


def test_a_running_job_shows_its_segments_so_far_and_cannot_be_corrected(client):
    fields = {"keep_recording": "true", "prompt": "30"}
    made = client.post("/v1/jobs", files={"file": make_wav(1.0, amplitude=555)}, data=fields)
    own = f"/v1/jobs/{made.json()['id']}"
    answer = client.get(f"{own}/transcript")
    assert (answer.json()["complete"], answer.json()["segments"]) == (False, [])
    assert "etag" not in answer.headers
    for method in ("PUT", "DELETE"):
        refused = client.request(method, f"{own}/transcript", headers={"if-match": "*"})
        assert code_of(refused, 409) == "job_not_finished"
    assert client.post(f"{own}/cancel").status_code == 200
    body, tag = get(client, own)
    assert (body["complete"], body["state"]) == (False, "cancelled")
    assert put(client, own, body, tag).status_code == 200


def test_a_job_without_a_recording_can_be_corrected(client):
    job = make(client, make_wav(3.0, amplitude=next(amplitudes)), keep_recording="false")
    body, tag = get(client, f"/v1/jobs/{job}")
    assert put(client, f"/v1/jobs/{job}", with_word(body, "one"), tag).status_code == 200


def test_separate_channels_stay_separate(client):
    """Also if the page sends only their names."""
    import io

    import numpy as np
    import soundfile

    target = io.BytesIO()
    sound = np.random.default_rng(0).normal(0, 0.1, (48_000, 2))
    soundfile.write(target, sound, 16_000, format="WAV")
    own = f"/v1/jobs/{make(client, target.getvalue(), channels='split')}"
    body, tag = get(client, own)
    assert [it["channel"] for it in body["segments"]] == [0, 1]
    names = [it["speaker"] for it in body["segments"]]
    sent = [{k: v for k, v in it.items() if k != "channel"} for it in body["segments"]]
    answer = put(client, own, {"segments": sent, "speakers": {names[1]: "Zoë"}}, tag)
    assert answer.status_code == 200, answer.text
    assert [it["channel"] for it in get(client, own)[0]["segments"]] == [0, 1]
    exported = client.get(f"{own}/transcript.json").json()["segments"]
    assert [(it["channel"], it["speaker"]) for it in exported] == [(0, names[0]), (1, "Zoë")]
    assert client.get(f"{own}/peaks").json()["channels"] == 1


def test_a_keyless_service_needs_no_token(client, own):
    token = client.post(f"{own}/media_token").json()["token"]
    for query in ("", f"?token={token}", "?token=wrong"):
        assert client.get(f"{own}/audio{query}").status_code == 200


# --- doubts ---------------------------------------------------------------------------------------


def test_words_are_doubtful_where_a_message_says_so():
    words = tuple(Word(f"w{n}", float(n), n + 0.9, 0.5, "aligned") for n in range(6))
    unheard = "2 words from 3.0 s to 4.9 s cannot be heard in the audio"
    segments = [
        Segment(0, 0.0, 2.9, "w0 w1 w2", words[:3], warnings=(unheard, "the text is in doubt")),
        Segment(1, 3.0, 5.9, "w3 w4 w5", words[3:]),
    ]
    first, second = map(json.loads, original_lines([pack_segment(it) for it in segments]))
    assert [word["doubtful"] for word in first["words"]] == [False] * 3
    assert [word["doubtful"] for word in second["words"]] == [True, True, False]
    assert first["doubts"] == ["the text is in doubt"]
    assert second["doubts"] == [unheard]


def test_an_accepted_doubt_stays_accepted(client, own):
    body, tag = get(client, own)
    body["segments"][0]["words"][0]["doubtful"] = True
    body["segments"][0]["doubts"] = ["because"]
    saved = put(client, own, body, tag)
    found, _ = get(client, own)
    assert found["segments"][0]["doubts"] == ["because"]
    found["segments"][0]["words"][0]["doubtful"] = False
    found["segments"][0]["doubts"] = []
    assert put(client, own, found, saved.headers["etag"]).status_code == 200
    segment = get(client, own)[0]["segments"][0]
    assert (segment["words"][0]["doubtful"], segment["doubts"]) == (False, [])


# --- realign --------------------------------------------------------------------------------------


def realigned(client, own, text, change=None):
    segment = get(client, own)[0]["segments"][0]
    line = {"words": segment["words"], "text": text, "start": segment["start"]}
    return client.post(f"{own}/realign", json=line | {"end": segment["end"]} | (change or {}))


def test_only_changed_words_get_new_times(client, own):
    old = get(client, own)[0]["segments"][0]["words"]
    answer = realigned(client, own, "word0 a whale word2 word3 word4 word5")
    assert answer.status_code == 200, answer.text
    words = answer.json()["words"]
    assert [words[n] for n in (0, 3, 4, 5, 6)] == [old[n] for n in (0, 2, 3, 4, 5)]
    assert [word["word"] for word in words[1:3]] == ["a", "whale"]
    # The engine of the tests has no aligner, so the words are spread over the sound.
    assert [word["timing"] for word in words[1:3]] == ["interpolated"] * 2
    assert 0.5 <= words[1]["start"] < words[2]["start"] < words[2]["end"] <= 1.0


def test_the_worker_aligns_the_words(client, own, monkeypatch):
    asked = []

    class Aligner:
        async def align(self, audio, hypothesis):
            asked.append((len(audio.samples), hypothesis.text))
            words = (Word("a", 0.1, 0.2, 0.7, "aligned"), Word("whale", 0.2, 0.4, 0.8, "aligned"))
            return type("Found", (), {"words": words})

    monkeypatch.setattr("asr.service.litserve.worker.Interpolator", Aligner)
    words = realigned(client, own, "word0 a whale word2 word3 word4 word5").json()["words"]
    assert asked == [(8000, "a whale")]
    assert (words[1]["start"], words[1]["end"], words[1]["timing"]) == (0.6, 0.7, "aligned")


def test_without_success_the_times_are_estimates(client, own, monkeypatch):
    class Broken:
        async def align(self, audio, hypothesis):
            raise EngineUnavailable("no aligner")

    monkeypatch.setattr("asr.service.litserve.worker.Interpolator", Broken)
    words = realigned(client, own, "word0 new word2 word3 word4 word5").json()["words"]
    assert words[1] == {
        "word": "new", "start": 0.5, "end": 1.0, "confidence": None, "timing": "interpolated",
        "doubtful": False,
    }  # fmt: skip


def test_without_a_recording_the_times_are_estimates(client):
    job = make(client, make_wav(3.0, amplitude=next(amplitudes)), keep_recording="false")
    answer = realigned(client, f"/v1/jobs/{job}", "word0 new word2 word3 word4 word5")
    assert answer.json()["words"][1]["timing"] == "interpolated"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"text": None}, "text"),
        ({"text": "x" * 20_001}, "text"),
        ({"text": "\0"}, "text"),
        ({"words": None}, "words"),
        ({"words": [1]}, "words[0]"),
        ({"words": [{"word": "a", "start": 2, "end": 1}]}, "words[0].start"),
        ({"words": [{"word": "a", "start": 0, "end": 9}]}, "words[0].end"),
        ({"end": 99}, "end"),
        ({"start": "now"}, "start"),
    ],
)
def test_a_wrong_line_is_named(client, own, change, param):
    answer = realigned(client, own, "word0", change)
    assert code_of(answer, 400) == "invalid_value"
    assert answer.json()["error"]["param"] == param


def test_a_line_has_a_limit(client, own):
    answer = realigned(client, own, "x" * (300 << 10))
    assert code_of(answer, 413) == "too_large"
    assert code_of(client.post(f"{own}/realign", content=b"{"), 400) == "invalid_value"


def test_a_deleted_job_has_no_transcript(client):
    own = f"/v1/jobs/{make(client, make_wav(1.0, amplitude=next(amplitudes)))}"
    body, tag = get(client, own)
    assert client.delete(own).status_code == 200
    for answer in (client.get(f"{own}/transcript"), put(client, own, body, tag)):
        assert code_of(answer, 404) == "no_such_job"
    assert code_of(client.post(f"{own}/realign", json={}), 404) == "no_such_job"
