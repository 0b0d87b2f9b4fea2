"""The store of jobs on SQLite and on a real Postgres: owners, leases, the queue."""

import asyncio
import contextlib
import json
import sqlite3
import uuid
from dataclasses import replace

import pytest
import sqlalchemy as sa

from asr.config import ChunkOptions, DecodeOptions, SubtitleOptions, VadOptions
from asr.errors import StoreUnavailable
from asr.pipeline.checkpoint import pack_segment
from asr.service.errors import KeyReused, LimitReached
from asr.service.jobs.callbacks import CallbackQueue, InFlight
from asr.service.jobs.database import Database, now
from asr.service.jobs.documents import document
from asr.service.jobs.leases import LeaseLost, Leases, NewResults
from asr.service.jobs.request import JobRequest
from asr.service.jobs.rows import NewJob
from asr.service.jobs.store import JobStore
from asr.service.jobs.tables import jobs
from asr.service.litserve.messages import ChunkDone
from asr.types import Segment, Word


@pytest.fixture
def store(database):
    return JobStore(database)


@pytest.fixture
def leases(database):
    return Leases(database)


@pytest.fixture
def owner():
    return uuid.uuid4().hex


def new(owner, fingerprint=None):
    identity = uuid.uuid4().hex
    return NewJob(identity, owner, "{}", fingerprint or identity, "0" * 64, 1)


async def drain(leases):
    """End the jobs of other tests, so that the next claim finds a job of this test."""
    while job := await leases.claim(uuid.uuid4().hex, 60):
        await leases.fail(job.id, job.lease, "{}")


async def one_after_another(store, owner):
    """Create a job, then wait 2 ms so that the next one is newer: SQLite's clock has 1 ms steps."""
    job, _ = await store.create(new(owner))
    await asyncio.sleep(0.002)
    return job.id


def chunk(index):
    return ChunkDone(0, index, 1.0, f"record {index}")


def test_no_owner_sees_another(store, owner):
    async def run():
        job, _ = await store.create(new(owner), key="k")
        other = owner + "x"
        assert await store.find(other, job.id) is None
        assert await store.cancel(other, job.id) is None
        assert not await store.delete(other, job.id)
        assert await store.page(other, 10) == []
        assert await store.page(other, 10, after=job.id) == []
        assert (await store.find(owner, job.id)).state == "queued"
        # The same key and content of another owner make another job.
        theirs, is_new = await store.create(new(other), key="k")
        assert is_new
        assert theirs.id != job.id

    asyncio.run(run())


def test_key_and_fingerprint(store, owner):
    async def run():
        first = new(owner)
        job, _ = await store.create(first, key="k")
        again = new(owner, first.fingerprint)
        assert await store.create(again, key="k") == (job, False)
        assert await store.create(again, key="another") == (job, False)
        with pytest.raises(KeyReused):
            await store.create(new(owner), key="k")
        assert len(await store.page(owner, 10)) == 1
        await store.cancel(owner, job.id)
        assert (await store.create(again, key="k"))[0].state == "cancelled"
        assert (await store.create(again))[1]

    asyncio.run(run())


def test_a_key_remembers_what_was_sent_even_if_the_settings_change(store, owner):
    async def run():
        job, _ = await store.create(new(owner), key="k", sent="what was sent")
        assert await store.create(new(owner), key="k", sent="what was sent") == (job, False)
        same_options = new(owner, job.fingerprint)
        assert await store.create(same_options, key="k", sent="in other words") == (job, False)
        with pytest.raises(KeyReused):
            await store.create(new(owner), key="k", sent="something else")

    asyncio.run(run())


