"""What several test modules share: one server, since starting one takes seconds."""

import gc
import os

import pytest
from hypothesis import settings

import tests.support.bytecode  # noqa: F401  # first, since it changes how the others are imported
from tests.support.inprocess import serving
from tests.support.postgres import postgres
from tests.support.templates import forked_templates

UPLOAD_LIMIT = 400 << 20

# `make test` is for every change; `make test-laws` looks for what it leaves out.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish():
    """Let no garbage collection walk over the modules and tests that stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _forked_templates():
    """Start the template processes of pools by a fork; tests/workers starts them for real."""
    with forked_templates():
        yield


@pytest.fixture(scope="session")
def server():
    """The service around an engine that answers at once. Leave it as you found it."""
    with serving(ASR_MAX_UPLOAD_BYTES=str(UPLOAD_LIMIT)) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url():
    """Of a real Postgres."""
    with postgres() as server:
        yield server.url


@pytest.fixture
def impatient(monkeypatch):
    """Retries and health checks of servers come at once."""
    monkeypatch.setattr("asr.engines.omni.http.FIRST_DELAY", 0.01)
    monkeypatch.setattr("asr.engines.omni.servers.HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("asr.engines.omni.servers.RETURN_SECONDS", 0.05)
