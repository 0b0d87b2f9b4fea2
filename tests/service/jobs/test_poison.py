"""The whole service, and a chunk that fails in the engine each time."""

import contextlib
import signal

import pytest

from asr.errors import EngineUnavailable, WorkerDied
from asr.service.jobs import attempt, runner
from asr.service.jobs.suspicion import MAX_FAILURES
from tests.service.jobs.test_jobs import create, ended, recording
from tests.support.fake_server import FakeEngine
from tests.support.inprocess import serving


@pytest.fixture
def poisoned(monkeypatch):
    """Make the engine fail on one chunk of each recording; returns the indices that it saw."""
    monkeypatch.setattr(attempt, "MAX_DELAY", 0.0)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    real = FakeEngine.transcribe

    @contextlib.contextmanager
    def failing(index, error, n_times=float("inf")):
        seen = []

        async def transcribe(self, chunk, audio, options):
            seen.append(chunk.index)
            if chunk.index == index and seen.count(index) <= n_times:
                raise error
            return await real(self, chunk, audio, options)

        with monkeypatch.context() as patch:
            patch.setattr(FakeEngine, "transcribe", transcribe)
            yield seen

    return failing


def test_a_recording_with_a_chunk_that_kills_its_recogniser_fails_and_others_do_not(poisoned):
    killed = WorkerDied("killed", signal=signal.SIGKILL)
    with serving() as server, poisoned(1, killed) as seen:
        client = server.client()
        long, short = (create(client, recording(seconds)) for seconds in (50, 10))
        assert ended(client, short)["state"] == "succeeded"
        job = ended(client, long)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "job_gave_up"
        assert seen.count(1) == job["attempts"] == MAX_FAILURES


@pytest.mark.parametrize(
    "error",
    [EngineUnavailable("away"), WorkerDied("full", errno=28), OSError(24, "files")],
    ids=repr,
)
def test_trouble_at_one_chunk_delays_the_job_and_changes_nothing(poisoned, error):
    with serving() as server:
        client = server.client()
        audio = recording(50)
        quiet = ended(client, create(client, audio))
        expected = client.get(quiet["urls"]["json"]).json()
        client.delete(quiet["urls"]["self"])
        with poisoned(1, error, 2 * MAX_FAILURES) as seen:
            job = ended(client, create(client, audio))
        assert job["state"] == "succeeded"
        assert seen.count(1) == 2 * MAX_FAILURES + 1
        assert client.get(job["urls"]["json"]).json() == expected