def test_concurrent_requests_do_not_exceed_the_queue(store, leases, owner):
    async def run():
        await drain(leases)
        first = new(owner)
        await store.create(first, key="k", max_waiting=2)
        fresh = [store.create(new(owner), f"{n}", max_waiting=2) for n in range(8)]
        made = await asyncio.gather(*fresh, return_exceptions=True)
        assert [type(one) for one in made if isinstance(one, Exception)] == [LimitReached] * 7
        assert await store.n_waiting() == len(await store.page(owner, 10)) == 2
        # An existing job is not a new one, and a refused key may be sent again.
        again = new(owner, first.fingerprint)
        for key in ("k", "another", None):
            assert (await store.create(again, key, max_waiting=2))[0].id == first.id
        await drain(leases)
        for n in range(8):
            assert (await store.create(new(owner), f"after {n}", max_waiting=8))[1]

    asyncio.run(run())


def test_recording_twice_is_the_same_as_once(store, leases, owner):
    async def run():
        await drain(leases)
        made, _ = await store.create(new(owner))
        job = await leases.claim("lease", 60)
        assert job.id == made.id
        results = NewResults([chunk(0), chunk(1)], [(0, "a"), (1, "b")], (9.0, 8.0, None), 1.0)
        for _ in range(2):
            await leases.record(job.id, "lease", results)
        await leases.record(job.id, "lease", NewResults(progress=(1.0, 1.0, 30.0)))
        found = await store.find(owner, job.id)
        assert (found.decoded, found.transcribed, found.total) == (9.0, 8.0, 30.0)
        assert found.work_seconds == 2.0
        assert await leases.finished_chunks(job.id) == ["record 0", "record 1"]
        assert await store.segments(job.id) == ["a", "b"]
        assert await store.read_many({job.id: 1}) == {job.id: (found, ["b"])}
        assert await store.speech_seconds(job.id) == 2.0
        await leases.succeed(job.id, "lease", NewResults([chunk(2)], [(0, "A")]), 1, "{}")
        done = await store.find(owner, job.id)
        assert (done.state, done.n_chunks, done.lease) == ("succeeded", 3, None)
        assert await store.segments(job.id) == ["A"]
        assert await leases.finished_chunks(job.id) == []

    asyncio.run(run())


def test_a_partial_transcript_is_as_long_as_its_segments(store, leases, owner):
    """The stored progress may be older than the segments."""

    async def run():
        await drain(leases)
        request = JobRequest(VadOptions(), ChunkOptions(), DecodeOptions(), SubtitleOptions())
        await store.create(replace(new(owner), request=request.pack()))
        job = await leases.claim("lease", 60)
        segment = Segment(0, 1.0, 2.5, "hello", (Word("hello", 1.0, 2.5),))
        results = NewResults(segments=[(0, pack_segment(segment))], progress=(9.0, 0.0, 9.0))
        await leases.record(job.id, "lease", results)
        return await document(store, await store.find(owner, job.id), "json", {}, "")

    part = json.loads(asyncio.run(run()).body)
    assert part["duration"] == 2.5
    assert part["warnings"] == ["the job is running: this is the transcript of its first 2.5 s"]


def test_read_many_reads_jobs_of_many_owners(store, leases, owner, monkeypatch):
    monkeypatch.setattr("asr.service.jobs.store.MAX_PER_QUERY", 3)

    async def run():
        await drain(leases)
        made = [(await store.create(new(f"{owner}{n % 2}")))[0] for n in range(7)]
        for _ in made:
            job = await leases.claim("lease", 60)
            await leases.record(job.id, "lease", NewResults([], [(n, f"{n}") for n in range(12)]))
        wanted = {job.id: n for n, job in enumerate(made)} | {"no such job": 0}
        seen = await store.read_many(wanted)
        assert {job: records for job, (_, records) in seen.items()} == {
            job.id: [str(index) for index in range(n, 12)] for n, job in enumerate(made)
        }
        assert {job.id: job.owner for job, _ in seen.values()} == {j.id: j.owner for j in made}
        assert await store.read_many({}) == {}

    asyncio.run(run())


