"""``GET /ready`` tells the truth about disks, descriptors, the database and the engine."""

import asyncio
import errno
import fcntl
import os
import shutil

import pytest

from asr.errors import StoreUnavailable
from asr.service.files import restore_run_directory, run_directory, temporary_folder
from asr.service.jobs.store import JobStore
from asr.service.observability import readiness
from asr.service.observability.readiness import Readiness
from tests.support.fake_server import FakeEngine
from tests.support.inprocess import serving
from tests.support.serving import HTTP, PATH, make_wav


async def answers():
    """The database answers."""


def reason_with(folder, ask=answers):
    return asyncio.run(Readiness([folder], ask).obstacles()).service


def jobs_with(folder, ask):
    found = asyncio.run(Readiness([folder], ask).obstacles())
    assert found.service == "", "synchronous requests need no database"
    return found.jobs


def test_nothing_is_wrong(tmp_path):
    assert reason_with(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the server's disk is full"),
        (errno.EDQUOT, "the server's disk is full"),
        (errno.EMFILE, "the server lacks memory, descriptors or threads"),
        (errno.EROFS, "the server's storage failed"),
        (errno.EIO, "the server's storage failed"),
    ],
)
def test_the_disk_fails(tmp_path, monkeypatch, number, message):
    def fails(**_):
        raise OSError(number, os.strerror(number), "/secret")

    monkeypatch.setattr(readiness.tempfile, "TemporaryFile", fails)
    assert reason_with(tmp_path) == message


def test_no_descriptors(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(readiness.os, "open", fails)
    assert "descriptors" in reason_with(tmp_path)


def test_the_database_is_down(tmp_path):
    async def down():
        raise StoreUnavailable("at 10.0.0.1")

    assert jobs_with(tmp_path, down) == "the database of jobs cannot be used now"


def test_the_database_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
    assert "does not answer" in jobs_with(tmp_path, lambda: asyncio.sleep(9))


def test_many_probes_are_one_check(tmp_path):
    asked = []

    async def ask():
        asked.append(1)

    async def run():
        ready = Readiness([tmp_path], ask)
        await asyncio.gather(*(ready.obstacles() for _ in range(50)))

    asyncio.run(run())
    assert len(asked) == 1


def test_the_route_tells_what_is_wrong(monkeypatch):
    def fails(_):
        raise OSError(errno.ENOSPC, "no space", "/secret")

    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    with serving() as server:
        with monkeypatch.context() as broken:
            broken.setattr(readiness, "_check_folder", fails)
            answer = HTTP.get(f"{server.url}/ready")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["status"] == "unavailable"
        assert "/secret" not in answer.text
        assert HTTP.get(f"{server.url}/ready").status_code == 200


def test_the_route_tells_when_the_engine_is_away(monkeypatch):
    with serving() as server:
        monkeypatch.setattr(FakeEngine, "obstacle", "its server is away", raising=False)
        answer = HTTP.get(f"{server.url}/ready")
        assert (answer.status_code, answer.json()["reason"]) == (503, "its server is away")


def test_the_route_tells_when_the_database_is_down(monkeypatch):
    async def down(_):
        raise StoreUnavailable("at 10.0.0.1")

    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    monkeypatch.setattr(JobStore, "n_waiting", down)
    with serving() as server:
        answer = HTTP.get(f"{server.url}/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert answer.json()["jobs"] == "the database of jobs cannot be used now"


def test_the_route_tells_when_no_recording_of_a_job_can_be_stored(monkeypatch):
    """It said that all was well while every job was refused."""
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    with serving() as server:
        recordings = server.work_dir.parent / "data" / "recordings"
        shutil.rmtree(recordings)
        recordings.touch()  # in the place of the folder
        answer = HTTP.get(f"{server.url}/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert answer.json()["jobs"] == "the server's storage failed"
        wav = {"content": make_wav(), "headers": {"content-type": "audio/wav"}}
        refused = HTTP.post(f"{server.url}/v1/jobs", **wav)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        recordings.unlink()
        assert "jobs" not in HTTP.get(f"{server.url}/ready").json()
        assert HTTP.post(f"{server.url}/v1/jobs", **wav).status_code == 202


# --- deleted folders ----------------------------------------------------------------------------


def test_a_deleted_run_directory_comes_back_with_its_lock(tmp_path):
    with run_directory(tmp_path / "") as folder:
        shutil.rmtree(folder)

        async def use():
            async with temporary_folder(folder) as inner:
                assert inner.is_dir()

        asyncio.run(use())
        assert folder.stat().st_mode & 0o777 == 0o700
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        with run_directory(tmp_path) as other:  # another server starts, and removes dead folders
            assert folder.is_dir()
            assert other != folder
        restore_run_directory(folder)
    assert list(tmp_path.iterdir()) == []


def test_requests_work_after_the_work_directory_was_deleted():
    with serving() as server:
        shutil.rmtree(server.work_dir)
        answer = HTTP.post(
            server.url + PATH, content=make_wav(), headers={"content-type": "audio/wav"}
        )
        assert answer.status_code == 200
        assert HTTP.get(f"{server.url}/ready").status_code == 200
