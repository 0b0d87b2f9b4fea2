"""The worker without LitServe: what it reports after system errors such as a full disk."""

import asyncio
import contextlib
import errno
import os

import pytest

from asr.config import DecodeOptions, Options, VadOptions
from asr.service.http.problems import problem_of
from asr.service.litserve.messages import Failed, InterimText, RecogniseInterim, Transcribe
from asr.service.litserve.worker import Worker
from asr.settings import Settings
from tests.support.fakes import FakeEngine
from tests.support.serving import make_wav


async def carried_out(worker, command):
    """The reports of a command; the worker is closed afterwards."""
    try:
        async with contextlib.aclosing(worker.carry_out(command)) as reports:
            return [report async for report in reports]
    finally:
        await worker.close()


def reports_of(error, folder):
    """Transcribe one second of sound with an engine that raises `error`."""

    def fail(_):
        raise error

    settings = Settings(work_dir=str(folder), data_dir=str(folder), aligner="none")
    worker = Worker(settings, lambda _: FakeEngine(answer=fail))
    source = folder / "sound.wav"
    source.write_bytes(make_wav(1.0))
    command = Transcribe("id", source, folder, Options(vad=VadOptions(kind="off")))

    return asyncio.run(carried_out(worker, command))


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


def test_an_interim_request_that_fails_is_not_logged(tmp_path, caplog):
    source = tmp_path / "gone.pcm"
    settings = Settings(work_dir=str(tmp_path), data_dir=str(tmp_path), aligner="none")
    worker = Worker(settings, lambda _: FakeEngine())
    command = RecogniseInterim("id", source, DecodeOptions())

    (failed,) = asyncio.run(carried_out(worker, command))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, OSError)
    assert caplog.text == ""
    source.write_bytes(bytes(64_000))
    worker = Worker(settings, lambda _: FakeEngine())
    assert asyncio.run(carried_out(worker, command)) == [InterimText("c0w0 c0w1 c0w2 c0w3")]