def test_a_runner_whose_lease_expired_writes_nothing(store, leases, owner):
    async def run():
        await drain(leases)
        job, _ = await store.create(new(owner))
        assert (await leases.claim("old", 60)).id == job.id
        assert await leases.claim("early", 60) is None
        expired = sa.update(jobs).where(jobs.c.id == job.id).values(lease_until=now() - 1)
        await store._database.run(lambda c: c.execute(expired).rowcount)
        assert (await leases.claim("new", 60)).attempts == 2
        assert await leases.renew(["old", "new"], 60) == {"new"}
        for late in (
            leases.record(job.id, "old", NewResults([chunk(0)], [(0, "x")])),
            leases.succeed(job.id, "old", NewResults(), 0, "{}"),
            leases.fail(job.id, "old", "{}"),
            leases.release(job.id, "old", 0),
        ):
            with pytest.raises(LeaseLost):
                await late
        assert await leases.finished_chunks(job.id) == []
        assert await store.segments(job.id) == []
        assert (await store.find(owner, job.id)).lease == "new"
        await store.cancel(owner, job.id)
        with pytest.raises(LeaseLost):
            await leases.record(job.id, "new", NewResults([chunk(0)]))

    asyncio.run(run())


def test_claims_are_fair_among_owners_and_delays_are_kept(store, leases, owner):
    async def run():
        await drain(leases)
        many = [await one_after_another(store, owner) for _ in range(3)]
        few = [await one_after_another(store, owner + "x")]
        claimed = [(await leases.claim(uuid.uuid4().hex, 60)) for _ in range(3)]
        assert [job.id for job in claimed] == [many[0], few[0], many[1]]
        await leases.release(claimed[0].id, claimed[0].lease, 60)
        await leases.release(claimed[1].id, claimed[1].lease, 0, 3)
        again = await leases.claim("l", 60)
        assert (again.id, again.stalls, again.attempts) == (few[0], 3, 2)
        assert (await leases.claim("m", 60)).id == many[2]
        assert await leases.claim("n", 60) is None

    asyncio.run(run())


def test_no_job_is_claimed_twice_at_once(store, leases, owner):
    async def run():
        await drain(leases)
        made = {(await store.create(new(owner)))[0].id for _ in range(30)}
        claims = [leases.claim(uuid.uuid4().hex, 60) for _ in range(40)]
        found = [job.id for job in await asyncio.gather(*claims) if job]
        assert len(found) == len(set(found))
        # A claim may skip a job that another claim has locked; the next claim finds it.
        while job := await leases.claim(uuid.uuid4().hex, 60):
            found.append(job.id)
        assert sorted(found) == sorted(made)

    asyncio.run(run())


def test_deleting_leaves_nothing(store, leases, owner, database):
    async def run():
        await drain(leases)
        job, _ = await store.create(new(owner), key="k", callback=("c", "http://x/"))
        await leases.claim("lease", 60)
        await leases.record(job.id, "lease", NewResults([chunk(0)], [(0, "a")]))
        assert await store.delete(owner, job.id)
        assert await leases.finished_chunks(job.id) == []
        assert await store.segments(job.id) == []
        assert await CallbackQueue(database).next(60) is None
        assert (await store.create(new(owner), key="k"))[1]

    asyncio.run(run())


def test_callbacks_of_busy_owners_and_receivers_wait(store, leases, owner, database):
    async def run():
        await drain(leases)
        queue, in_flight = CallbackQueue(database), InFlight(4)
        urls = ("http://a/1?x=%_", "http://a?2", "http://a/3", "http://ab/", "http://b/")
        for url in urls:
            made, _ = await store.create(new(owner), callback=(uuid.uuid4().hex, url))
            await leases.claim("lease", 60)
            await leases.fail(made.id, "lease", "{}")
        theirs, _ = await store.create(new(owner + "x"), callback=(uuid.uuid4().hex, "http://a/"))
        await leases.claim("lease", 60)
        await leases.fail(theirs.id, "lease", "{}")
        given = []
        while found := await queue.next(60, in_flight):
            in_flight.add(found)
            given.append((found.job.owner == owner, found.url))
        # Two of four places, each for another receiver; then one of the other owner.
        assert sorted(given) == [
            (False, "http://a/"),
            (True, "http://a/1?x=%_"),
            (True, "http://ab/"),
        ]
        for _ in range(2):
            in_flight = InFlight(4)
            assert await queue.next(60, in_flight) is not None

    asyncio.run(run())


