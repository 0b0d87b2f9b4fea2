"""The routes of jobs in process, without a worker: owners, finished uploads, the queue."""

import asyncio
import contextlib
import itertools
import json
from urllib.parse import quote

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

    metadata = "filetype YXVkaW8vd2F2,filename w7xiZXIud2F2"

    def status(self, upload_id, owner):
        if (upload_id, owner) != ("u1", "alice"):
            raise NotFound("upload_id: unknown", "no_such_upload", "upload_id")
        return self

    def link(self, upload_id, owner, target):
        self.status(upload_id, owner)
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
            assert job["name"] == "über.wav"
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


async def _post(client, content=b"x", **options):
    answer = await client.post("/v1/jobs", content=content, **options)
    assert answer.is_success, answer.text
    return answer.json()


def test_jobs_are_found_by_name_and_metadata(tmp_path):
    async def run():
        async with serving(tmp_path) as (client, _):
            sent = [
                ("Straße 1.wav", {"project": "radio", "take": "1"}),
                ("strasse_2.wav", {"project": "Radio"}),
                ("100%.wav", {"project": 'rad"io', "a": 'x","project": "radio'}),
                ("1000.wav", {}),
            ]
            for name, labels in sent:
                disposition = f"attachment; filename*=UTF-8''{quote(name)}"
                params = {f"metadata[{key}]": value for key, value in labels.items()}
                headers = RAW | {"content-disposition": disposition}
                job = await _post(client, headers=headers, params=params)
                assert (job["name"], job["metadata"]) == (name, labels)
                own = await client.get(job["urls"]["srt"])
                assert quote(name.removesuffix(".wav")) in own.headers["content-disposition"]

            async def found(**params):
                listed = await client.get("/v1/jobs", params=params)
                return sorted(job["name"] for job in listed.json()["data"])

            assert await found(name="STRASSE") == ["Straße 1.wav", "strasse_2.wav"]
            assert await found(name="_") == ["strasse_2.wav"]
            assert await found(name="100%") == ["100%.wav"]
            assert await found(name="\0") == sorted(name for name, _ in sent)
            assert await found(name="none") == []
            assert await found(**{"metadata[project]": "radio"}) == ["Straße 1.wav"]
            both = {"metadata[project]": "radio", "metadata[take]": "1"}
            assert await found(**both) == ["Straße 1.wav"]
            assert await found(**both, name="2") == []
            assert await found(metadata='{"project": "Radio"}') == ["strasse_2.wav"]
            assert await found(**{"metadata[project]": 'rad"io'}) == ["100%.wav"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("query", "name"),
    [("sate=failed", "sate"), ("state=failed&state=queued", "state"), ("name=a&x[y]=1", "x[y]")],
)
def test_a_filter_that_would_be_ignored_is_refused(tmp_path, query, name):
    async def run():
        async with serving(tmp_path) as (client, _):
            answer = await client.get(f"/v1/jobs?{query}")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("srt?max_cps=9&colour=red&highlight_words=true", ["'colour'", "highlight_words"]),
        ("vtt?max_cps=9&highlight_words=true", []),
        ("json?max_cps=9", ["max_cps has no effect on transcript.json"]),
    ],
)
def test_a_download_names_what_has_no_effect(tmp_path, address, named):
    async def run():
        async with serving(tmp_path) as (client, _):
            job = await _post(client, headers=RAW)
            answer = await client.get(f"{job['urls']['self']}/transcript.{address}")
            _, *warnings = json.loads(answer.headers["x-transcript-warnings"])
            assert len(warnings) == len(named)
            assert all(name in text for name, text in zip(named, warnings, strict=True))

    asyncio.run(run())


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"upload_id": "u1", "metadata": {"a": "1", "ü": ""}}},
        {"data": {"upload_id": "u1", "metadata": '{"a": "1", "ü": ""}'}},
        {"data": {"upload_id": "u1", "metadata[a]": "1", "metadata[ü]": ""}},
    ],
    ids=["json", "text", "brackets"],
)
def test_metadata_in_every_body(tmp_path, sent):
    async def run():
        async with serving(tmp_path) as (client, _):
            answer = await client.post("/v1/jobs", headers={"x-owner": "alice"}, **sent)
            assert answer.json()["metadata"] == {"a": "1", "ü": ""}
            assert answer.json()["warnings"] == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "labels",
    ["[1]", "x", '{"a": 1}', '{"a": {"b": "c"}}', '{"": "x"}',
     json.dumps({"k" * 65: "x"}), json.dumps({"k": "x" * 513}),
     json.dumps({str(n): "x" for n in range(17)})],
)  # fmt: skip
def test_metadata_beyond_the_limits_is_refused(tmp_path, labels):
    async def run():
        async with serving(tmp_path) as (client, _):
            for method in ("POST", "GET"):
                answer = await client.request(
                    method, "/v1/jobs", params={"metadata": labels}, content=b"x", headers=RAW
                )
                assert answer.status_code == 400
                assert answer.json()["error"]["param"] == "metadata"

    asyncio.run(run())


def test_other_names_and_metadata_are_other_jobs(tmp_path):
    async def run():
        async with serving(tmp_path) as (client, _):
            named = RAW | {"content-disposition": "attachment; filename=a.wav"}
            labelled = {"params": {"metadata[a]": "1"}}
            jobs = [
                await _post(client, headers=headers, **options)
                for headers in (RAW, named)
                for options in ({}, labelled)
                for _ in range(2)
            ]
            assert [a["id"] == b["id"] for a, b in itertools.pairwise(jobs)] == [
                True, False, True, False, True, False, True,
            ]  # fmt: skip
            key = {"idempotency-key": "k"}
            first = await _post(client, b"y", headers=named | key, **labelled)
            renamed = {"content-disposition": "attachment; filename=b.wav"}
            again = await _post(client, b"y", headers=named | key | renamed, **labelled)
            assert (again["id"], again["name"]) == (first["id"], "a.wav")
            other = await client.post("/v1/jobs", content=b"y", headers=named | key)
            assert other.status_code == 422

    asyncio.run(run())
