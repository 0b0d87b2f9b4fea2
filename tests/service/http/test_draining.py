"""A server that is about to end: not ready, no new jobs, and every request is answered."""

import asyncio

from asr.service.http.draining import ClosingConnections, Drain
from tests.support.inprocess import serving
from tests.support.serving import PATH, make_wav, wait_for

WAV = make_wav(1)
RAW = {"content-type": "audio/wav"}


def test_only_answers_during_the_drain_close_their_connections():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def headers(drain):
        sent = []

        async def send(message):
            sent.append(message)

        await ClosingConnections(app, drain)({"type": "http"}, None, send)
        return sent[0]["headers"]

    drain = Drain()
    assert asyncio.run(headers(drain)) == []
    drain.is_on = True
    assert asyncio.run(headers(drain)) == [(b"connection", b"close")]


def test_a_draining_server_answers_but_is_not_ready_and_begins_no_job():
    with serving(ASR_MAX_ACTIVE_JOBS="1") as server:
        client = server.client()
        assert client.get("/ready").status_code == 200
        server._loop.call_soon_threadsafe(server._application.drain)
        answer = wait_for(lambda: (got := client.get("/ready")).status_code == 503 and got, 30)
        assert answer.json()["reason"] == "the server is about to end"
        assert answer.headers["connection"] == "close"
        assert client.post(PATH, content=WAV, headers=RAW).status_code == 200
        job = client.post("/v1/jobs", content=WAV, headers=RAW)
        assert job.status_code == 202, "another server will do it"
        server._application.jobs.runner.wake()
        assert client.post(PATH, content=WAV, headers=RAW).status_code == 200
        assert client.get(f"/v1/jobs/{job.json()['id']}").json()["state"] == "queued"
