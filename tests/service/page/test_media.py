"""The recordings of jobs over HTTP: who may listen, parts, clips, pictures, how long they stay."""

import io
import time
import wave

import numpy as np
import pytest
import soundfile

from tests.service.page.conftest import QUOTA, SECONDS, SOUND
from tests.support.serving import HTTP, make_wav, wait_for

NAME = 'na"me\r\nX: <b> é.wav'
NOBODYS = "0" * 32


@pytest.fixture(scope="module")
def server(keyed):
    return keyed


def client_of(server, name="a"):
    return server.client(headers={"authorization": f"Bearer key-{name}"})


@pytest.fixture(scope="module")
def client(server):
    return client_of(server)


def make(client, content=SOUND, name=NAME, **fields):
    """The id of a job that has ended."""
    fields = {"keep_recording": "true"} | fields
    made = client.post("/v1/jobs", files={"file": (name, content)}, data=fields)
    assert made.status_code == 202, made.text
    job = made.json()["id"]
    ended = ("succeeded", "failed", "cancelled")
    wait_for(lambda: client.get(f"/v1/jobs/{job}").json()["state"] in ended, 30, "the end")
    return job


@pytest.fixture(scope="module")
def job(client):
    return make(client)


@pytest.fixture(scope="module")
def own(job):
    return f"/v1/jobs/{job}"


def code_of(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"]


def folder_of(server):
    return server.log_path.parent / "data" / "recordings"


# --- keeping --------------------------------------------------------------------------------------


def test_a_kept_recording_is_shown_and_goes_with_its_job(server, client):
    job = make(client, make_wav(1.0, amplitude=900))
    assert client.get(f"/v1/jobs/{job}").json()["recording"] == {"kept": True, "seconds": 1.0}
    assert client.get(f"/v1/jobs/{job}/peaks").status_code == 200
    files = [path for path in folder_of(server).rglob("*") if job in str(path)]
    assert len(files) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.is_dir())
    assert client.delete(f"/v1/jobs/{job}").status_code == 200
    assert not [path for path in folder_of(server).rglob("*") if job in str(path)]
    assert code_of(client.get(f"/v1/jobs/{job}/peaks"), 404) == "no_such_job"


def test_without_the_option_nothing_is_kept(server, client):
    job = make(client, make_wav(1.0, amplitude=800), keep_recording="false")
    assert client.get(f"/v1/jobs/{job}").json()["recording"]["kept"] is False
    wait_for(lambda: not (folder_of(server) / job).exists(), 10, "the end of the recording")
    for path in ("peaks", "audio", "audio?start=0&end=1", "spectrogram.png?start=0&end=1"):
        assert code_of(client.get(f"/v1/jobs/{job}/{path}"), 404) == "recording_not_kept"


def test_a_job_that_keeps_its_recording_is_another_job(client):
    sound = make_wav(1.0, amplitude=700)
    assert make(client, sound) != make(client, sound, keep_recording="false")


def test_failed_and_cancelled_jobs_keep_their_recordings_too(server, client):
    broken = make(client, b"RIFF no audio")
    assert client.get(f"/v1/jobs/{broken}").json()["state"] == "failed"
    assert (folder_of(server) / broken).exists()
    assert code_of(client.get(f"/v1/jobs/{broken}/peaks"), 400) == "unsupported_audio"
    slow = {"keep_recording": "true", "prompt": "30"}
    made = client.post("/v1/jobs", files={"file": make_wav(1.0, amplitude=600)}, data=slow)
    own = f"/v1/jobs/{made.json()['id']}"
    assert client.get(f"{own}/peaks").json()["length"] == 20  # while the job runs
    assert client.post(f"{own}/cancel").json()["state"] == "cancelled"
    assert client.get(f"{own}/audio").status_code == 200


def test_kept_recordings_have_a_quota(server, client):
    before = set(folder_of(server).iterdir())
    files = {"file": make_wav(SECONDS * QUOTA, amplitude=0)}
    refused = client.post("/v1/jobs", files=files, data={"keep_recording": "true"})
    assert code_of(refused, 413) == "recordings_too_large"
    assert refused.json()["error"]["param"] == "keep_recording"
    assert set(folder_of(server).iterdir()) == before


# --- playing --------------------------------------------------------------------------------------


def test_the_recording_is_played_as_it_was_sent(client, own):
    answer = client.get(f"{own}/audio")
    assert answer.content == SOUND
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    head = client.head(f"{own}/audio")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(SOUND))


