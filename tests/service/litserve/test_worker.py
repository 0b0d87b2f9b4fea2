"""The worker without LitServe: what it reports after system errors such as a full disk."""

import asyncio
import contextlib
import errno
import os

import pytest

from asr.config import DecodeOptions, Options, VadOptions
from asr.errors import EngineTimeout, WorkerDied
from asr.service.faults import chunk_of
from asr.service.http.problems import problem_of
from asr.service.litserve import worker as workers
from asr.service.litserve.messages import (
    Cancel,
    Control,
    Failed,
    Heartbeat,
    InterimText,
    RecogniseInterim,
    Started,
    Transcribe,
)
from asr.service.litserve.worker import Worker
from asr.settings import Settings
from tests.support.fakes import FakeEngine
from tests.support.serving import make_wav


async def carried_out(worker, command):
    """The reports of a command without heartbeats, whose number depends on how long it takes.

    The worker is closed afterwards.
    """
    try:
        async with contextlib.aclosing(worker.carry_out(command)) as reports:
            return [report async for report in reports if report != Heartbeat()]
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


@pytest.mark.parametrize(
    "error", [KeyError("a bug"), EngineTimeout("slow"), WorkerDied("killed", signal=9)], ids=repr
)
def test_the_chunk_that_failed_is_named(error, tmp_path):
    *_, last = reports_of(error, tmp_path)
    assert chunk_of(last.error) == 0


def test_the_first_report_names_the_worker(tmp_path):
    first, *_ = reports_of(KeyError("a bug"), tmp_path)
    assert first == Started(0)


# --- other commands -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def working(folder, **options):
    settings = Settings(work_dir=str(folder), data_dir=str(folder), aligner="none")
    engine = FakeEngine(**options)
    worker = Worker(settings, lambda _: engine)
    try:
        yield worker, engine
    finally:
        await worker.close()


def fail(_):
    raise EngineTimeout("slow")


@pytest.mark.parametrize(("answer", "works"), [(None, True), (fail, False)])
def test_a_control_tells_whether_noise_is_recognised(tmp_path, answer, works):
    async def run():
        async with working(tmp_path, answer=answer) as (worker, engine):
            reports = [report async for report in worker.carry_out(Control())]
            return reports[-1], engine.samples

    last, samples = asyncio.run(run())
    assert last.ready is works
    assert samples == [10 * 16_000]


def test_a_slow_control_sends_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.01)

    async def run():
        async with working(tmp_path, delay=0.1) as (worker, _):
            return [report async for report in worker.carry_out(Control())]

    reports = asyncio.run(run())
    assert len(reports) > 2
    assert set(reports[:-1]) == {Heartbeat()}
    assert reports[-1].ready


def test_cancelling_everything(tmp_path):
    """A new API process ends the work of the one that died."""
    source = tmp_path / "sound.wav"
    source.write_bytes(make_wav(1.0))
    options = Options(vad=VadOptions(kind="off"))

    async def run():
        async with working(tmp_path, delay=60) as (worker, engine):

            async def transcribe(name):
                command = Transcribe(name, source, tmp_path, options)
                return [report async for report in worker.carry_out(command)]

            tasks = [asyncio.create_task(transcribe(name)) for name in "ab"]
            async with asyncio.timeout(60):
                while engine.running < 2:
                    await asyncio.sleep(0.005)
                _ = [report async for report in worker.carry_out(Cancel(None))]
                await asyncio.wait(tasks)
            return engine.running

    assert asyncio.run(run()) == 0


def test_files_that_are_gone_are_reported_and_not_logged(tmp_path, caplog):
    """Usually the client left, and its files went with it."""
    folder = tmp_path / "gone"

    async def run():
        async with working(tmp_path) as (worker, _):
            command = Transcribe("id", tmp_path / "sound.wav", folder, Options())
            return [report async for report in worker.carry_out(command)]

    *_, last = asyncio.run(run())
    assert last.error.errno == errno.ENOENT
    assert "failed" not in caplog.text