def test_finished_jobs_expire_and_others_do_not(store, leases, owner):
    async def run():
        await drain(leases)
        done, _ = await store.create(new(owner))
        await leases.claim("lease", 60)
        await leases.fail(done.id, "lease", "{}")
        waiting, _ = await store.create(new(owner))
        assert done.id not in await store.expire(60)
        await asyncio.sleep(0.05)
        assert done.id in await store.expire(0.01)
        assert [job.id for job in await store.page(owner, 10)] == [waiting.id]
        assert await store.states_of([waiting.id, done.id]) == {waiting.id: "queued"}

    asyncio.run(run())


def test_sqlite_is_unavailable_while_it_is_locked(tmp_path, owner, monkeypatch):
    monkeypatch.setattr("asr.service.jobs.database.CONNECT_SECONDS", 0.5)
    path = tmp_path / "jobs.db"
    store = JobStore(Database(f"sqlite:///{path}"))
    asyncio.run(store.open())
    with contextlib.closing(sqlite3.connect(path)) as blocker:
        blocker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            asyncio.run(store.create(new(owner)))
        blocker.rollback()
    assert asyncio.run(store.create(new(owner)))[1]


def test_lost_postgres_is_unavailable(owner):
    pytest.importorskip("psycopg")
    store = JobStore(Database("postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(StoreUnavailable, match="refused"):
        asyncio.run(store.open())
    with pytest.raises(StoreUnavailable, match="not reached"):
        asyncio.run(store.create(new(owner)))


def test_postponed_jobs_wait_and_those_of_other_owners_do_not(store, leases, owner):
    async def run():
        await drain(leases)
        mine = [await one_after_another(store, owner) for _ in range(3)]
        theirs = await one_after_another(store, owner + "x")
        first = await leases.claim("a", 60)
        assert first.id == mine[0]
        await leases.postpone(first.id, "a", owner, 3600)
        job = await store.find(owner, mine[0])
        assert (job.state, job.attempts, job.stalls, job.started) == ("queued", 0, 0, None)
        assert (await leases.claim("b", 60)).id == theirs
        assert await leases.claim("c", 60) is None
        with pytest.raises(LeaseLost):
            await leases.postpone(first.id, "a", owner, 0)

    asyncio.run(run())


def test_postponed_jobs_do_not_fill_the_queue(store, leases, owner):
    async def run():
        await drain(leases)
        before = await store.n_waiting()
        for _ in range(3):
            await one_after_another(store, owner)
        job = await leases.claim("a", 60)
        await leases.postpone(job.id, "a", owner, 3600)
        assert await store.n_waiting() == before
        theirs, _ = await store.create(new(owner + "x"), max_waiting=before + 1)
        with pytest.raises(LimitReached):
            await store.create(new(owner + "x"), max_waiting=before + 1)
        assert (await leases.claim("b", 60)).id == theirs.id
        await leases.release(theirs.id, "b", 60)  # as when the engine is unavailable
        assert await store.n_waiting() == before + 1

    asyncio.run(run())


def test_a_postponed_job_keeps_its_earlier_attempts(store, leases, owner):
    async def run():
        await drain(leases)
        job, _ = await store.create(new(owner))
        began = (await leases.claim("a", 60)).started
        await leases.release(job.id, "a", 0, 2)
        await leases.claim("b", 60)
        await leases.postpone(job.id, "b", owner, 0)
        job = await leases.claim("c", 60)
        assert (job.attempts, job.stalls, job.started) == (2, 2, began)

    asyncio.run(run())
