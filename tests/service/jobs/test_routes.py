"""The routes of jobs in process, without a worker: owners, finished uploads, the queue."""

import asyncio
import contextlib

import httpx
import pytest
from fastapi import FastAPI

from asr.errors import AsrError
from asr.service.errors import NotFound
from asr.service.http.problems import Problem, problem_of
from asr.service.jobs.routes import make_job_router
from asr.service.jobs.service import Jobs
from asr.service.jobs.stream import follow
from asr.service.jobs.watch import Watch
from asr.settings import Settings

RAW = {"content-type": "audio/wav"}


class Uploads:
    """Uploads that contain one finished upload, which belongs to alice."""

    def __init__(self, path):
        self.path = path

    def link(self, upload_id, owner, target):
        if (upload_id, owner) != ("u1", "alice"):
            raise NotFound("upload_id: unknown", "no_such_upload", "upload_id")
        target.hardlink_to(self.path)


@contextlib.asynccontextmanager
async def serving(folder, **settings):
    """An HTTP client and the jobs. The header x-owner names the owner, in place of a key."""
    upload = folder / "upload"
    upload.write_bytes(b"uploaded")
    settings = Settings(data_dir=str(folder), work_dir=str(folder), **settings)
    jobs = Jobs(
        client=None, settings=settings, run_dir=folder, incoming=folder, uploads=Uploads(upload)
    )
    jobs.recordings.open()
    await jobs.store.open()
    app = FastAPI()
    app.include_router(make_job_router(jobs))
    for kind in (Problem, AsrError):
        app.add_exception_handler(kind, lambda _, error: problem_of(error).response())

    async def with_owner(scope, receive, send):
        owner = dict(scope["headers"]).get(b"x-owner", b"").decode()
        await app({**scope, "state": {"owner": owner}}, receive, send)

    transport = httpx.ASGITransport(with_owner)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client, jobs
    await jobs.store.close()


def test_no_key_reaches_the_jobs_of_another(tmp_path):
    async def run():
        async with serving(tmp_path) as (client, jobs):
            alice, bob = ({"x-owner": name} for name in ("alice", "bob"))
            made = await client.post("/v1/jobs", content=b"x", headers=RAW | alice)
            assert made.status_code == 202
            job = made.json()
            same = await client.post("/v1/jobs", content=b"x", headers=RAW | bob)
            assert same.status_code == 202
            assert same.json()["id"] != job["id"]
            for headers in (bob, {}):
                for method, path in (
                    ("GET", ""),
                    ("GET", "/events"),
                    ("GET", "/transcript.json"),
                    ("POST", "/cancel"),
                    ("DELETE", ""),
                ):
                    path = f"/v1/jobs/{job['id']}{path}"
                    answer = await client.request(method, path, headers=headers)
                    assert answer.status_code == 404
                listed = (await client.get("/v1/jobs", headers=headers)).json()["data"]
                assert job["id"] not in [item["id"] for item in listed]
            assert jobs.recordings.path(job["id"]).exists()
            own = await client.get(f"/v1/jobs/{job['id']}", headers=alice)
            assert own.json() == job

    asyncio.run(run())


@pytest.mark.parametrize("how", ["json", "form", "multipart"])
def test_job_of_a_finished_upload(tmp_path, how):
    fields = {"upload_id": "u1", "language": "en"}
    sent = {"json": {"json": fields}, "form": {"data": fields}}.get(
        how, {"files": {name: (None, value) for name, value in fields.items()}}
    )

    async def run():
        async with serving(tmp_path) as (client, jobs):
            answer = await client.post("/v1/jobs", headers={"x-owner": "alice"}, **sent)
            assert answer.status_code == 202, answer.text
            job = answer.json()
            assert job["n_bytes"] == len(b"uploaded")
            assert job["language"] == "en"
            # The upload may expire before the job ends.
            (tmp_path / "upload").unlink()
            assert jobs.recordings.path(job["id"]).read_bytes() == b"uploaded"
            refused = await client.post("/v1/jobs", headers={"x-owner": "bob"}, **sent)
            assert refused.status_code == 404
            assert refused.json()["error"]["param"] == "upload_id"

    asyncio.run(run())


