"""What several test modules share: one server, since starting one takes seconds."""

import pytest

from tests.serving import FAKE, serving

UPLOAD_LIMIT = 400 << 20


@pytest.fixture(scope="session")
def server():
    """The real service around an engine that answers at once. Leave it as you found it."""
    with serving(*FAKE, ASR_MAX_UPLOAD_BYTES=str(UPLOAD_LIMIT)) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch):
    """Retries and health checks of servers come at once."""
    monkeypatch.setattr("asr.engines.vllm_http.FIRST_DELAY", 0.01)
    monkeypatch.setattr("asr.engines.servers.HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("asr.engines.servers.RETURN_SECONDS", 0.05)
