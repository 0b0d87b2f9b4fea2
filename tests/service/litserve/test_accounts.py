"""How many seconds of audio a key is charged when a transcription ends early."""

import asyncio
import contextlib

import pytest

from asr.errors import AsrError, EngineTimeout, UnsupportedAudio, WorkerDied
from asr.pipeline.run import Progress
from asr.service.litserve.client import WorkerClient
from asr.service.litserve.messages import Failed, Heartbeat
from tests.service.access.test_keys import lines
from tests.support.inprocess import serving
from tests.support.serving import PATH, make_wav, wait_for


def scripted(*reports):
    """A `submit` that answers each command with these reports; it raises those that are errors."""

    async def submit(command):
        for report in reports:
            if isinstance(report, Exception):
                raise report
            yield report

    return submit


class Command:
    id, owner, kept = "a", "key", None


HEARD = (Progress(20, 0, None), Heartbeat(), Progress(60, 40, 90))


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        (Failed(UnsupportedAudio("noise behind the speech")), 40),
        (Failed(EngineTimeout("our own fault")), None),
        (WorkerDied("our own fault"), None),
    ],
)
def test_audio_before_an_error_is_charged_unless_the_error_is_ours(end, seconds):
    counted = []
    submit = scripted(*HEARD, end)
    client = WorkerClient(submit, [lambda owner, seconds: counted.append((owner, seconds))])

    async def run():
        with contextlib.suppress(AsrError):
            async for _ in client.transcribe(Command):
                pass

    asyncio.run(run())
    assert counted == ([("key", seconds)] if seconds else [])


def test_a_client_that_leaves_early_is_charged_for_what_it_received():
    keys = lines({"a": {"audio_hours_per_day": 10 / 3600, "scopes": ["admin"]}})
    with serving(ASR_API_KEYS=keys, FAKE_ENGINE_DELAY="0.3") as server:
        client = server.client(headers={"x-api-key": "key-a"})
        form = {"files": {"file": make_wav(600)}, "data": {"stream": "true"}}
        with client.stream("POST", PATH, **form) as answer:
            next(line for line in answer.iter_lines() if "transcript.text.segment" in line)
        wait_for(lambda: 'asr_audio_seconds_total{key="a"}' in client.get("/metrics").text, 60)
        refused = client.post(PATH, files={"file": make_wav(1)})
        assert refused.json()["error"]["code"] == "audio_limit_exceeded"
