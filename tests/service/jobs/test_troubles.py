"""Databases that cannot be used, clocks that step, and what ended jobs leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import time
import uuid
from contextlib import asynccontextmanager

import httpx
import pytest
import sqlalchemy as sa

from asr.doctor import check_settings
from asr.errors import InvalidOption, StoreUnavailable
from asr.service.clock import DOUBT_SECONDS, CautiousClock
from asr.service.jobs.database import Database, now
from asr.service.jobs.leases import MAX_WAIT_SECONDS, SHORTEST_SECONDS, Leases
from asr.service.jobs.rows import NewJob
from asr.service.jobs.service import Jobs
from asr.service.jobs.store import JobStore
from asr.service.jobs.tables import deleted_jobs, jobs
from asr.service.jobs.troubles import DAMAGED, FOREIGN, described
from asr.settings import Settings
from tests.support.inprocess import serving
from tests.support.serving import PATH, make_wav, wait_for

RAW = {"content-type": "audio/wav"}


def new_job(owner="me"):
    job = uuid.uuid4().hex
    return NewJob(job, owner, "{}", job, "0", 1)


@asynccontextmanager
async def stores(folder):
    database = Database(f"sqlite:///{folder}/jobs.db")
    store = JobStore(database)
    await store.open()
    yield store, Leases(database), database
    await store.close()


def in_store(folder, test):
    async def run():
        async with stores(folder) as found:
            await test(*found)

    asyncio.run(run())


async def update(database, **values):
    await database.run(lambda c: c.execute(sa.update(jobs).values(values)).rowcount)


# --- a database that cannot be used ---------------------------------------------------------------


def damaged(path):
    path.write_bytes(b"this is no database, and it is long enough to have a header" * 100)


def truncated(path):
    whole(path)
    path.write_bytes(path.read_bytes()[:5000])


def torn(path):
    whole(path)
    data = bytearray(path.read_bytes())
    data[200:] = os.urandom(len(data) - 200)
    path.write_bytes(data)


def foreign(path):
    execute(path, "CREATE TABLE asr_schema (version TEXT)", "INSERT INTO asr_schema VALUES ('x')")


def foreign_jobs(path):
    execute(path, "CREATE TABLE asr_jobs (name TEXT)")


def without_version(path):
    whole(path)
    execute(path, "DELETE FROM asr_schema")


def folder(path):
    path.mkdir()


def whole(path):
    in_store(path.parent, _nothing)


async def _nothing(*_):
    pass


def execute(path, *statements):
    database = sqlite3.connect(path)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


TROUBLES = {
    damaged: DAMAGED,
    truncated: DAMAGED,
    torn: DAMAGED,
    foreign: FOREIGN,
    foreign_jobs: FOREIGN,
    without_version: FOREIGN,
    folder: "the database of jobs cannot be opened",
}


@pytest.mark.parametrize(("make", "summary"), TROUBLES.items())
def test_a_database_that_cannot_be_used_is_one_kind_of_error(tmp_path, make, summary):
    make(tmp_path / "jobs.db")
    database = Database(f"sqlite:///{tmp_path}/jobs.db")

    async def run():
        with pytest.raises(StoreUnavailable) as caught:
            await JobStore(database).open()
        assert caught.value.summary == summary
        assert caught.value.advice
        assert caught.value.advice in described(caught.value)
        assert database.trouble is caught.value
        assert str(tmp_path) not in summary

    asyncio.run(run())


def test_a_read_only_database_is_one_too(tmp_path):
    whole(tmp_path / "jobs.db")
    database = Database(f"sqlite:///file:{tmp_path}/jobs.db?mode=ro&uri=true")

    async def run():
        await JobStore(database).open()
        with pytest.raises(StoreUnavailable) as caught:
            await JobStore(database).create(new_job())
        assert caught.value.summary == "the database of jobs is read-only"

    asyncio.run(run())


def test_a_locked_database_is_one_too(tmp_path, monkeypatch):
    monkeypatch.setattr("asr.service.jobs.database.CONNECT_SECONDS", 0.05)
    whole(tmp_path / "jobs.db")
    holder = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    async def run():
        database = Database(f"sqlite:///{tmp_path}/jobs.db")
        with pytest.raises(StoreUnavailable) as caught:
            await JobStore(database).open()
        assert caught.value.summary == "the database of jobs is locked"
        holder.execute("COMMIT")
        await JobStore(database).open()
        assert database.trouble is None
        await database.close()

    asyncio.run(run())
    holder.close()


def test_a_database_that_breaks_later_is_one_too(tmp_path):
    async def test(store, leases, database):
        await store.create(new_job())
        await database.run(lambda c: c.exec_driver_sql("DROP TABLE asr_jobs"))
        await database.run(lambda c: c.exec_driver_sql("CREATE TABLE asr_jobs (other INTEGER)"))
        for work in (store.n_waiting, store.counts, lambda: leases.claim("lease", 60)):
            with pytest.raises(StoreUnavailable):
                await work()

    in_store(tmp_path, test)


@pytest.mark.parametrize("what", ["jobs.db", "jobs.db*", "folder", "tables"])
def test_what_somebody_deleted_is_made_again(tmp_path, what):
    """A job that is accepted after that is in the file, and not only in a deleted one."""
    folder = tmp_path / "data"
    folder.mkdir()

    async def run():
        async with stores(folder) as (store, _, _):
            lost, found = new_job(), new_job()
            await store.create(lost)
            if what == "folder":
                shutil.rmtree(folder)
            elif what == "tables":
                with contextlib.closing(sqlite3.connect(folder / "jobs.db")) as database:
                    names = (
                        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'asr%'"
                    )
                    for (table,) in database.execute(names).fetchall():
                        database.execute(f"DROP TABLE {table}")
            else:
                for path in folder.glob(what):
                    path.unlink()
            await store.create(found)
        async with stores(folder) as (store, _, _):
            assert await store.find("me", found.id)
            assert await store.find("me", lost.id) is None

    asyncio.run(run())


def test_the_service_works_without_its_database():
    """A damaged jobs.db caused a traceback at the start, and no request was answered."""
    content = make_wav(1.0)
    with serving(prepare=lambda data: damaged(data / "jobs.db")) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            ready = client.get("/ready")
            assert (ready.status_code, ready.json()["jobs"]) == (200, DAMAGED)
            assert client.post(PATH, content=content, headers=RAW).status_code == 200
            for answer in (
                client.post("/v1/jobs", content=content, headers=RAW),
                client.get("/v1/jobs"),
                client.get(f"/v1/jobs/{'0' * 32}"),
                client.delete(f"/v1/jobs/{'0' * 32}"),
            ):
                assert answer.status_code == 503
                error = answer.json()["error"]
                assert (error["code"], error["message"]) == ("database_unavailable", DAMAGED)
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("/metrics").status_code == 200
        wait_for(lambda: "To repair it" in server.log_path.read_text(), 60)
        assert "Traceback" not in server.log_path.read_text()


@pytest.mark.parametrize("make", [damaged, truncated, torn, foreign, folder])
def test_the_doctor_finds_a_database_that_cannot_be_used(tmp_path, make):
    make(tmp_path / "jobs.db")
    before = sorted(tmp_path.iterdir())
    assert _database_check(tmp_path).level == "fail"
    assert _database_check(tmp_path).fix
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("make", [whole, lambda _: None])
def test_the_doctor_accepts_a_good_database_and_none(tmp_path, make):
    make(tmp_path / "jobs.db")
    assert _database_check(tmp_path).level == "ok"


def _database_check(folder):
    checks = check_settings(Settings(data_dir=str(folder)))
    return next(check for check in checks if check.name == "database")


def test_postgres_without_its_driver_names_the_extra(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "psycopg" else find_spec(name)
    )
    with pytest.raises(InvalidOption, match=r"asr-service\[postgres\]"):
        Database("postgresql://localhost/jobs")
    checks = check_settings(Settings(database_url="postgresql://localhost/jobs"))
    assert any("asr-service[postgres]" in check.fix for check in checks if check.name == "database")


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [3600, 10**7])
def test_a_lease_from_the_future_strands_no_job(tmp_path, ahead):
    """The server crashed while its clock was ahead."""
    left = sa.select(jobs.c.lease_until - now())

    async def test(store, leases, database):
        made, _ = await store.create(new_job())
        await leases.claim("dead", 15)
        await update(database, lease_until=now() + ahead)
        assert await leases.claim("other", 15) is None
        assert await database.read(lambda c: c.scalar(left)) <= max(15, SHORTEST_SECONDS)
        await update(database, lease_until=now() - 1)
        assert (await leases.claim("other", 15)).id == made.id

    in_store(tmp_path, test)


def test_a_server_that_lives_keeps_a_longer_lease_than_ours(tmp_path):
    async def test(store, leases, _):
        await store.create(new_job())
        await leases.claim("theirs", 600)
        assert await leases.claim("ours", 0.05) is None
        await asyncio.sleep(0.1)
        assert await leases.claim("ours", 0.05) is None
        assert await leases.renew(["theirs"], 600) == {"theirs"}
        assert await leases.claim("ours", 0.2) is None

    in_store(tmp_path, test)


@pytest.mark.parametrize("ahead", [MAX_WAIT_SECONDS + 10, 10**7])
def test_a_retry_time_from_the_future_strands_no_job(tmp_path, ahead):
    async def test(store, leases, database):
        made, _ = await store.create(new_job())
        await update(database, not_before=now() + MAX_WAIT_SECONDS - 10)
        assert await leases.claim("lease", 15) is None
        await update(database, not_before=now() + ahead)
        assert (await leases.claim("lease", 15)).id == made.id

    in_store(tmp_path, test)


def test_no_delay_looks_like_one_from_the_future(tmp_path):
    async def test(store, leases, _):
        made, _ = await store.create(new_job())
        await leases.claim("lease", 15)
        await leases.release(made.id, "lease", 10**6)
        assert await leases.claim("lease", 15) is None

    in_store(tmp_path, test)


def test_a_job_that_ended_in_the_future_expires(tmp_path):
    async def test(store, leases, database):
        made, _ = await store.create(new_job())
        await leases.claim("lease", 15)
        await leases.fail(made.id, "lease", "{}")
        await update(database, finished=now() + 10**8)
        assert await store.expire(60) == []
        assert (await store.find("me", made.id)).finished < (
            await store.find("me", made.id)
        ).created + 60
        await update(database, finished=now() - 61)
        assert await store.expire(60) == [made.id]

    in_store(tmp_path, test)


class Clocks:
    def __init__(self, folder):
        self.wall, self.steady, self._folder = 1e9, 0.0, folder

    def start(self):
        return CautiousClock(self._folder / "clock", lambda: self.wall, lambda: self.steady)

    def pass_time(self, seconds, step=0.0):
        self.wall += seconds + step
        self.steady += seconds


def test_a_step_ahead_is_doubted_for_an_hour(tmp_path):
    clocks = Clocks(tmp_path)
    clock = clocks.start()
    assert clock.now() == 1e9
    clocks.pass_time(600, step=10**7)
    assert clock.now() == 1e9 + 600
    assert clock.lag == 10**7
    clocks.pass_time(DOUBT_SECONDS - 1)
    assert clock.now() == 1e9 + 600 + DOUBT_SECONDS - 1
    clocks.pass_time(2)
    assert clock.now() == clocks.wall
    assert clock.lag == 0


def test_a_step_that_is_corrected_was_none(tmp_path):
    clocks = Clocks(tmp_path)
    clock = clocks.start()
    clock.now()
    clocks.pass_time(600, step=10**7)
    clock.now()
    clocks.pass_time(600, step=-(10**7))
    assert clock.now() == 1e9 + 1200
    clocks.pass_time(DOUBT_SECONDS, step=10**7)
    assert clock.now() == 1e9 + 1200 + DOUBT_SECONDS


def test_a_step_back_is_followed_at_once(tmp_path):
    clocks = Clocks(tmp_path)
    clock = clocks.start()
    clock.now()
    clocks.pass_time(60, step=-(10**6))
    assert clock.now() == clocks.wall
    clocks.pass_time(60)
    assert clock.now() == clocks.wall


@pytest.mark.parametrize(("down", "lag"), [(60, 0), (10**7, 10**7)])
def test_a_step_while_the_service_is_down_is_doubted_too(tmp_path, down, lag):
    clocks = Clocks(tmp_path)
    clocks.start().now()
    clocks.wall += down
    clock = clocks.start()
    assert clock.lag == lag
    clocks.pass_time(DOUBT_SECONDS + 1)
    assert clock.lag == 0


# --- what ended jobs leave ------------------------------------------------------------------------


class Failing:
    n_succeeded = worker = 0

    async def transcribe(self, _):
        raise InvalidOption("language", "is not known")
        yield


def jobs_of(folder, client=None):
    settings = Settings(data_dir=str(folder), work_dir=str(folder))
    return Jobs(client=client, settings=settings, run_dir=folder, incoming=folder, uploads=None)


def test_a_failed_job_keeps_no_recording(tmp_path):
    options = {"vad": {}, "chunk": {}, "decode": {}, "subtitles": {}}

    async def run():
        jobs = jobs_of(tmp_path, Failing())
        async with jobs.working():
            made = NewJob(uuid.uuid4().hex, "me", json.dumps(options), "f", "0", 1)
            path = jobs.recordings.path(made.id)
            jobs.recordings.open()
            path.write_bytes(b"x")
            await jobs.store.create(made)
            while (await jobs.store.find("me", made.id)).state != "failed" or path.exists():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("end", ["fail", "cancel", "succeed"])
def test_the_sweep_removes_recordings_of_ended_jobs_at_once(tmp_path, end):
    """A process that is killed between the end of a job and the removal leaves its recording."""

    async def run():
        jobs = jobs_of(tmp_path)
        jobs.recordings.open()
        await jobs.store.open()
        ended, waiting = new_job(), new_job()
        for job in (ended, waiting):
            jobs.recordings.path(job.id).write_bytes(b"x")
            await jobs.store.create(job)
            if job is ended:
                await finish(jobs, ended.id, end)
        without_job = jobs.recordings.path(uuid.uuid4().hex)
        without_job.write_bytes(b"x")  # its job will be stored in a moment
        await jobs._sweep_recordings(without_job.stat().st_mtime)
        assert not jobs.recordings.path(ended.id).exists()
        assert jobs.recordings.path(waiting.id).exists()
        assert without_job.exists()
        await jobs.store.close()

    asyncio.run(run())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_sweep_keeps_the_recording_of_a_job_that_is_created_meanwhile(tmp_path, moment):
    async def run():
        jobs, job = jobs_of(tmp_path), new_job()
        jobs.recordings.open()
        await jobs.store.open()
        jobs.recordings.path(job.id).write_bytes(b"x")
        states_of = jobs.store.states_of

        async def meanwhile(ids):
            if moment == "before":
                await jobs.store.create(job)
            states = await states_of(ids)
            if moment == "after":
                await jobs.store.create(job)
            return states

        jobs.store.states_of = meanwhile
        await jobs._sweep_recordings(time.time())
        assert jobs.recordings.path(job.id).exists()
        await jobs.store.close()

    asyncio.run(run())


@pytest.mark.parametrize("ask", ["cancel", "delete"])
def test_a_job_ends_although_its_recording_cannot_be_removed(tmp_path, ask):
    """The client was told 503, although its job was cancelled or deleted."""

    async def run():
        jobs, job = jobs_of(tmp_path), new_job()
        await jobs.store.open()
        jobs.recordings.path(job.id).mkdir(parents=True)  # `unlink` fails, as on a read-only disk
        await jobs.store.create(job)
        assert (await getattr(jobs, ask)("me", job.id)).id == job.id
        await jobs.store.close()

    asyncio.run(run())


def test_the_sweep_goes_on_after_a_recording_that_cannot_be_removed(tmp_path):
    async def run():
        jobs, ended = jobs_of(tmp_path), [new_job() for _ in range(3)]
        await jobs.store.open()
        jobs.recordings.open()
        for job in ended:
            await jobs.store.create(job)
            await jobs.store.cancel("me", job.id)
        stuck, *others = [jobs.recordings.path(job.id) for job in ended]
        stuck.mkdir()
        for path in others:
            path.write_bytes(b"x")
        found = {path.name: False for path in (stuck, *others)}
        jobs.recordings.stored = lambda _: found  # the stuck one comes first
        await jobs._sweep_recordings(time.time())
        assert stuck.exists()
        assert not any(path.exists() for path in others)
        await jobs.store.close()

    asyncio.run(run())


async def finish(jobs, job, end):
    if end == "cancel":
        await jobs.store.cancel("me", job)
        return
    leases = jobs.runner._leases
    await leases.claim("lease", 60)
    if end == "fail":
        await leases.fail(job, "lease", "{}")
    else:
        from asr.service.jobs.leases import NewResults

        await leases.succeed(job, "lease", NewResults(), 0, "{}")


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delete", "expire"])
def test_a_page_after_a_deleted_job_goes_on(tmp_path, how):
    """It was empty, so a client that deleted what it had read missed the rest."""

    async def test(store, leases, database):
        made = []
        for _ in range(4):
            made.append((await store.create(new_job()))[0].id)
            await asyncio.sleep(0.002)
        theirs = (await store.create(new_job("other")))[0].id
        newest = made[::-1]
        if how == "delete":
            await store.delete("me", newest[1])
        else:
            ended = (
                sa.update(jobs).where(jobs.c.id == newest[1]).values(finished=1.0, state="failed")
            )
            await database.run(lambda c: c.execute(ended).rowcount)
            assert await store.expire(60) == [newest[1]]
        assert [job.id for job in await store.page("me", 9, after=newest[1])] == newest[2:]
        assert await store.page("other", 9, after=newest[1]) == []
        assert await store.page("me", 9, after=theirs) == []
        forgotten = sa.update(deleted_jobs).values(deleted=1.0)
        await database.run(lambda c: c.execute(forgotten).rowcount)
        await store.expire(60)
        count = sa.select(sa.func.count()).select_from(deleted_jobs)
        assert await database.read(lambda c: c.scalar(count)) == 0

    in_store(tmp_path, test)