def test_full_queue_is_429(tmp_path):
    async def run():
        async with serving(tmp_path, max_waiting_jobs=2) as (client, _):
            for content in (b"1", b"2"):
                assert (await client.post("/v1/jobs", content=content, headers=RAW)).is_success
            answer = await client.post("/v1/jobs", content=b"3", headers=RAW)
            assert answer.status_code == 429
            assert answer.headers["x-should-retry"] == "true"
            assert int(answer.headers["retry-after"]) > 0

    asyncio.run(run())


def test_concurrent_requests_do_not_exceed_the_bound(tmp_path):
    """All requests read the length of the queue before any of them adds a job."""

    async def run():
        async with serving(tmp_path, max_waiting_jobs=2) as (client, jobs):
            all_counted = asyncio.Barrier(13)
            n_waiting = jobs.store.n_waiting

            async def count():
                found = await n_waiting()
                await all_counted.wait()
                return found

            async def post(content, key):
                headers = RAW | {"idempotency-key": key}
                return await client.post("/v1/jobs", content=content, headers=headers)

            first = await client.post("/v1/jobs", content=b"same", headers=RAW)
            jobs.store.n_waiting = count
            sent = [(b"%d" % n, f"{n}") for n in range(12)] + [(b"same", "again")]
            *others, same = await asyncio.gather(*(post(*one) for one in sent))
            assert sorted(answer.status_code for answer in others) == [202, *[429] * 11]
            refused = next(answer for answer in others if answer.status_code == 429)
            assert refused.json()["error"]["code"] == "too_many_jobs"
            assert int(refused.headers["retry-after"]) > 0
            assert (same.status_code, same.json()["id"]) == (200, first.json()["id"])
            assert await n_waiting() == 2
            assert (
                len([path for path in (tmp_path / "recordings").rglob("*") if path.is_file()]) == 2
            )

    asyncio.run(run())


def test_one_key_cannot_fill_the_queue_for_others(tmp_path):
    async def run():
        async with serving(tmp_path, max_waiting_jobs=40) as (client, jobs):
            statuses = {}
            for owner in ("flood", "other"):
                headers = RAW | {"x-owner": owner}
                statuses[owner] = [
                    (await client.post("/v1/jobs", content=f"{n}", headers=headers)).status_code
                    for n in range(42 if owner == "flood" else 3)
                ]
            assert statuses["flood"] == [202] * 40 + [429] * 2
            assert statuses["other"] == [202] * 2 + [429]
            assert await jobs.store.n_waiting() == 42

    asyncio.run(run())


def test_a_stream_has_keep_alives_and_ends_with_the_service(tmp_path, monkeypatch):
    monkeypatch.setattr("asr.service.jobs.stream.KEEP_ALIVE_SECONDS", 0.05)

    async def run():
        async with serving(tmp_path) as (client, jobs):
            made = (await client.post("/v1/jobs", content=b"x", headers=RAW)).json()
            job = await jobs.store.find("", made["id"])
            jobs.watch = Watch(jobs.store, poll_seconds=0.01)
            sent = []
            async for event in follow(jobs, job, 0):
                sent.append(event)
                jobs.is_closing = len(sent) == 4
            assert sent[0].startswith("event: progress\ndata: ")
            assert sent[1:] == [": keep-alive\n\n"] * 3

    asyncio.run(run())


def test_recording_without_a_job_is_swept_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("asr.service.jobs.recordings.ORPHAN_SECONDS", -1)

    async def run():
        async with serving(tmp_path) as (client, jobs):
            job = (await client.post("/v1/jobs", content=b"x", headers=RAW)).json()
            orphan = jobs.recordings.path("0" * 32)
            orphan.write_bytes(b"left by a server that died before it stored the job")
            sweeping = asyncio.create_task(jobs._sweep())
            while orphan.exists():
                await asyncio.sleep(0.01)
            sweeping.cancel()
            assert jobs.recordings.path(job["id"]).exists()

    asyncio.run(run())