def test_another_format_is_played_as_flac_with_the_same_times(client):
    target = io.BytesIO()
    soundfile.write(target, np.zeros(44_100 * 2, np.float32), 44_100, format="OGG")
    job = make(client, target.getvalue(), "a.ogg")
    answer = client.get(f"/v1/jobs/{job}/audio")
    assert answer.headers["content-type"] == "audio/flac"
    assert soundfile.info(io.BytesIO(answer.content)).duration == 2.0
    assert client.get(f"/v1/jobs/{job}").json()["recording"]["seconds"] == 2.0


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("Bytes = 10 - 19", 10, 19),
        (f"bytes={len(SOUND) - 1}-", len(SOUND) - 1, len(SOUND) - 1),
        ("bytes=5-99999999999", 5, len(SOUND) - 1),
        ("bytes=-7", len(SOUND) - 7, len(SOUND) - 1),
        ("bytes=-99999999999", 0, len(SOUND) - 1),
    ],
)
def test_a_part_is_sent(client, own, asked, first, last):
    answer = client.get(f"{own}/audio", headers={"range": asked})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(SOUND)}"
    assert answer.content == SOUND[first : last + 1]


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,4-5", "bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=" + "9" * 30 + "-"],
)
def test_other_ranges_are_ignored(client, own, asked):
    answer = client.get(f"{own}/audio", headers={"range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(SOUND))


@pytest.mark.parametrize("asked", [f"bytes={len(SOUND)}-", "bytes=999999999-", "bytes=-0"])
def test_a_part_behind_the_end_is_refused(client, own, asked):
    answer = client.get(f"{own}/audio", headers={"range": asked})
    assert code_of(answer, 416) == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{len(SOUND)}"


def test_a_part_of_another_version_is_not_sent(client, own):
    tag = client.head(f"{own}/audio").headers["etag"]
    part = {"range": "bytes=0-9"}
    for known, status in ((tag, 206), ('"other"', 200), (f"W/{tag}", 200), ("a date", 200)):
        assert client.get(f"{own}/audio", headers=part | {"if-range": known}).status_code == status
    same = client.get(f"{own}/audio", headers={"if-none-match": tag})
    assert (same.status_code, same.content) == (304, b"")


def test_peaks_fit_wavesurfer(client, own):
    found = client.get(f"{own}/peaks?points_per_second=10").json()
    assert len(found.pop("data")) == 2 * 30
    assert found == {
        "version": 2, "channels": 1, "sample_rate": 16_000, "samples_per_pixel": 1600, "bits": 8,
        "length": 30,
    }  # fmt: skip


# --- clips and pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_a_clip_is_a_download(client, own, kind):
    answer = client.get(f"{own}/audio?start=0.5&end=1.75&format={kind}")
    assert answer.status_code == 200, answer.text
    assert abs(soundfile.info(io.BytesIO(answer.content)).duration - 1.25) < 0.1
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    assert "\r" not in disposition
    assert "<b> " not in disposition.partition("filename*")[2]


def test_a_clip_has_the_samples_of_its_span(client, own):
    answer = client.get(f"{own}/audio?start=1&end=99")
    with wave.open(io.BytesIO(answer.content)) as clip, wave.open(io.BytesIO(SOUND)) as whole:
        whole.setpos(16_000)
        found, expected = (np.frombuffer(it.readframes(99_999), "<i2") for it in (clip, whole))
    assert len(found) == len(expected)
    inner = slice(400, -400)  # the ends are faded
    assert np.array_equal(found[inner], expected[inner])
    assert abs(int(found[0])) < 100
    part = {"range": "bytes=0-43"}
    assert client.get(f"{own}/audio?start=1&end=99", headers=part).content == answer.content[:44]


@pytest.mark.parametrize("kind", ["wav", "mp3"])
@pytest.mark.parametrize("span", ["start=1&end=1.001", "start=2.999&end=9"])
def test_a_clip_too_short_for_fades(client, own, span, kind):
    answer = client.get(f"{own}/audio?{span}&format={kind}")
    assert answer.status_code == 200, answer.text
    assert soundfile.info(io.BytesIO(answer.content)).samplerate == 16_000


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("audio?start=1", "end"),
        ("audio?format=wav", "end"),
        ("audio?start=2&end=1", "end"),
        ("audio?start=1&end=1", "end"),
        ("audio?start=1&end=1.00001", "end"),
        ("audio?start=-1&end=1", "start"),
        ("audio?start=nan&end=1", "start"),
        ("audio?start=0&end=inf", "end"),
        ("audio?start=0&end=601", "end"),
        ("audio?start=50&end=51", "start"),
        ("audio?start=2.99999&end=9", "start"),
        ("audio?start=0&end=1&format=exe", "format"),
        ("spectrogram.png?start=0", "end"),
        ("spectrogram.png?start=0&end=121", "end"),
        ("spectrogram.png?start=0&end=1&width=2001", "width"),
        ("spectrogram.png?start=0&end=1&height=9999", "height"),
        ("spectrogram.png?start=50&end=51", "start"),
        ("peaks?points_per_second=0", "points_per_second"),
        ("peaks?points_per_second=101", "points_per_second"),
    ],
)
def test_a_wrong_parameter_is_named(client, own, query, param):
    answer = client.get(f"{own}/{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.slow
def test_a_spectrogram_is_a_picture(client, own):
    answer = client.get(f"{own}/spectrogram.png?start=0.5&end=2&width=300&height=100", timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
    size = (int.from_bytes(answer.content[n : n + 4], "big") for n in (16, 20))
    assert tuple(size) == (300, 100)


# --- who may listen -------------------------------------------------------------------------------


def token_of(client, own):
    answer = client.post(f"{own}/media_token")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert 3500 < answer.json()["expires_at"] - time.time() <= 3600
    return answer.json()["token"]


def test_a_token_opens_the_recording_of_its_job_only(server, client, own):
    token, other = token_of(client, own), make(client, make_wav(1.0, amplitude=500))
    for path in ("audio", "audio?start=0&end=1"):
        path += ("&" if "?" in path else "?") + f"token={token}"
        assert HTTP.get(f"{server.url}{own}/{path}").status_code == 200
    assert HTTP.head(f"{server.url}{own}/audio?token={token}").status_code == 200
    closed = [
        ("GET", f"/v1/jobs/{other}/audio"),
        ("GET", f"{own}/peaks"),
        ("GET", own),
        ("GET", f"{own}/transcript"),
        ("GET", f"{own}/transcript.srt"),
        ("GET", "/v1/jobs"),
        ("POST", f"{own}/audio"),
        ("POST", f"{own}/media_token"),
        ("DELETE", own),
        ("DELETE", f"{own}/audio"),
        ("GET", f"{own}/audio/"),
    ]
    for method, path in closed:
        answer = HTTP.request(method, f"{server.url}{path}?token={token}")
        assert answer.status_code == 401, (method, path)
    for wrong in ("", "mt_", token[:-1], "key-a"):
        assert HTTP.get(f"{server.url}{own}/audio?token={wrong}").status_code == 401


def test_a_token_is_never_logged(server, client, own):
    token = token_of(client, own)
    HTTP.get(f"{server.url}{own}/audio?token={token}")
    HTTP.get(f"{server.url}{own}/peaks?token={token}")
    assert token not in server.log
    assert f"{own}/audio" in server.log


def test_other_keys_reach_no_recording(server, own):
    other = client_of(server, "b")
    for path in ("peaks", "audio", "spectrogram.png?start=0&end=1", "transcript"):
        assert code_of(other.get(f"{own}/{path}"), 404) == "no_such_job"
    assert code_of(other.post(f"{own}/media_token"), 404) == "no_such_job"
    for job in (NOBODYS, "x"):
        assert code_of(other.get(f"/v1/jobs/{job}/audio"), 404) == "no_such_job"


def test_a_recording_that_is_deleted_while_it_plays_is_played_to_its_end(client):
    sound = make_wav(30.0, amplitude=400)
    job = make(client, sound)
    with client.stream("GET", f"/v1/jobs/{job}/audio") as answer:
        pieces = answer.iter_bytes(1000)
        first = next(pieces)
        assert client.delete(f"/v1/jobs/{job}").status_code == 200
        assert first + b"".join(pieces) == sound
    assert client.get(f"/v1/jobs/{job}/audio").status_code == 404


def test_the_preparation_is_waited_for_only_so_long(client, monkeypatch):
    """It goes on, and the next request finds it."""
    monkeypatch.setattr("asr.service.page.media.Media.prepared.__defaults__", (0.0,))
    own = f"/v1/jobs/{make(client, make_wav(1.0, amplitude=300))}"
    answer = client.get(f"{own}/peaks")
    assert code_of(answer, 503) == "recording_being_prepared"
    assert answer.headers["retry-after"] == "3"
    wait_for(lambda: client.get(f"{own}/peaks").status_code == 200, 30, "the preparation")
