"""The worker without LitServe: what it reports after system errors such as a full disk."""

import asyncio
import contextlib
import errno
import os

import pytest

from asr.config import Options, VadOptions
from asr.service.http.problems import problem_of
from asr.service.litserve.messages import Failed, Transcribe
from asr.service.litserve.worker import Worker
from asr.settings import Settings
from tests.support.fakes import FakeEngine
from tests.support.serving import make_wav


def reports_of(error, folder):
    """Transcribe one second of sound with an engine that raises `error`."""

    def fail(_):
        raise error

    settings = Settings(work_dir=str(folder), data_dir=str(folder), aligner="none")
    worker = Worker(settings, lambda _: FakeEngine(answer=fail))
    source = folder / "sound.wav"
    source.write_bytes(make_wav(1.0))
    command = Transcribe("id", source, folder, Options(vad=VadOptions(kind="off")))

    async def run():
        try:
            async with contextlib.aclosing(worker.carry_out(command)) as reports:
                return [report async for report in reports]
        finally:
            await worker.close()

    return asyncio.run(run())


def test_a_full_disk_keeps_its_errno(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path")
    *_, last = reports_of(error, tmp_path)
    assert isinstance(last, Failed)
    assert last.error.errno == errno.ENOSPC
    assert "secret" not in str(last.error)
    assert problem_of(last.error).status == 503


@pytest.mark.parametrize("error", [KeyError("a bug"), OSError("no number")])
def test_any_other_error_is_internal(error, tmp_path):
    *_, last = reports_of(error, tmp_path)
    assert isinstance(last, Failed)
    assert problem_of(last.error).status == 500
