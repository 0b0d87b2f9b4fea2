"""The whole service, and a chunk that fails in the engine each time."""

import contextlib
import functools
import json
import signal

import pytest

from asr.errors import EngineFailed, EngineTimeout, EngineUnavailable, WorkerDied
from asr.service.jobs import attempt, runner
from asr.service.jobs.suspicion import MAX_FAILURES
from tests.service.jobs.test_jobs import RAW, create, ended, events, recording
from tests.support.fake_server import FakeEngine
from tests.support.inprocess import serving


@pytest.fixture(scope="module")
def client():
    with serving() as server:
        yield server.client()


@pytest.fixture
def poisoned(monkeypatch):
    """Make the engine fail on one chunk of each recording; returns the indices that it saw."""
    monkeypatch.setattr(attempt, "MAX_DELAY", 0.0)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    real = FakeEngine.transcribe

    @contextlib.contextmanager
    def failing(index, error, n_times=float("inf")):
        seen = []
        indices = {index} if isinstance(index, int) else index

        async def transcribe(self, chunk, audio, options):
            seen.append(chunk.index)
            if chunk.index in indices and seen.count(chunk.index) <= n_times:
                raise error
            return await real(self, chunk, audio, options)

        with monkeypatch.context() as patch:
            patch.setattr(FakeEngine, "transcribe", transcribe)
            yield seen

    return failing


def test_a_recording_with_a_chunk_that_kills_its_recogniser_fails_and_others_do_not(
    client, poisoned
):
    killed = WorkerDied("killed", signal=signal.SIGKILL)
    with poisoned(1, killed) as seen:
        long = create(client, recording(50), on_error="fail")
        short = create(client, recording(10))
        assert ended(client, short)["state"] == "succeeded"
        job = ended(client, long)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "job_gave_up"
        assert seen.count(1) == job["attempts"] == MAX_FAILURES


def test_a_chunk_that_fails_leaves_a_gap_in_a_job_and_in_a_request_that_asks_for_it(
    client, poisoned
):
    audio = recording(70)
    with poisoned(1, EngineFailed("it refuses")) as seen:
        job = ended(client, create(client, audio))
        assert (job["state"], job["attempts"]) == ("succeeded", MAX_FAILURES + 1)
        assert seen.count(1) == MAX_FAILURES
        whole = client.get(job["urls"]["json"]).json()
        (gap,) = job["gaps"]
        assert whole["gaps"] == [gap]
        assert (gap["reason"], gap["channel"]) == ("engine_failed", None)
        assert whole["segments"][-1]["end"] > gap["end"]  # the rest is there
        for extension in ("txt", "srt", "vtt", "tsv"):
            assert client.get(job["urls"][extension]).text.count("[missing ") == 1
        told = events(client, job)
        assert [data for name, _, data in told if name == "gap"] == [gap]
        assert (told[-1][0], told[-1][2]["gaps"]) == ("done", [gap])

        post = functools.partial(client.post, "/v1/audio/transcriptions", content=audio)
        answer = post(headers=RAW)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
        wanted = {"on_error": "gap", "response_format": "full_json"}
        answer = post(params=wanted, headers=RAW).json()
        assert (answer["gaps"], answer["segments"]) == ([gap], whole["segments"])
        streamed = post(params={"on_error": "gap", "stream": "true"}, headers=RAW).text
        bodies = [json.loads(it[6:]) for it in streamed.splitlines() if it.startswith("data: {")]
        (event,) = [body for body in bodies if body["type"] == "transcript.text.gap"]
        assert event == {"type": "transcript.text.gap"} | gap
        assert bodies[-1]["gaps"] == [gap]
        answer = post(params={"on_error": "hide"}, headers=RAW)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "on_error")


def test_a_job_with_more_than_half_missing_fails(client, poisoned):
    with poisoned({1, 2}, EngineTimeout("late")):
        job = ended(client, create(client, recording(70)))
        assert (job["state"], job["error"]["code"]) == ("failed", "too_much_missing")
        assert "of the recording could not be transcribed" in job["error"]["message"]
        partial = client.get(job["urls"]["json"]).json()
        assert [gap["reason"] for gap in partial["gaps"]] == ["engine_timeout"]


@pytest.mark.parametrize(
    "error",
    [EngineUnavailable("away"), WorkerDied("full", errno=28), OSError(24, "files")],
    ids=repr,
)
def test_trouble_at_one_chunk_delays_the_job_and_changes_nothing(client, poisoned, error):
    audio = recording(50)
    quiet = ended(client, create(client, audio))
    expected = client.get(quiet["urls"]["json"]).json()
    client.delete(quiet["urls"]["self"])
    with poisoned(1, error, 2 * MAX_FAILURES) as seen:
        job = ended(client, create(client, audio))
    assert job["state"] == "succeeded"
    assert seen.count(1) == 2 * MAX_FAILURES + 1
    assert client.get(job["urls"]["json"]).json() == expected
