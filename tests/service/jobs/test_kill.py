"""No job is lost when the server, the worker or the database is killed, or the disk is full.

With real server processes. ``make test-kill`` runs the long tests.
"""

import contextlib
import os
import subprocess

import pytest

from tests.service.jobs.test_jobs import RAW, create, ended, recording
from tests.support.chaos import chaos
from tests.support.postgres import needs_postgres, postgres
from tests.support.serving import FAKE, HTTP, launched, wait_for

N_IN_FLIGHT = 4 + 12
"""Chunks that one kill may repeat: those in the engine's slots and those not stored yet."""


def check(folder, n_jobs, n_kills, database=None, seed=0):
    out = chaos(folder, n_jobs, n_kills, database, seed)
    accepted = out.client.accepted
    print(out.killed, out.client.refusals, out.client.attempts, out.n_needed, out.n_recognised)
    assert sum(out.killed.values()) == n_kills
    assert len(accepted) == len(set(accepted.values())) == n_jobs
    assert out.differing == []
    assert out.client.attempts > n_jobs, "no kill hit a job"
    assert out.n_needed <= out.n_recognised <= out.n_needed + n_kills * N_IN_FLIGHT
    assert set(out.client.refusals) <= {"database_unavailable", "worker_died", "shutting_down"}


@pytest.mark.slow
def test_a_few_kills(tmp_path):
    check(tmp_path, n_jobs=3, n_kills=2)


@pytest.mark.slow
@pytest.mark.kill
def test_fifty_kills_on_sqlite(tmp_path):
    check(tmp_path, n_jobs=30, n_kills=50)


@pytest.mark.slow
@pytest.mark.kill
@needs_postgres
def test_fifty_kills_on_postgres(tmp_path):
    with postgres() as database:
        check(tmp_path, n_jobs=30, n_kills=51, database=database, seed=1)


@pytest.mark.slow
@needs_postgres
def test_stopped_postgres_is_503_and_loses_nothing():
    with (
        postgres() as database,
        launched(*FAKE, ASR_DATABASE_URL=database.url, FAKE_ENGINE_DELAY="1") as server,
    ):
        server.wait_ready()
        client = server.client()
        job = create(client, recording(200))
        wait_for(lambda: "finished" in server.engine_did(), 60, "the first chunk")
        database.stop()
        for answer in (
            client.post("/v1/jobs", content=recording(), headers=RAW),
            client.get("/v1/jobs"),
            client.get(job["urls"]["self"]),
        ):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "database_unavailable"
            assert answer.headers["x-should-retry"] == "true"
        assert client.get("/health").status_code == 200
        assert client.post("/v1/audio/transcriptions", content=recording(), headers=RAW).is_success
        database.start()
        job = ended(client, job)
        assert (job["state"], job["attempts"]) == ("succeeded", 1)
        code, _ = server.stop()
        assert code == 0


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A small file system in the folder. Skips the test where mounting is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root and CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_is_503_and_loses_nothing(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with (
        small_disk(data, 6),
        launched(*FAKE, ASR_DATA_DIR=str(data), FAKE_ENGINE_DELAY="0.5") as server,
    ):
        server.wait_ready()
        client = server.client()
        job = create(client, recording(60))  # 1.9 MB
        filler = data / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        answer = client.post("/v1/jobs", content=recording(60), headers=RAW)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] in ("disk_full", "database_unavailable")
        assert answer.headers["x-should-retry"] == "true"
        filler.unlink()
        assert ended(client, job)["state"] == "succeeded"
        assert ended(client, create(client, recording(60)))["state"] == "succeeded"
        assert HTTP.get(f"{server.url}/health").status_code == 200
