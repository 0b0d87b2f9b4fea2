"""Fixtures that several test modules share, among them one server: starting one takes seconds."""

import asyncio
import gc
import os
import signal

import pytest
from hypothesis import settings

import tests.support.bytecode  # noqa: F401  # first: it changes how later imports compile
from asr.service.jobs.database import Database
from asr.service.jobs.store import JobStore
from tests.support.inprocess import serving
from tests.support.postgres import needs_postgres, postgres
from tests.support.templates import forked_templates

UPLOAD_LIMIT = 400 << 20

# `make test` (quick) runs for every change; `make test-laws` (thorough) tries more examples.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# A job in the background of a shell, or under nohup, ignores these signals, and so would all its
# children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish():
    """Exclude the loaded modules and tests from garbage collection: they live to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _forked_templates():
    """Fork the template processes of pools; tests/workers starts them as in production."""
    with forked_templates():
        yield


@pytest.fixture(scope="session")
def server():
    """An in-process service with a fake engine that answers at once. Tests must not change it."""
    with serving(ASR_MAX_UPLOAD_BYTES=str(UPLOAD_LIMIT)) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url():
    """The URL of a real Postgres."""
    with postgres() as server:
        yield server.url


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])]
)
def database(request, tmp_path):
    """An empty database of jobs, or one that other tests of the module used before."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = Database(url)
    asyncio.run(JobStore(made).open())
    yield made
    asyncio.run(made.close())


@pytest.fixture
def impatient(monkeypatch):
    """Shorten the delays of retries and of health checks of vLLM servers to 0.1 s or less."""
    monkeypatch.setattr("asr.engines.omni.http.FIRST_DELAY", 0.01)
    monkeypatch.setattr("asr.engines.omni.servers.HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("asr.engines.omni.servers.RETURN_SECONDS", 0.05)
