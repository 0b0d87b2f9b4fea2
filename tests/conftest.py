"""Shared fixtures. There is one server for all tests, because starting one takes seconds."""

import gc
import os

import pytest
from hypothesis import settings

import tests.support.bytecode  # noqa: F401  # first: it changes how later modules are imported
from tests.support.inprocess import serving
from tests.support.postgres import postgres
from tests.support.templates import forked_templates

UPLOAD_LIMIT = 400 << 20

# `make test` uses the quick profile; `make test-laws` tries more examples.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_finish():
    """Exclude the collected modules and tests, which live to the end, from garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _forked_templates():
    """Fork the template processes of pools; only tests/workers starts real ones."""
    with forked_templates():
        yield


@pytest.fixture(scope="session")
def server():
    """The service with an engine that answers at once. Tests must leave its state unchanged."""
    with serving(ASR_MAX_UPLOAD_BYTES=str(UPLOAD_LIMIT)) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url():
    """The URL of a real Postgres server."""
    with postgres() as server:
        yield server.url


@pytest.fixture
def impatient(monkeypatch):
    """Shorten the delays of retries and health checks to at most 0.1 s."""
    monkeypatch.setattr("asr.engines.omni.http.FIRST_DELAY", 0.01)
    monkeypatch.setattr("asr.engines.omni.servers.HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("asr.engines.omni.servers.RETURN_SECONDS", 0.05)
