"""What counts as transcribed for a key when a transcription ends before its end."""

import asyncio
import contextlib

import pytest

from asr.errors import AsrError, EngineTimeout, UnsupportedAudio, WorkerDied
from asr.pipeline.run import Progress
from asr.service.litserve.spec import TranscriptionSpec
from asr.service.litserve.worker import Failed, Heartbeat
from tests.service.access.test_keys import lines
from tests.support.serving import FAKE, PATH, make_wav, serving, wait_for


class Scripted(TranscriptionSpec):
    """Its worker reports these; an error among them is raised by the way to the worker."""

    def __init__(self, *reports):
        super().__init__(1.0)
        self.reports = reports
        self.counted = []
        self.on_transcript.append(lambda owner, seconds: self.counted.append((owner, seconds)))

    async def submit(self, command):
        for report in self.reports:
            if isinstance(report, Exception):
                raise report
            yield report


class Command:
    id, owner = "a", "key"


HEARD = (Progress(20, 0, None), Heartbeat(), Progress(60, 40, 90))


@pytest.mark.parametrize(
    ("end", "seconds"),
    [
        (Failed(UnsupportedAudio("noise behind the speech")), 40),
        (Failed(EngineTimeout("our own fault")), None),
        (WorkerDied("our own fault"), None),
    ],
)
def test_what_was_heard_before_an_error(end, seconds):
    spec = Scripted(*HEARD, end)

    async def run():
        with contextlib.suppress(AsrError):
            async for _ in spec.transcribe(Command):
                pass

    asyncio.run(run())
    assert spec.counted == ([("key", seconds)] if seconds else [])


def test_who_leaves_early_pays_for_what_it_has():
    keys = lines({"a": {"audio_hours_per_day": 10 / 3600, "scopes": ["admin"]}})
    with serving(*FAKE, ASR_API_KEYS=keys, FAKE_ENGINE_DELAY="0.3") as server:
        client = server.client(headers={"x-api-key": "key-a"})
        form = {"files": {"file": make_wav(600)}, "data": {"stream": "true"}}
        with client.stream("POST", PATH, **form) as answer:
            next(line for line in answer.iter_lines() if "transcript.text.segment" in line)
        wait_for(lambda: 'asr_audio_seconds_total{key="a"}' in client.get("/metrics").text, 60)
        refused = client.post(PATH, files={"file": make_wav(1)})
        assert refused.json()["error"]["code"] == "audio_limit_exceeded"
